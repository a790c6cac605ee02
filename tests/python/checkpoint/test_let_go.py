"""Descriptors and mappings are closed with the last view, without the garbage collector."""

from __future__ import annotations

import contextlib
from pathlib import Path

import bundles
import every_format
import needs
import pytest
import torch

from tensor_bridge import CheckpointError, checkpoint

pytestmark = needs.keras_3


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return every_format.write(tmp_path_factory.mktemp("formats"))


def held(folder: Path) -> list[str]:
    """Descriptors and mappings of files in a folder, and of files without a name."""
    descriptors = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the folder itself
            descriptors.append(str(descriptor.readlink()))
    mappings = Path("/proc/self/maps").read_text(errors="replace").splitlines()
    return [line for line in (*descriptors, *mappings) if str(folder) in line or "#" in line]


NAMES = [
    "bundle",
    "joined",
    "first",
    "model.h5",
    "model.weights.h5",
    "chunked.weights.h5",
    "stored.keras",
    "packed.keras",
    "pieces",
    "unpacked",
    "listed",
    "graph",
    "tflite",
]


def test_every_format_is_asked(formats: dict[str, Path]) -> None:
    assert sorted(formats) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [10, pytest.param(1000, marks=pytest.mark.exhaustive)])
def test_nothing_is_left_of_loads(
    name: str, count: int, formats: dict[str, Path], no_collector: None
) -> None:
    path = formats[name]
    folder = next(p for p in path.parents if p.name.startswith("formats"))
    before = held(folder)
    for number in range(count):
        loaded = checkpoint.load(path)
        if number < 5:
            view = next(iter(loaded.values()))
            loaded.layers  # noqa: B018
            list(loaded.problems())
            for entry in loaded.all_entries:
                entry.extent()
            del entry
            assert len(held(folder)) > len(before)
            del loaded
            assert view.numel()
            del view
    del loaded
    assert held(folder) == before


def test_the_last_view_keeps_the_mapping_and_no_more(tmp_path: Path, no_collector: None) -> None:
    entries = {
        "v": bundles.entry(dtype=1, shape=(2,), size=8),
        "w": bundles.entry(dtype=1, shape=(2,), offset=8, size=8),
    }
    prefix, before = bundles.write(tmp_path, entries, b"\0" * 16), held(tmp_path)
    loaded = checkpoint.load(prefix)
    one, two = loaded["v"], loaded["w"]
    del loaded
    assert len(held(tmp_path)) > len(before)
    del one
    assert len(held(tmp_path)) > len(before)
    assert torch.equal(two, torch.zeros(2))
    del two
    assert held(tmp_path) == before


def test_failed_loads_leave_nothing(tmp_path: Path, no_collector: None) -> None:
    from tensor_bridge.checkpoint.read._mapped import MappedFile

    path = tmp_path / "broken.weights.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 1000)
    before = held(tmp_path)
    for _ in range(30):
        # Not pytest.raises, which keeps caught exceptions in reference cycles.
        failed = 0
        for call in (checkpoint.load, MappedFile):
            try:
                call(str(path if call is checkpoint.load else tmp_path))
            except CheckpointError:
                failed += 1
        assert failed == 2
    assert held(tmp_path) == before
