"""Reading members of a wheel from an index: with ranges, without, and when they are damaged."""

from __future__ import annotations

import base64
import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import remote_wheel

NAME = "torch-2.6.0-cp311-cp311-manylinux_2_28_x86_64.whl"
# The second member does not compress, so reading the first one needs only a small part of the file.
MEMBERS = {
    "torch/include/a.h": b"// a\n",
    "torch/lib/libtorch.so": hashlib.shake_256(b"").digest(3 * remote_wheel.BLOCK),
    "torch/version.py": b"",
}
METADATA = b"Metadata-Version: 2.1\nName: torch\nVersion: 2.6.0\n"


def write_wheel(path: Path, *, damaged: bool) -> None:
    members = MEMBERS | {
        "torch-2.6.0.dist-info/METADATA": METADATA,
        "torch-2.6.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: cp311-cp311-linux_x86_64\n",
    }
    lines = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            digest = hashlib.sha256(data).digest()
            text = base64.urlsafe_b64encode(digest).decode().rstrip("=")
            lines.append(f"{name},sha256={text},{len(data)}\n")
            archive.writestr(name, b"// b\n" if damaged and name.endswith(".h") else data)
        archive.writestr("torch-2.6.0.dist-info/RECORD", "".join(lines))


class Index(http.server.ThreadingHTTPServer):
    """An index of one wheel. It counts the bytes that it sends of the wheel."""

    def __init__(self, wheel: Path, ranges: bool) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.wheel, self.ranges, self.sent = wheel.read_bytes(), ranges, 0
        self.digest = hashlib.sha256(self.wheel).hexdigest()


class Answer(http.server.BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        if not self.path.endswith(".whl"):
            link = f'<a href="/{NAME}#sha256={self.server.digest}">{NAME}</a>'
            self.answer(200, link.encode(), {"Content-Type": "text/html"})
        elif span and self.server.ranges:
            first, last = map(int, span.removeprefix("bytes=").split("-"))
            whole = f"bytes {first}-{last}/{len(self.server.wheel)}"
            self.answer(206, self.server.wheel[first : last + 1], {"Content-Range": whole})
        else:
            self.answer(200, self.server.wheel, {})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        # Counted before sending, because a client may read the count as soon as it has the answer.
        self.server.sent += len(body)
        try:
            self.wfile.write(body)
        except ConnectionError:
            self.server.sent -= len(body)  # The client wanted a range and refuses the whole file.

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Index]:
    ranges, damaged = request.param
    write_wheel(tmp_path / NAME, damaged=damaged)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    with Index(tmp_path / NAME, ranges) as server:
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        # shutdown() waits for the end of an interval, which is half a second by default.
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


# pip warns at its first import.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize("index", [(True, False), (False, False)], indirect=True, ids=str)
def test_members_are_read(index: Index, tmp_path: Path) -> None:
    with remote_wheel.opened("torch", "2.6.0", tmp_path) as wheel:
        wheel.extract(["torch/include/a.h"], tmp_path / "out")
        assert wheel.name == NAME
        assert wheel.sha256 == index.digest
        assert wheel.record_sha256 == hashlib.sha256(wheel.record).hexdigest()
        if index.ranges:
            assert 0 < wheel.fetched <= index.sent < len(index.wheel)
        else:
            assert index.sent >= len(index.wheel)
    assert (tmp_path / "out/torch/include/a.h").read_bytes() == b"// a\n"
    # The downloaded file is deleted.
    assert {path.name for path in tmp_path.iterdir()} == {NAME, "out"}


@pytest.mark.parametrize("index", [(True, False)], indirect=True, ids=str)
def test_a_pip_that_cannot_be_asked_downloads(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pip._internal.commands.download.DownloadCommand", None)
    with remote_wheel.opened("torch", "2.6.0", tmp_path) as wheel:
        wheel.extract(MEMBERS, tmp_path / "out")
        assert wheel.sha256 == index.digest
    assert index.sent >= len(index.wheel)
    for name, data in MEMBERS.items():
        assert (tmp_path / "out" / name).read_bytes() == data


@pytest.mark.parametrize("index", [(True, True), (False, True)], indirect=True, ids=str)
def test_a_member_that_differs_from_record_ends_it(index: Index, tmp_path: Path) -> None:
    with (
        remote_wheel.opened("torch", "2.6.0", tmp_path) as wheel,
        pytest.raises(SystemExit, match="does not match RECORD"),
    ):
        wheel.extract(["torch/include/a.h"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("index", [(True, False)], indirect=True, ids=str)
def test_a_release_that_is_not_there_is_named(index: Index, tmp_path: Path) -> None:
    with (
        pytest.raises(SystemExit, match="pip finds no wheel of torch"),
        remote_wheel.opened("torch", "2.7.1", tmp_path),
    ):
        pass
