"""records.loader: order, ranks, position, threads, damage."""

from __future__ import annotations

import gzip
import os
from itertools import chain
from pathlib import Path
from typing import Any

import example_bytes
import needs
import pytest
import torch

from tensor_bridge import StringTensor, data, records
from tensor_bridge.errors import (
    InvalidOptionError,
    RecordError,
    RecordNotFoundError,
    ResumeError,
    WorkerProcessError,
)

SPEC = {
    "n": records.FixedLenFeature((), "int64"),
    "x": records.FixedLenFeature((2,), "float32"),
    "s": records.FixedLenFeature((), bytes),
    "v": records.VarLenFeature("int64"),
    "r": records.RaggedFeature("float32"),
    "w": records.VarLenFeature(bytes),
    "p": records.FixedLenSequenceFeature((), "int64", allow_missing=True, default_value=-1),
}


def record(number: int) -> bytes:
    feature = example_bytes.feature
    return example_bytes.example(
        [
            ("n", feature("int64", [number])),
            ("x", feature("float32", [number, -number])),
            ("s", feature("bytes", [b"s" * (number % 5)])),
            ("v", feature("int64", range(number % 3))),
            ("r", feature("float32", range(number % 4))),
            ("w", feature("bytes", [b"w"] * (number % 2))),
            ("p", feature("int64", range(number % 3))),
        ]
    )


def framed(payloads: list[bytes]) -> bytes:
    """The bytes of a TFRecord file with these records."""
    from tensor_bridge import _C

    if not payloads:
        return b""
    batch = records.RecordBatch.of(payloads)
    out = torch.empty(sum(map(len, payloads)) + 16 * len(payloads), dtype=torch.uint8)
    begins, sizes = batch.begins.contiguous(), batch.sizes.contiguous()
    _C.records_frame(
        batch.address, begins.data_ptr(), sizes.data_ptr(), len(payloads), out.data_ptr()
    )
    return bytes(out.tolist())


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """25 records in three files, one of them empty."""
    for name, numbers in (("a", range(10)), ("b", range(0)), ("c", range(10, 25))):
        (tmp_path / f"{name}.tfrecord").write_bytes(framed([record(n) for n in numbers]))
    return tmp_path / "*.tfrecord"


def numbers_of(loader: Any) -> list[list[int]]:
    return [batch["n"].tolist() for batch in loader]


def flat(parts: Any) -> list[Any]:
    return list(chain.from_iterable(parts))


def test_batches_are_what_parse_example_gives(files: Path) -> None:
    loader = records.loader(files, SPEC, batch_size=10)
    assert isinstance(loader, data.Loader)
    assert len(loader) == 3
    batches = list(loader)
    for i, batch in enumerate(batches):
        want = records.parse_example([record(n) for n in range(25)][10 * i : 10 * i + 10], SPEC)
        assert set(batch) == set(want)
        assert torch.equal(batch["n"], want["n"])
        assert torch.equal(batch["x"], want["x"])
        assert batch["s"] == want["s"]
        assert torch.equal(batch["v"].to_dense(), want["v"].to_dense())
        assert torch.equal(batch["r"].values(), want["r"].values())
        assert torch.equal(batch["r"].offsets(), want["r"].offsets())
        assert batch["w"].to_list() == want["w"].to_list()
        assert torch.equal(batch["p"], want["p"])
    assert [len(batch["n"]) for batch in batches] == [10, 10, 5]


def test_batches_outlive_their_loader_and_may_be_written_to(files: Path) -> None:
    loader = records.loader(files, SPEC, batch_size=25)
    (batch,) = loader
    loader.close()
    del loader
    batch["x"].add_(1)
    assert batch["x"][3].tolist() == [4, -2]
    assert batch["n"].tolist() == list(range(25))
    assert batch["x"].data_ptr() % 64 == 0


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("prefetch", [1, 7])
def test_the_order_is_the_same_with_any_number_of_threads(
    files: Path, threads: int, prefetch: int
) -> None:
    plain = records.loader(files, SPEC, batch_size=3, threads=threads, prefetch=prefetch)
    assert flat(numbers_of(plain)) == list(range(25))
    shuffled = records.loader(
        files, SPEC, batch_size=3, shuffle=True, seed=5, threads=threads, prefetch=prefetch
    )
    other = records.loader(files, SPEC, batch_size=3, shuffle=True, seed=5)
    first = numbers_of(shuffled)
    assert first == numbers_of(other)
    assert sorted(flat(first)) == list(range(25))
    assert first != numbers_of(shuffled), "the epochs have the same order"


def test_set_epoch_says_which_order(files: Path) -> None:
    loader = records.loader(files, SPEC, batch_size=4, shuffle=True)
    epochs = [numbers_of(loader) for _ in range(3)]
    loader.set_epoch(1)
    assert numbers_of(loader) == epochs[1]
    with pytest.raises(InvalidOptionError, match="int from 0"):
        loader.set_epoch(-1)


