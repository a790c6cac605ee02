"""IterableRecordDataset: each record once, in a known order, from any position."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from tensor_bridge import records
from tensor_bridge.data import _accelerate
from tensor_bridge.errors import InvalidOptionError, RecordError, ResumeError

SPEC = {"n": records.FixedLenFeature((), "int64")}
COUNTS = [40, 0, 7, 53, 25]
TOTAL = sum(COUNTS)
FIRST = [0, 40, 40, 47, 100]


@pytest.fixture(scope="module", params=["", "GZIP"])
def shards(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> list[str]:
    folder = tmp_path_factory.mktemp("shards")
    n, paths = 0, []
    for i, count in enumerate(COUNTS):
        with records.Writer(folder / f"r-{i}", SPEC, compression=request.param) as writer:
            for _ in range(count):
                writer.write({"n": n})
                n += 1
        paths += writer.paths
    return paths


def numbers(passing: Any) -> list[int]:
    return [n for item in passing for n in item["n"].reshape(-1).tolist()]


def test_files_come_one_behind_the_other(shards: list[str]) -> None:
    dataset = records.IterableRecordDataset(shards, SPEC)
    assert numbers(dataset) == list(range(TOTAL))
    assert numbers(dataset) == list(range(TOTAL))
    assert dataset.stats().records == 2 * TOTAL
    batched = records.IterableRecordDataset(shards, SPEC, batch_size=32)
    assert [len(batch["n"]) for batch in batched] == [32, 32, 32, 29]
    assert numbers(batched) == list(range(TOTAL))
    whole = records.IterableRecordDataset(shards, SPEC, batch_size=32, drop_last=True)
    assert numbers(whole) == list(range(96))
    raw = list(records.IterableRecordDataset(shards))
    assert records.parse_example(raw, SPEC)["n"].tolist() == list(range(TOTAL))


def test_interleaved_files_take_turns(shards: list[str]) -> None:
    dataset = records.IterableRecordDataset(shards, SPEC, interleave=2, run=3)
    got = numbers(dataset)
    assert sorted(got) == list(range(TOTAL))
    # The second file is empty, so the third takes its place.
    assert got[:13] == [0, 1, 2, 40, 41, 42, 3, 4, 5, 43, 44, 45, 6]
    for i, count in enumerate(COUNTS):
        part = [n for n in got if FIRST[i] <= n < FIRST[i] + count]
        assert part == sorted(part)
    batched = records.IterableRecordDataset(shards, SPEC, interleave=2, run=3, batch_size=7)
    assert numbers(batched) == got


def test_shuffling_is_an_order_for_each_seed_and_epoch(shards: list[str]) -> None:
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        dataset = records.IterableRecordDataset(shards, SPEC, shuffle=50, interleave=2, seed=seed)
        dataset.set_epoch(epoch)
        order = numbers(dataset)
        assert order == numbers(dataset)
        assert sorted(order) == list(range(TOTAL))
        orders.append(tuple(order))
    assert len(set(orders)) == 3
    batched = records.IterableRecordDataset(
        shards, SPEC, shuffle=50, interleave=2, seed=1, batch_size=8
    )
    assert sorted(numbers(batched)) == list(range(TOTAL))


@pytest.mark.filterwarnings("ignore:This DataLoader will create 7 worker")
@pytest.mark.parametrize(("context", "workers"), [("fork", 2), ("fork", 7), ("spawn", 2)])
def test_workers_share_the_records(shards: list[str], workers: int, context: str) -> None:
    dataset = records.IterableRecordDataset(shards, SPEC, batch_size=8, shuffle=20)
    loader: Any = DataLoader(
        dataset, batch_size=None, num_workers=workers, multiprocessing_context=context
    )
    assert sorted(numbers(loader)) == list(range(TOTAL))


def test_workers_that_persist_hear_of_the_epoch(shards: list[str]) -> None:
    dataset = records.IterableRecordDataset(shards, SPEC, batch_size=8, shuffle=50)
    loader: Any = DataLoader(dataset, batch_size=None, num_workers=1, persistent_workers=True)
    first, again = numbers(loader), numbers(loader)
    dataset.set_epoch(1)
    other = numbers(loader)
    assert first == again != other
    assert sorted(other) == list(range(TOTAL))


@pytest.mark.parametrize("shard", ["auto", "file", "data"])
@pytest.mark.parametrize("world", [2, 7])
def test_ranks_share_the_records_when_asked(shards: list[str], shard: Any, world: int) -> None:
    parts = [
        numbers(
            records.IterableRecordDataset(
                shards, SPEC, shard=shard, rank=rank, world_size=world, interleave=2
            )
        )
        for rank in range(world)
    ]
    assert sorted(n for part in parts for n in part) == list(range(TOTAL))
    if shard == "data" or (shard == "auto" and world == 7):
        assert {len(part) for part in parts} <= {TOTAL // world, TOTAL // world + 1}
    everything = records.IterableRecordDataset(shards, SPEC, shard="all", rank=1, world_size=world)
    assert numbers(everything) == list(range(TOTAL))


VARIANTS: list[dict[str, Any]] = [
    {},
    {"batch_size": 8},
    {"shuffle": 30},
    {"shuffle": 30, "batch_size": 8, "interleave": 3, "run": 2},
    {"interleave": 3, "run": 5},
    {"shuffle": 30, "shard": "data", "rank": 1, "world_size": 2, "interleave": 2},
]


@pytest.mark.parametrize("options", VARIANTS)
def test_a_state_is_exact_at_every_record(shards: list[str], options: dict[str, Any]) -> None:
    def made() -> Any:
        return records.IterableRecordDataset(shards, SPEC, **options)

    dataset = made()
    dataset.set_epoch(3)
    whole = [item["n"].tolist() for item in dataset]
    items = iter(dataset)
    for done in range(len(whole)):
        state = pickle.loads(pickle.dumps(dataset.state_dict()))
        if done % 5 == 0:
            other = made()
            other.load_state_dict(state)
            assert other.state_dict() == state
            assert [item["n"].tolist() for item in other] == whole[done:]
            assert other.state_dict()["epoch"] == 3
        next(items)
    assert list(items) == []
    other = made()
    other.load_state_dict(dataset.state_dict())
    assert list(other) == []


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata 0.11, torch 2.13
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("options", VARIANTS[1:4])
def test_a_stateful_dataloader_resumes_exactly(
    shards: list[str], workers: int, options: dict[str, Any]
) -> None:
    batch_size = None if "batch_size" in options else 4

    def made() -> Any:
        dataset = records.IterableRecordDataset(shards, SPEC, **options)
        return dataset, StatefulDataLoader(dataset, batch_size=batch_size, num_workers=workers)

    dataset, loader = made()
    epochs = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        epochs.append([batch["n"].tolist() for batch in loader])
    dataset, loader = made()
    dataset.set_epoch(0)
    items = iter(loader)
    begin = [next(items)["n"].tolist() for _ in range(5)]
    state = copy.deepcopy(loader.state_dict())
    assert begin == epochs[0][:5]
    dataset, loader = made()
    loader.load_state_dict(state)
    assert [batch["n"].tolist() for batch in loader] == epochs[0][5:]
    dataset.set_epoch(1)
    assert [batch["n"].tolist() for batch in loader] == epochs[1]


def test_a_state_of_something_else_is_refused(shards: list[str]) -> None:
    dataset = records.IterableRecordDataset(shards, SPEC, shuffle=10)
    state = dataset.state_dict()
    for other in (
        records.IterableRecordDataset(shards[1:], SPEC, shuffle=10),
        records.IterableRecordDataset(shards, SPEC, shuffle=11),
    ):
        with pytest.raises(ResumeError, match="other files or keywords"):
            other.load_state_dict(state)
    for wrong in ({}, {**state, "more": 1}):
        with pytest.raises(ResumeError, match="expected a state"):
            dataset.load_state_dict(wrong)
    dataset.load_state_dict({**state, "part": [1, 2]})
    with pytest.raises(ResumeError, match="part 1 of 2"):
        iter(dataset)


def test_records_before_damage_are_delivered(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with records.Writer(path) as writer:
        for letter in (b"a", b"b", b"c"):
            writer.write(letter)
    data = bytearray(path.read_bytes())
    data[17 + 12] ^= 1
    path.write_bytes(data)
    passing = iter(records.IterableRecordDataset(path))
    assert next(passing) == b"a"
    with pytest.raises(RecordError, match="byte 17"):
        next(passing)
    skipping = records.IterableRecordDataset(path, on_error="skip")
    with pytest.warns(UserWarning, match="skipped"):
        assert list(skipping) == [b"a", b"c"]
    stats = skipping.stats()
    assert (stats.records, stats.skipped_records, stats.skipped_bytes) == (2, 1, 17)


def test_keywords_that_mean_nothing_are_refused(shards: list[str]) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"shuffle": -1}, "shuffle of at least 0"),
        ({"interleave": 0}, "interleave of at least 1"),
        ({"run": 0}, "run of at least 1"),
        ({"batch_size": 0}, "batch_size of at least 1"),
        ({"shard": "some"}, "shard must be"),
        ({"rank": 1}, "neither"),
        ({"rank": 2, "world_size": 2}, "rank 2 of 2"),
        ({"on_error": "no"}, "on_error"),
    ]
    for options, message in wrong:
        with pytest.raises(InvalidOptionError, match=message):
            records.IterableRecordDataset(shards, SPEC, **options)
    with pytest.raises(InvalidOptionError, match="epoch"):
        records.IterableRecordDataset(shards).set_epoch(-1)


def test_two_ranks_with_workers_get_each_record_once(shards: list[str]) -> None:
    seen: list[int] = []
    for rank in range(2):
        dataset = records.IterableRecordDataset(
            shards, SPEC, batch_size=4, rank=rank, world_size=2, shuffle=16
        )
        seen += numbers(DataLoader(dataset, batch_size=None, num_workers=2))
    assert sorted(seen) == list(range(TOTAL))
    assert torch.tensor(seen).unique().numel() == TOTAL


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_know_the_rank_of_their_process(
    shards: list[str], tmp_path: Path, context: str
) -> None:
    body = f"""
    from torch.utils.data import DataLoader
    from tensor_bridge import records
    dataset = records.IterableRecordDataset({shards}, shard="data", batch_size=4)
    batches = DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context={context!r}
    )
    see([record.hex() for batch in batches for record in batch.to_bytes()])
    """
    seen = [record for rank in run_ranks(body, tmp_path) for record in rank]
    assert sorted(seen) == sorted(record.hex() for record in records.IterableRecordDataset(shards))


def test_what_accelerate_would_share_out_again_is_refused(
    shards: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_accelerate, "shares_out", lambda: True)
    for options in ({}, {"shard": "all"}, {"rank": 0, "world_size": 1}):
        assert len(list(records.IterableRecordDataset(shards, **options))) == TOTAL
    dataset = records.IterableRecordDataset(shards, rank=1, world_size=2)
    for use in (iter, pickle.dumps):
        with pytest.raises(InvalidOptionError, match=r"reach no rank.*records\.loader"):
            use(dataset)


def test_single_examples_are_those_that_parse_single_example_gives(tmp_path: Path) -> None:
    spec = {
        "x": records.FixedLenFeature((2,), "float32"),
        "s": records.FixedLenFeature((), bytes),
        "words": records.FixedLenFeature((2, 2), bytes),
        "nothing": records.FixedLenFeature((0,), bytes),
    }
    with records.Writer(tmp_path / "r", spec) as writer:
        for n in range(150):
            words = [b"", b"%d" % n, b"ab", b"c" * (n % 5)]
            writer.write({"x": [n, -n], "s": b"%d" % n, "words": words, "nothing": []})
    raw = list(records.RecordFile(tmp_path / "r"))
    for mixed in (spec, {**spec, "more": records.VarLenFeature("int64")}):
        got = list(records.IterableRecordDataset(tmp_path / "r", mixed))
        assert len(got) == len(raw)
        for value, record in zip(got, raw, strict=True):
            expected = records.parse_single_example(record, mixed)
            assert torch.equal(value["x"], expected["x"])
            for key in ("s", "words", "nothing"):
                assert value[key] == expected[key]
                assert value[key].offsets.tolist() == expected[key].offsets.tolist()


def test_good_examples_come_before_one_that_does_not_fit(tmp_path: Path) -> None:
    with records.Writer(tmp_path / "r") as writer:
        for n in range(5):
            writer.write(b"no Example" if n == 3 else b"")
    spec = {"n": records.FixedLenFeature((), "int64", default_value=7)}
    items = iter(records.IterableRecordDataset(tmp_path / "r", spec))
    assert [next(items)["n"].item() for _ in range(3)] == [7, 7, 7]
    with pytest.raises(RecordError, match="expected a tf"):
        next(items)


@pytest.mark.parametrize("batch_size", [None, 3])
def test_the_records_of_a_part_are_parsed_and_no_others(tmp_path: Path, batch_size: Any) -> None:
    path = tmp_path / "r"
    spec = {"n": records.FixedLenFeature((), "int64"), "s": records.FixedLenFeature((), bytes)}
    with records.Writer(path, spec) as writer:
        for number in range(20):
            writer.write({"n": number, "s": b"%d" % number})
    for rank in range(3):
        part: Any = records.IterableRecordDataset(
            path, spec, batch_size=batch_size, rank=rank, world_size=3, shard="data"
        )
        values = [(value["n"], value["s"]) for value in part]
        expected = list(range(rank, 20, 3))
        if batch_size is None:
            assert [(int(n), s.item()) for n, s in values] == [(n, b"%d" % n) for n in expected]
        else:
            assert [n for ns, _ in values for n in ns.tolist()] == expected
            assert [int(s) for _, each in values for s in each.to_bytes()] == expected
    batch = records.RecordFile(path).read(20)
    assert batch is not None
    assert records.parse_example(batch[1::4], spec)["n"].tolist() == [1, 5, 9, 13, 17]
