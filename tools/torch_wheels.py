"""Headers and symbols of each supported torch release, for adapters that are built without it.

    python tools/torch_wheels.py [MINOR...]      # e.g. 2.8 2.10; by default all

Downloads the release wheels with pip, one at a time, and keeps in build/torch/<minor>/torch:

    include/                   of the first release of each group
    lib/libc10.so ...          stand-ins to link against: no code, but every symbol of the real
                               library, so that the linker finds what is missing
    lib/libc10.symbols.gz ...  the names that the real library exports

Some 0.8 GB a release pass through the disk; what is kept is found again by later runs.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "build" / "torch"
# The release of each minor whose wheel is looked at.
RELEASES = {
    "2.6": "2.6.0",
    "2.7": "2.7.1",
    "2.8": "2.8.0",
    "2.9": "2.9.1",
    "2.10": "2.10.0",
    "2.11": "2.11.0",
    "2.12": "2.12.1",
    "2.13": "2.13.0",
    "2.14": "2.14.1",
    "2.15": "2.15.0",
}
# Linked against; and the one in which a function is looked up.
LINKED = ("libc10.so", "libtorch_cpu.so")
SEARCHED = "libtorch_python.so"
# Kept in another way by an earlier release of this tool: downloaded again.
_FORMAT = 2
# Functions of libstdc++ that leak out of some builds of libtorch_cpu; the real ones are to be used.
_STANDARD = re.compile(r"_Z(?:N|NK|T[ISV])?S[tsabiod]")
_SECTIONS = {"FUNC": ".text", "OBJECT": ".data", "TLS": '.tbss,"awT",@nobits'}
_TYPES = {"FUNC": "function", "OBJECT": "object", "TLS": "tls_object"}


def groups() -> list[list[str]]:
    """The minors that share an adapter, as cmake/torch_groups.cmake lists them."""
    text = (ROOT / "cmake" / "torch_groups.cmake").read_text(encoding="utf-8")
    (line,) = re.findall(r"set\(TB_TORCH_GROUPS (.+)\)", text)
    return [group.split() for group in re.findall(r'"([^"]+)"', line)]


def directory(minor: str) -> Path:
    """What is kept of a release, laid out as an installed torch is."""
    return CACHE / minor / "torch"


def symbols(minor: str, library: str) -> set[str]:
    """The names that the real library exports."""
    path = directory(minor) / "lib" / f"{library.removesuffix('.so')}.symbols.gz"
    return set(gzip.decompress(path.read_bytes()).decode().split())


def download(release: str, folder: Path) -> Path:
    """The wheel of a release. Which Python it is for does not matter here."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    command += ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp"]
    command += [f"--platform={p}_x86_64" for p in ("manylinux_2_28", "manylinux2014", "manylinux1")]
    # Configured constraints are for what is installed, and may leave out a release.
    env = os.environ | {"PIP_CONSTRAINT": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run([*command, f"torch=={release}"], check=True, env=env)
    (wheel,) = folder.glob("torch-*.whl")
    return wheel


def exported(library: Path) -> dict[str, tuple[str, int]]:
    """Name, type and size of each symbol that the library defines for others."""
    command = ["readelf", "--dyn-syms", "--wide", library]
    found = {}
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for line in printed.splitlines():
        # Num: Value Size Type Bind Vis Ndx Name
        words = line.split()
        if len(words) < 8 or words[6] == "UND" or words[4] == "LOCAL" or words[7] == "Name":
            continue
        kind = words[3] if words[3] in _TYPES else "FUNC"
        found[words[7].split("@")[0]] = kind, int(words[2], 0)
    return found


def write_stand_in(target: Path, defined: dict[str, tuple[str, int]]) -> None:
    """A library with those symbols and nothing behind them."""
    lines = []
    for kind, section in _SECTIONS.items():
        lines.append(f".section {section}")
        for name, (its_kind, size) in defined.items():
            if its_kind == kind and not _STANDARD.match(name):
                lines.append(f".globl {name}\n.type {name},@{_TYPES[kind]}\n.size {name},{size}")
                lines.append(f"{name}:")
        lines.append(".zero 8")
    source = target.with_suffix(".s")
    source.write_text("\n".join([*lines, '.section .note.GNU-stack,"",@progbits', ""]))
    command = ["gcc", "-shared", "-nostdlib", f"-Wl,-soname,{target.name}", "-o", target, source]
    subprocess.run(command, check=True)
    source.unlink()


def keep(wheel: Path, minor: str, *, headers: bool) -> None:
    """Takes from a wheel what is kept of it."""
    target = directory(minor)
    shutil.rmtree(target, ignore_errors=True)
    (target / "lib").mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        for name in archive.namelist():
            if headers and name.startswith("torch/include/"):
                archive.extract(name, target.parent)
        for library in (*LINKED, SEARCHED):
            defined = exported(Path(archive.extract(f"torch/lib/{library}", scratch)))
            names = gzip.compress("\n".join(sorted(defined)).encode(), mtime=0)
            stem = library.removesuffix(".so")
            (target / "lib" / f"{stem}.symbols.gz").write_bytes(names)
            if library in LINKED:
                write_stand_in(target / "lib" / library, defined)
    (target / "complete").write_text(_mark(minor))


def _mark(minor: str) -> str:
    return f"{RELEASES[minor]} {_FORMAT}"


def provide(minor: str) -> Path:
    """The directory of a release; downloads what is not there yet."""
    mark = directory(minor) / "complete"
    if not mark.exists() or mark.read_text() != _mark(minor):
        print(f"torch {RELEASES[minor]}: downloading", flush=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            first = any(group[0] == minor for group in groups())
            keep(download(RELEASES[minor], Path(scratch)), minor, headers=first)
    return directory(minor)


def main(arguments: list[str]) -> int:
    for minor in arguments or RELEASES:
        print(provide(minor), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