def test_drop_last_leaves_the_smaller_batch_out(files: Path) -> None:
    loader = records.loader(files, SPEC, batch_size=10, drop_last=True)
    assert len(loader) == 2
    assert [len(batch) for batch in numbers_of(loader)] == [10, 10]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("equal_steps", [False, True])
def test_ranks_share_all_records(files: Path, shuffle: bool, equal_steps: bool) -> None:
    seen = []
    for rank in range(4):
        loader = records.loader(
            files,
            SPEC,
            batch_size=3,
            shuffle=shuffle,
            rank=rank,
            world_size=4,
            equal_steps=equal_steps,
        )
        mine = flat(numbers_of(loader))
        assert len(loader) == (len(mine) + 2) // 3
        seen.append(mine)
    assert len(set(flat(seen))) == len(flat(seen)) == (24 if equal_steps else 25)
    if equal_steps:
        assert {len(mine) for mine in seen} == {6}


@pytest.mark.parametrize("stop", [0, 1, 4, 8, 9])
def test_a_position_is_exact(files: Path, stop: int) -> None:
    options: dict[str, Any] = {"batch_size": 3, "shuffle": True, "seed": 3}
    loader = records.loader(files, SPEC, **options)
    first, second = numbers_of(loader), numbers_of(loader)
    loader.set_epoch(0)
    elements = iter(loader)
    taken = [next(elements)["n"].tolist() for _ in range(stop)]
    state = loader.state_dict()
    assert taken == first[:stop]
    other = records.loader(files, SPEC, **options)
    other.load_state_dict(state)
    assert other.state_dict()["delivered"] == (stop if stop < 9 else 0)
    if stop < 9:
        assert numbers_of(other) == first[stop:]
    assert numbers_of(other) == second


def test_states_of_other_loaders_are_refused(files: Path, tmp_path: Path) -> None:
    loader = records.loader(files, SPEC, batch_size=3)
    state = loader.state_dict()
    (tmp_path / "other").write_bytes(framed([record(1)]))
    for other, message in (
        (records.loader(files, SPEC, batch_size=4), "batch_size"),
        (records.loader(files, SPEC, batch_size=3, shuffle=True), "shuffle"),
        (records.loader(tmp_path / "other", SPEC, batch_size=3), "files"),
        (records.loader(files, SPEC, batch_size=3, rank=1, world_size=2), "rank"),
    ):
        with pytest.raises(ResumeError, match=message):
            other.load_state_dict(state)
    with pytest.raises(ResumeError, match="digest"):
        loader.load_state_dict({**state, "delivered": 2})
    with pytest.raises(ResumeError, match="expected a state"):
        loader.load_state_dict({})


def test_raw_records_are_strings(files: Path) -> None:
    batches = list(records.loader(files, None, batch_size=20))
    assert all(isinstance(batch, StringTensor) for batch in batches)
    assert flat(batch.to_bytes() for batch in batches) == [record(n) for n in range(25)]


def test_sequences_are_parsed(tmp_path: Path) -> None:
    rows = [example_bytes.feature("int64", [i, i]) for i in range(3)]
    payload = example_bytes.sequence_example(
        [("id", example_bytes.feature("bytes", [b"x"]))],
        [("rows", example_bytes.feature_list(rows)), ("words", example_bytes.feature_list(rows))],
    )
    (tmp_path / "s").write_bytes(framed([payload, payload]))
    spec = records.SequenceFeatures(
        {"id": records.FixedLenFeature((), bytes)},
        {
            "rows": records.FixedLenSequenceFeature((2,), "int64"),
            "words": records.VarLenFeature("int64"),
        },
    )
    (batch,) = records.loader(tmp_path / "s", spec)
    assert batch["context"]["id"].to_bytes() == [b"x", b"x"]
    assert batch["sequence"]["rows"].tolist() == [[[0, 0], [1, 1], [2, 2]]] * 2
    assert batch["sequence"]["words"].shape == (2, 3, 2)
    assert batch["lengths"]["rows"].tolist() == [3, 3]


def test_compressed_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "z").write_bytes(gzip.compress(framed([record(n) for n in range(7)])))
    loader = records.loader(tmp_path / "z", SPEC, batch_size=4)
    assert numbers_of(loader) == [[0, 1, 2, 3], [4, 5, 6]]


