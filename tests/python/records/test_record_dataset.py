"""RecordDataset: records by number, with torch's samplers, workers and collate functions."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from tensor_bridge import _C, StringTensor, records
from tensor_bridge.errors import InvalidOptionError, RecordError

SPEC = {
    "n": records.FixedLenFeature((), "int64"),
    "x": records.FixedLenFeature((3,), "float32"),
    "s": records.FixedLenFeature((), bytes),
}
NUMBERS = {key: SPEC[key] for key in ("n", "x")}
COUNTS = [40, 0, 7, 53]


def value(n: int) -> dict[str, Any]:
    return {"n": n, "x": [n, n + 0.5, -n], "s": b"%d" % n}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("shards")
    n, paths = 0, []
    for i, count in enumerate(COUNTS):
        with records.Writer(folder / f"r-{i}", SPEC) as writer:
            for _ in range(count):
                writer.write(value(n))
                n += 1
        paths += writer.paths
    return paths


def test_every_number_gives_its_record(shards: list[str]) -> None:
    dataset = records.RecordDataset(shards, SPEC)
    assert len(dataset) == sum(COUNTS)
    for n in (99, 0, 40, 46, 47, -1):
        got = dataset[n]
        assert got["n"] == n % 100
        assert got["x"].tolist() == value(n % 100)["x"]
        assert got["s"].item() == b"%d" % (n % 100)
    assert [item["n"].item() for item in dataset] == list(range(100))
    for n in (100, -101):
        with pytest.raises(IndexError, match=f"record {n} of 100"):
            dataset[n]


def test_raw_records_come_in_the_order_asked_for(shards: list[str]) -> None:
    dataset = records.RecordDataset(shards)
    parsed = records.RecordDataset(shards, SPEC)
    numbers = torch.randperm(100)[:64]
    batch = dataset.raw(numbers)
    assert records.parse_example(batch, SPEC)["n"].tolist() == numbers.tolist()
    assert batch.to_bytes() == [dataset[n] for n in numbers.tolist()]
    assert len(dataset.raw([])) == 0
    assert records.collate(dataset.__getitems__([3, 1])) == StringTensor.from_list(
        [dataset[3], dataset[1]]
    )
    assert len(parsed.__getitems__([])) == 0


def test_items_are_a_list_of_single_examples(shards: list[str]) -> None:
    dataset = records.RecordDataset(shards, SPEC)
    items = dataset.__getitems__([5, 60])
    assert isinstance(items, list)
    assert len(items) == 2
    assert [item["n"].item() for item in items] == [5, 60]
    assert items[1]["n"] == 60
    assert [item["n"] for item in reversed(items)] == [60, 5]
    assert [item["n"].item() for item in pickle.loads(pickle.dumps(items))] == [5, 60]


def check(batches: Any, order: list[int]) -> None:
    seen = []
    for batch in batches:
        seen += batch["n"].tolist()
        assert batch["x"].shape == (len(batch["n"]), 3)
        assert batch["x"][:, 1].tolist() == [n + 0.5 for n in batch["n"].tolist()]
    assert seen == order


def test_collate_is_what_parse_example_gives(shards: list[str]) -> None:
    dataset = records.RecordDataset(shards, SPEC)
    loader = DataLoader(dataset, batch_size=32, collate_fn=records.collate)
    first = next(iter(loader))
    assert first["s"] == StringTensor.from_list([b"%d" % n for n in range(32)])
    check(loader, list(range(100)))
    one_by_one = records.collate([dataset[n] for n in range(32)])
    assert torch.equal(one_by_one["x"], first["x"])
    assert one_by_one["s"] == first["s"]


def test_torchs_default_collate_works(shards: list[str]) -> None:
    check(DataLoader(records.RecordDataset(shards, NUMBERS), batch_size=9), list(range(100)))


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_read_it(shards: list[str], context: str) -> None:
    dataset = records.RecordDataset(shards, NUMBERS)
    assert dataset[3]["n"] == 3  # maps the file here; a worker must not depend on that
    loader = DataLoader(
        dataset,
        batch_size=32,
        num_workers=2,
        collate_fn=records.collate,
        multiprocessing_context=context,
    )
    check(loader, list(range(100)))


def test_samplers_shuffle_and_share_it_out(shards: list[str]) -> None:
    dataset = records.RecordDataset(shards, NUMBERS)
    loader = DataLoader(
        dataset,
        batch_size=10,
        shuffle=True,
        generator=torch.Generator().manual_seed(3),
        collate_fn=records.collate,
    )
    shuffled = [n for batch in loader for n in batch["n"].tolist()]
    assert shuffled != list(range(100))
    assert sorted(shuffled) == list(range(100))
    seen: list[int] = []
    for rank in range(3):
        sampler: Any = DistributedSampler(dataset, 3, rank, drop_last=True)
        part = DataLoader(dataset, 10, sampler=sampler, collate_fn=records.collate)
        seen += [n for batch in part for n in batch["n"].tolist()]
    assert len(set(seen)) == len(seen) == 99


def test_the_index_is_kept_and_made_anew_when_a_file_changes(tmp_path: Path) -> None:
    path, index = tmp_path / "r", tmp_path / "index"
    with records.Writer(path) as writer:
        writer.write(b"first")
    assert list(records.RecordDataset(path, index=index)) == [b"first"]
    kept = index.read_bytes()
    data = bytearray(path.read_bytes())
    stamp = path.stat().st_mtime_ns
    with records.Writer(path, overwrite=True) as writer:
        writer.write(b"1")
        writer.write(b"second")
    assert list(records.RecordDataset(path, index=index)) == [b"1", b"second"]
    assert index.read_bytes() != kept
    # With the same size and time the index is used, and its records are checked.
    index.write_bytes(kept)
    path.write_bytes(bytes(len(data)))
    os.utime(path, ns=(stamp, stamp))
    stale = records.RecordDataset(path, index=index)
    assert len(stale) == 1
    with pytest.raises(RecordError, match=r"byte 0: .*checksum"):
        stale[0]


@pytest.mark.parametrize("at", [9, 20, 40, -3])
def test_a_damaged_index_is_made_anew(tmp_path: Path, at: int) -> None:
    path, index = tmp_path / "r", tmp_path / "index"
    with records.Writer(path) as writer:
        for n in range(5):
            writer.write(b"%d" % n)
    records.RecordDataset(path, index=index)
    data = bytearray(index.read_bytes())
    data[at] ^= 0x55
    index.write_bytes(data)
    assert len(records.RecordDataset(path, index=index)) == 5
    index.write_bytes(data[:at])
    assert len(records.RecordDataset(path, index=index)) == 5


def test_another_file_is_not_replaced_by_an_index(tmp_path: Path) -> None:
    path, other = tmp_path / "r", tmp_path / "other"
    with records.Writer(path) as writer:
        writer.write(b"first")
    other.write_text("something of somebody's")
    with pytest.raises(RecordError, match="another file"):
        records.RecordDataset(path, index=other)
    assert other.read_text() == "something of somebody's"


def test_damaged_records_are_reported_or_left_out(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with records.Writer(path) as writer:
        for letter in (b"a", b"b", b"c"):
            writer.write(letter)
    data = bytearray(path.read_bytes())
    data[17 + 12] ^= 1
    path.write_bytes(data)
    dataset = records.RecordDataset(path)
    assert (len(dataset), dataset[2]) == (3, b"c")
    with pytest.raises(RecordError, match=r"byte 17: .*damaged") as caught:
        dataset.__getitems__([0, 1])
    assert (caught.value.path, caught.value.offset) == (str(path), 17)
    assert records.RecordDataset(path, verify=False)[1] == b"c"
    with pytest.warns(UserWarning, match=r"byte 17.*skipped"):
        assert list(records.RecordDataset(path, on_error="skip")) == [b"a", b"c"]
    path.write_bytes(data[:-1])
    with pytest.raises(RecordError, match="truncated"):
        records.RecordDataset(path)


def test_a_file_that_has_changed_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with records.Writer(path) as writer:
        writer.write(b"a")
    dataset = records.RecordDataset(path)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(RecordError, match="has changed"):
        dataset[0]


def test_compressed_files_and_urls_are_refused_with_the_remedy(tmp_path: Path) -> None:
    with records.Writer(tmp_path / "z", compression="GZIP") as writer:
        writer.write(b"a")
    with pytest.raises(RecordError, match=r"compressed with GZIP.*IterableRecordDataset"):
        records.RecordDataset(tmp_path / "z")
    with pytest.raises(InvalidOptionError, match="on_error"):
        records.RecordDataset(tmp_path / "z", on_error="no")


def test_threads_share_it(shards: list[str]) -> None:
    dataset = records.RecordDataset(shards, NUMBERS)
    barrier = threading.Barrier(4)
    wrong: list[Any] = []

    def read(seed: int) -> None:
        barrier.wait()
        for n in torch.randperm(100, generator=torch.Generator().manual_seed(seed)).tolist():
            if dataset[n]["n"] != n:
                wrong.append(n)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_file_that_another_thread_maps_below_the_others_moves_no_record(
    shards: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = records.RecordDataset(shards)
    dataset.raw([0])
    base = dataset._base
    find = _C.records_at

    def find_and_map(*arguments: Any) -> Any:
        """Does what another thread might do between the call and the use of its result."""
        found = find(*arguments)
        monkeypatch.setattr(_C, "records_at", find)
        dataset.raw(range(100))
        return found

    monkeypatch.setattr(_C, "records_at", find_and_map)
    batch = dataset.raw([0])
    assert dataset._base < base, "no file was mapped below the first one"
    assert records.parse_example(batch, SPEC)["n"].tolist() == [0]


def test_a_batch_outlives_the_dataset(shards: list[str]) -> None:
    batch = records.RecordDataset(shards).raw(range(100))
    assert records.parse_example(batch, SPEC)["n"].tolist() == list(range(100))
