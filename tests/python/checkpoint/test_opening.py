"""Only regular files are opened, and nothing waits for other kinds of files."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import every_format
import h5py
import needs
import pytest

from tensor_bridge import CheckpointError, CheckpointNotFoundError, checkpoint

# Nothing writes to the FIFOs and nothing answers at the sockets: code that waits for them waits
# until pytest-timeout ends the test.
KINDS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "fifo": ("a FIFO", os.mkfifo),
    "link to a fifo": ("a FIFO", lambda path: _linked(path, os.mkfifo)),
    "zero": ("a device", lambda path: path.symlink_to("/dev/zero")),
    "socket": ("a socket", lambda path: _bound(path)),
}


def _linked(path: Path, make: Callable[[Path], None]) -> None:
    make(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def _bound(path: Path) -> None:
    # A socket's path may have 107 bytes; that of pytest's folders is longer.
    where = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as at:
        at.bind(f"/proc/self/fd/{where}/{path.name}")
    os.close(where)


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return every_format.write(tmp_path_factory.mktemp("formats"))


def files_of(path: Path) -> list[Path]:
    """The files that are read for a path, relative to its folder."""
    folder = path if path.is_dir() else path.parent
    own = [p for p in folder.rglob("*") if p.is_file()]
    if not path.is_dir():
        own = [p for p in own if p.name.startswith(path.name.partition(".")[0])]
    return [p.relative_to(folder) for p in own]


def refusal(path: Path) -> Exception | None:
    """The error that reading everything raises, or None."""
    try:
        loaded = checkpoint.load(path)
        for problem in loaded.problems():
            raise problem
        assert loaded.layers is not None
        for entry in loaded.all_entries:
            entry.read(False)
    except (CheckpointError, CheckpointNotFoundError) as e:
        return e
    return None


@needs.keras_3
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_is_refused_wherever_a_name_leads(
    kind: str, formats: dict[str, Path], tmp_path: Path
) -> None:
    said, make = KINDS[kind]
    refused = 0
    for name, path in formats.items():
        source = path if path.is_dir() else path.parent
        for number, relative in enumerate(files_of(path)):
            folder = tmp_path / f"{name}-{number}"
            shutil.copytree(source, folder)
            (folder / relative).unlink()
            make(folder / relative)
            error = refusal(folder if path.is_dir() else folder / path.name)
            if error is not None:
                refused += 1
                expected = said in str(error) or isinstance(error, CheckpointNotFoundError)
                assert expected, (name, relative, error)
    assert refused > len(formats)


def test_names_beside_the_checkpoint_are_not_waited_for(tmp_path: Path) -> None:
    """Files that are only considered because they might belong to a checkpoint."""
    os.mkfifo(tmp_path / "ck-00000-of-00001")
    with pytest.raises(CheckpointNotFoundError):
        checkpoint.load(tmp_path / "ck")
    os.mkfifo(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="got a FIFO") as caught:
        checkpoint.load(tmp_path)
    assert caught.value.file == str(tmp_path / "checkpoint")


def test_hdf5_opens_no_file_that_a_file_names(tmp_path: Path) -> None:
    fifo, path = tmp_path / "fifo", tmp_path / "w.weights.h5"
    os.mkfifo(fifo)
    with h5py.File(path, "w") as file:
        file["a"] = h5py.ExternalLink(str(fifo), "/x")
        file["model_weights"] = h5py.ExternalLink(str(fifo), "/x")
        file["layers/dense/vars/0"] = [1.0]
        file["soft"] = h5py.SoftLink("/a")
    assert [float(x) for x in next(iter(checkpoint.load(path).values()))] == [1.0]
    with h5py.File(path, "a") as file:
        layout = h5py.VirtualLayout(shape=(4,), dtype="f4", maxshape=(None,))
        source = h5py.VirtualSource(str(fifo), "x", shape=(4,), maxshape=(None,), dtype="f4")
        layout[0 : h5py.UNLIMITED] = source[0 : h5py.UNLIMITED]
        file.create_virtual_dataset("layers/dense/vars/1", layout)
    with pytest.raises(CheckpointError, match="it is in others"):
        checkpoint.load(path)


def test_a_file_that_ends_nowhere_is_read_as_far_as_it_says() -> None:
    # A regular file of size 0 from which endless bytes can be read.
    with pytest.raises(CheckpointError):
        checkpoint.load("/proc/self/mem")


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError):
        checkpoint.load("x" * 5000)
    (tmp_path / "w.weights.json").write_text('{"weight_map": {"a": "b\\u0000c"}}')
    with pytest.raises(CheckpointError, match="null"):
        checkpoint.load(tmp_path / "w.weights.json")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises((CheckpointError, CheckpointNotFoundError)):
        checkpoint.load(tmp_path / "loop")