def test_a_damaged_record_is_an_error_of_its_batch_or_left_out(tmp_path: Path) -> None:
    whole = bytearray(framed([record(n) for n in range(9)]))
    begin = len(framed([record(n) for n in range(4)]))
    whole[begin + 20] ^= 1
    path = tmp_path / "damaged"
    path.write_bytes(whole)
    elements = iter(records.loader(path, SPEC, batch_size=3))
    assert next(elements)["n"].tolist() == [0, 1, 2]
    with pytest.raises(RecordError, match="checksum") as caught:
        next(elements)
    assert (caught.value.path, caught.value.offset) == (str(path), begin)
    assert next(elements)["n"].tolist() == [6, 7, 8]
    skipping = records.loader(path, SPEC, batch_size=3, on_error="skip")
    with pytest.warns(UserWarning, match=f"byte {begin}: .*skipped"):
        assert numbers_of(skipping) == [[0, 1, 2], [3, 5], [6, 7, 8]]
    (tmp_path / "cut").write_bytes(whole[:-3])


def test_a_file_whose_lengths_are_damaged_ends_there_and_the_next_one_goes_on(
    tmp_path: Path,
) -> None:
    for name in ("a", "b"):
        whole = framed([record(n) for n in range(5)])
        (tmp_path / name).write_bytes(whole[:-3] if name == "a" else whole)
    paths = [tmp_path / "a", tmp_path / "b"]
    loader = records.loader(paths, SPEC, batch_size=3)
    elements = iter(loader)
    assert next(elements)["n"].tolist() == [0, 1, 2]
    with pytest.raises(RecordError, match="truncated") as caught:
        next(elements)
    assert caught.value.path == str(tmp_path / "a")
    assert [batch["n"].tolist() for batch in elements] == [[0, 1, 2], [3, 4]]
    # What needs the number of records, or an order of all of them.
    with pytest.raises(RecordError, match="truncated"):
        len(loader)
    with pytest.raises(RecordError, match="truncated"):
        iter(records.loader(paths, SPEC, shuffle=True))


def test_records_are_found_while_they_are_read(files: Path) -> None:
    one = records.loader(files, SPEC, batch_size=4)
    found = numbers_of(one)
    assert not one.dataset.files.located
    assert len(one) == len(found)
    assert numbers_of(one) == found


def test_a_record_that_does_not_fit_its_spec_names_its_place(files: Path) -> None:
    loader = records.loader(files, {"n": records.FixedLenFeature((), "float32")}, batch_size=4)
    with pytest.raises(RecordError, match=r'a\.tfrecord, byte \d+: record 0, feature "n"'):
        next(iter(loader))
    assert loader.stats().failures == 1


def test_stats_count_batches(files: Path) -> None:
    loader = records.loader(files, SPEC, batch_size=5)
    assert loader.stats() == data.Stats()
    list(loader)
    stats = loader.stats()
    assert (stats.elements, stats.failures, stats.queued) == (5, 0, 0)
    assert stats.bytes > 0
    assert stats.make_seconds > 0


def test_keywords_that_mean_nothing_are_refused(files: Path, tmp_path: Path) -> None:
    wrong: list[dict[str, Any]]
    wrong = [{"batch_size": 0}, {"threads": 0}, {"prefetch": 0}, {"on_error": "stop"}]
    for options in wrong:
        with pytest.raises(InvalidOptionError):
            records.loader(files, SPEC, **options)
    with pytest.raises(InvalidOptionError, match="both rank"):
        records.loader(files, SPEC, rank=0)
    with pytest.raises(RecordNotFoundError):
        records.loader(tmp_path / "nothing", SPEC)


def test_an_abandoned_pass_ends_its_threads(files: Path) -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    loader = records.loader(files, SPEC, batch_size=2, threads=3)
    before = threads()
    elements = iter(loader)
    next(elements)
    assert threads() == before + 3
    loader.close()
    assert threads() == before
    with pytest.raises(StopIteration):
        next(elements)
    iter(loader)
    del elements, loader
    assert threads() == before


def test_a_pass_that_is_dropped_ends_before_the_memory_of_its_files(tmp_path: Path) -> None:
    path = tmp_path / "many"
    path.write_bytes(framed([record(n) for n in range(2000)]))
    for _ in range(30):
        # Only the pass keeps the loader and the files alive.
        elements = iter(records.loader(path, SPEC, batch_size=400, threads=2, prefetch=5))
        next(elements)
        del elements


def test_a_forked_child_is_told_and_ends(files: Path) -> None:
    loader = records.loader(files, SPEC, batch_size=2)
    elements = iter(loader)
    next(elements)
    child = os.fork()
    if child == 0:
        try:
            next(elements)
        except WorkerProcessError:
            del elements, loader
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert next(elements)["n"].tolist() == [2, 3]


@needs.module("accelerate")
def test_elements_count_exactly_under_accelerate(files: Path) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    loader = accelerator.prepare(records.loader(files, SPEC, batch_size=4))
    assert flat(numbers_of(loader)) == list(range(25))
    assert len(loader) == 7
