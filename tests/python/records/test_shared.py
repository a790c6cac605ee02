"""Batches from the workers of a DataLoader: the same values, in one block of shared memory each."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import example_bytes
import pytest
import torch
from torch.utils.data import DataLoader

from tensor_bridge import StringTensor, records
from tensor_bridge.composite import Ragged
from tensor_bridge.data._device import map_tensors
from tensor_bridge.errors import OutOfMemoryError
from tensor_bridge.records import _shared

# torch's own, where it takes a sparse tensor from a worker.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks")
SPEC = {
    "n": records.FixedLenFeature((), "int64"),
    "x": records.FixedLenFeature((2,), "float32"),
    "s": records.FixedLenFeature((), bytes),
    "p": records.FixedLenSequenceFeature((), "int64", allow_missing=True, default_value=-1),
    "v": records.VarLenFeature("int64"),
    "w": records.VarLenFeature(bytes),
    "r": records.RaggedFeature("float32"),
    "r8": records.RaggedFeature("float32", value_key="r", row_splits_dtype="int64"),
    "q": records.RaggedFeature(
        "int64", partitions=[records.RaggedFeature.RowLengths("l")], row_splits_dtype="int64"
    ),
}
RAW = {"x": records.FixedLenFeature((2,), bytes, decode=records.Raw("int16", (3,)))}
LISTS = records.SequenceFeatures(
    {"n": records.FixedLenFeature((), "int64")},
    {
        "rows": records.FixedLenSequenceFeature((2,), "int64"),
        "words": records.VarLenFeature(bytes),
        "ragged": records.RaggedFeature("int64"),
    },
)


def example(number: int) -> bytes:
    feature = example_bytes.feature
    return example_bytes.example(
        [
            ("n", feature("int64", [number])),
            ("x", feature("float32", [number, -number])),
            ("s", feature("bytes", [b"s" * (number % 5)])),
            ("p", feature("int64", range(number % 3))),
            ("v", feature("int64", range(number % 3))),
            ("w", feature("bytes", [b"w"] * (number % 2))),
            ("r", feature("float32", range(number % 4))),
            ("q", feature("int64", range(number % 4))),
            ("l", feature("int64", [number % 4, 0])),
        ]
    )


def lists(number: int) -> bytes:
    feature, listed = example_bytes.feature, example_bytes.feature_list
    count = number % 3
    return example_bytes.sequence_example(
        [("n", feature("int64", [number]))],
        [
            ("rows", listed([feature("int64", [i, i]) for i in range(count)])),
            ("words", listed([feature("bytes", [b"w"] * i) for i in range(count)])),
            ("ragged", listed([feature("int64", range(i)) for i in range(count)])),
        ],
    )


def raw(number: int) -> bytes:
    words = [bytes([number, 0, i, 0, 1, 1]) for i in range(2)]
    return example_bytes.example([("x", example_bytes.feature("bytes", words))])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("shared")
    for name, record in (("examples", example), ("lists", lists), ("raw", raw)):
        with records.Writer(made / name) as writer:
            for number in range(11):
                writer.write(record(number))
    return made


@pytest.fixture(params=["file_descriptor", "file_system"])
def strategy(request: pytest.FixtureRequest) -> Iterator[str]:
    before = torch.multiprocessing.get_sharing_strategy()
    torch.multiprocessing.set_sharing_strategy(request.param)
    yield request.param
    torch.multiprocessing.set_sharing_strategy(before)


def plain(value: Any) -> Any:
    """Dtypes, shapes and values, to be compared."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, StringTensor):
        return value.tolist()
    if isinstance(value, Ragged):
        return plain(value.values), [plain(each) for each in value.row_splits]
    if isinstance(value, list):
        return [plain(each) for each in value]
    if value.is_nested:
        return plain(value.values()), plain(value.offsets()), value._max_seqlen
    if value.layout is torch.sparse_coo:
        return plain(value.indices()), plain(value.values()), tuple(value.shape)
    return value.dtype, tuple(value.shape), value.tolist()


def blocks(batch: Any) -> set[int]:
    """Addresses of the storages of a batch; all of them are shared."""
    found = set()

    def note(x: torch.Tensor) -> torch.Tensor:
        assert x.is_shared()
        found.add(x.untyped_storage().data_ptr())
        return x

    map_tensors(note, batch)
    return found


def check(path: Path, spec: Any, **options: Any) -> None:
    """Batches of two workers are the batches of this process, each in one block."""
    dataset: Any = records.IterableRecordDataset([path, path], spec, batch_size=4)
    by_number: Any = records.RecordDataset([path, path], spec)
    collated: dict[str, Any] = {"batch_size": 4, "collate_fn": records.collate}
    here = [plain(batch) for batch in records.IterableRecordDataset(path, spec, batch_size=4)]
    taken = [
        (plain(batch), len(blocks(batch)))
        for batch in DataLoader(dataset, batch_size=None, num_workers=2, **options)
    ]
    assert taken == [(batch, 1) for batch in here for _ in range(2)]
    here = [plain(batch) for batch in DataLoader(by_number, **collated)]
    taken = [
        (plain(batch), len(blocks(batch)))
        for batch in DataLoader(by_number, num_workers=2, **collated, **options)
    ]
    assert taken == [(batch, 1) for batch in here]


def test_a_batch_of_a_worker_is_one_block(folder: Path, strategy: str) -> None:
    check(folder / "examples", SPEC)


@pytest.mark.parametrize(("name", "spec"), [("raw", RAW), ("lists", LISTS), ("lists", None)])
def test_batches_of_other_kinds_are_one_block_too(folder: Path, name: str, spec: Any) -> None:
    check(folder / name, spec)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("name", "spec"), [("examples", SPEC), ("raw", RAW), ("lists", LISTS), ("lists", None)]
)
def test_they_are_in_workers_that_were_spawned(
    folder: Path, name: str, spec: Any, strategy: str
) -> None:
    check(folder / name, spec, multiprocessing_context="spawn")


def test_images_of_several_sizes_are_one_block(tmp_path: Path) -> None:
    from PIL import Image

    spec = {"i": records.FixedLenFeature((), bytes, decode=records.Image(decoder="pillow"))}
    with records.Writer(tmp_path / "images") as writer:
        for size in range(1, 9):
            encoded = io.BytesIO()
            pixels = bytes(range(3 * 5 * size))
            Image.frombytes("RGB", (5, size), pixels).save(encoded, "PNG")
            pairs = [("i", example_bytes.feature("bytes", [encoded.getvalue()]))]
            writer.write(example_bytes.example(pairs))
    here: Any = records.IterableRecordDataset(tmp_path / "images", spec, batch_size=8)
    (batch,) = DataLoader(here, batch_size=None, num_workers=1)
    (expected,) = here
    assert plain(batch) == plain(expected)
    assert [image.stride() for image in batch["i"]] == [image.stride() for image in expected["i"]]
    assert len(blocks(batch)) == 1


def test_batches_in_this_process_are_in_memory_of_their_own(folder: Path) -> None:
    dataset: Any = records.IterableRecordDataset(folder / "examples", SPEC, batch_size=4)
    batch = next(iter(DataLoader(dataset, batch_size=None)))
    assert not batch["x"].is_shared()
    assert not records.collate([{"x": torch.ones(2)}])["x"].is_shared()


def test_what_cannot_be_packed_stays_as_it_is() -> None:
    leaf = torch.ones(2, requires_grad=True)
    shared = torch.ones(2).share_memory_()
    batch = {"leaf": leaf, "shared": shared, "text": "a", "none": None, "t": torch.ones(1, 3).T}
    made = _shared.packed(batch)
    assert made["leaf"] is leaf
    assert made["shared"] is shared
    assert (made["text"], made["none"], list(made)) == ("a", None, list(batch))
    assert made["t"].is_shared()
    assert made["t"].tolist() == [[1.0]] * 3
    assert _shared.packed({"a": 1}) == {"a": 1}
    assert torch.equal(_shared.packed(torch.ones(2, 1).expand(2, 3)), torch.ones(2, 3))


def test_missing_shared_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write to it would end the process by a signal."""
    monkeypatch.setattr(_shared, "populate", lambda address, size: False)
    with pytest.raises(OutOfMemoryError, match=r"shared memory for a batch of 64 bytes: .*shm"):
        _shared.packed(torch.ones(3))
