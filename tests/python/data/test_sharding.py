"""Each element reaches exactly one rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from fresh import run_forked
from ranks import run_ranks

from tensor_bridge import InvalidOptionError
from tensor_bridge.data import TorchDataset


def records(folder: Path, files: int, per_file: int) -> list[str]:
    paths = []
    for f in range(files):
        paths.append(str(folder / f"part{f:02d}"))
        with tf.io.TFRecordWriter(paths[-1]) as writer:
            for i in range(per_file):
                writer.write(f"{f}-{i}".encode())
    return paths


def parts(make: Any, world_size: int, **options: Any) -> list[list[Any]]:
    """The elements of each rank."""
    return [
        [
            element if isinstance(element, bytes) else element.tolist()
            for element in TorchDataset(make(), rank=rank, world_size=world_size, **options)
        ]
        for rank in range(world_size)
    ]


def together(shards: list[list[Any]]) -> list[Any]:
    return sorted(element for shard in shards for element in shard)


@pytest.mark.parametrize("world_size", [2, 3])
def test_by_data(world_size: int) -> None:
    shards = parts(lambda: tf.data.Dataset.range(20), world_size, shard="data")
    assert shards[0] == list(range(0, 20, world_size))
    assert together(shards) == list(range(20))


def test_by_data_behind_a_seeded_shuffle_over_epochs() -> None:
    def make(rank: int) -> TorchDataset:
        ds = tf.data.Dataset.range(20).shuffle(20, seed=1)
        return TorchDataset(ds, rank=rank, world_size=2)

    ranks = [make(0), make(1)]
    orders = []
    for _ in range(3):
        shards = [[int(i) for i in dataset] for dataset in ranks]
        assert together(shards) == list(range(20))
        orders.append(shards)
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("shard", ["file", "auto"])
@pytest.mark.parametrize("nested", [False, True])
def test_by_file_where_there_are_enough(tmp_path: Path, shard: Any, nested: bool) -> None:
    paths = records(tmp_path, files=4, per_file=5)

    def make() -> tf.data.Dataset:
        if nested:
            names = tf.data.Dataset.list_files(paths, seed=2)
            ds = names.interleave(tf.data.TFRecordDataset, cycle_length=2, num_parallel_calls=2)
            return ds.shuffle(10)  # after the files, so the order may differ between ranks
        return tf.data.TFRecordDataset(paths)

    shards = parts(make, 2, shard=shard, strings="list")
    everything = sorted(f"{f}-{i}".encode() for f in range(4) for i in range(5))
    assert together(shards) == everything
    files = [{element.split(b"-")[0] for element in part} for part in shards]
    assert [len(f) for f in files] == [2, 2]
    assert not files[0] & files[1]


def test_by_data_where_there_are_too_few_files(tmp_path: Path) -> None:
    paths = records(tmp_path, files=1, per_file=6)
    shards = parts(lambda: tf.data.TFRecordDataset(paths), 2, strings="list")
    assert shards == [[b"0-0", b"0-2", b"0-4"], [b"0-1", b"0-3", b"0-5"]]


def test_shards_that_would_overlap_are_refused(tmp_path: Path) -> None:
    paths = records(tmp_path, files=3, per_file=2)
    plain = tf.data.Dataset.range(10)
    tf.random.set_seed(None)  # with a seed for the process, every shuffle has a seed

    def refused(ds: tf.data.Dataset, match: str, **options: Any) -> None:
        with pytest.raises(InvalidOptionError, match=match):
            TorchDataset(ds, rank=0, world_size=2, **options)

    refused(plain.shuffle(10), "without a seed")
    refused(plain.shuffle(10).map(lambda i: i), "without a seed", shard="data")
    names = tf.data.Dataset.list_files(paths)
    refused(names.interleave(tf.data.TFRecordDataset), "without a seed", shard="file")
    parallel = plain.map(lambda i: i, num_parallel_calls=2, deterministic=False)
    refused(parallel, "deterministic=False")
    mixed = plain.interleave(
        lambda i: tf.data.Dataset.range(i), num_parallel_calls=2, deterministic=False
    )
    refused(mixed, "deterministic=False")
    options = tf.data.Options()
    options.deterministic = False
    refused(plain.with_options(options), "deterministic=False")
    refused(plain, "no reader of files", shard="file")
    # Everything works without sharding.
    for ds in (plain.shuffle(10), parallel):
        assert len(list(TorchDataset(ds, rank=0, world_size=1))) == 10
        assert len(list(TorchDataset(ds, rank=0, world_size=2, shard="all"))) == 10


def test_a_global_seed_counts_as_one() -> None:
    tf.random.set_seed(3)
    try:
        ds = tf.data.Dataset.range(10).shuffle(10)
        TorchDataset(ds, rank=0, world_size=2)
    finally:
        tf.random.set_seed(None)


def test_equal_steps_of_a_known_number_need_nobody() -> None:
    shards = parts(lambda: tf.data.Dataset.range(11), 3, equal_steps=True)
    assert [len(shard) for shard in shards] == [3, 3, 3]
    assert len(TorchDataset(tf.data.Dataset.range(11), rank=2, world_size=3, equal_steps=True)) == 3


def test_equal_steps_of_an_unknown_number_need_torch_distributed() -> None:
    ds = tf.data.Dataset.range(10).filter(lambda i: i != 3)
    with pytest.raises(InvalidOptionError, match=r"torch\.distributed"):
        list(TorchDataset(ds, rank=0, world_size=2, equal_steps=True))


def test_ranks_of_torch_distributed(tmp_path: Path) -> None:
    paths = records(tmp_path, files=3, per_file=4)
    seen = run_ranks(
        f"""
        by_data = TorchDataset(tf.data.Dataset.range(9), shard="auto")
        by_file = TorchDataset(tf.data.TFRecordDataset({paths!r}), strings="list", shard="auto",
                               equal_steps=True)
        everything = TorchDataset(tf.data.Dataset.range(3), shard="all")
        steps = [[s.decode() for s in by_file] for _ in range(2)]
        see([[int(i) for i in by_data], steps, [int(i) for i in everything],
             [s.decode() for s in loader(tf.data.TFRecordDataset({paths!r}), strings="list")]])
        """,
        tmp_path,
    )
    assert [rank[0] for rank in seen] == [[0, 2, 4, 6, 8], [1, 3, 5, 7]]
    # Files 0 and 2 belong to the first rank, file 1 to the second, which has fewer elements.
    for epoch in (0, 1):
        first, second = (rank[1][epoch] for rank in seen)
        assert len(first) == len(second) == 4
        assert not set(first) & set(second)
    assert [rank[2] for rank in seen] == [[0, 1, 2]] * 2
    assert sorted(seen[0][3] + seen[1][3]) == [f"{f}-{i}" for f in range(3) for i in range(4)]


def test_a_dataset_is_shared_out_only_when_asked(tmp_path: Path) -> None:
    seen = run_ranks(
        """
        import warnings
        ds = tf.data.Dataset.range(4)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            plain = TorchDataset(ds)
            passes = [[int(i) for i in plain] for _ in range(2)]
            meant = [int(i) for i in TorchDataset(ds, shard="all")]
            none = [int(i) for i in loader(ds, shard=None)]
        see([passes, meant, none, [str(w.message) for w in caught]])
        """,
        tmp_path,
    )
    for passes, meant, none, warned in seen:
        assert passes == [[0, 1, 2, 3]] * 2
        assert meant == none == [0, 1, 2, 3]
        (text,) = warned  # one warning for two passes, none after an explicit choice
        assert "each of 2 ranks gets every element" in text
        assert "shard='auto'" in text


_OWN_WORLD = """
import torch.distributed as dist
from tensor_bridge.data import TorchDataset, loader

def begin(size=1):
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=size)
"""


def test_the_rank_is_taken_when_a_pass_begins(tmp_path: Path) -> None:
    seen = run_ranks(
        f"""
        dist.destroy_process_group()
        made = loader(tf.data.Dataset.range(6).shuffle(6, seed=1))
        whole = [int(i) for i in made], len(made)
        dist.init_process_group(
            "gloo", init_method="file://{tmp_path}/second", rank=rank, world_size=2)
        see([whole, [int(i) for i in made], len(made), [int(i) for i in made]])
        """,
        tmp_path,
    )
    for whole, _, length, _ in seen:
        assert sorted(whole[0]) == list(range(6))
        assert whole[1] == 6
        assert length == 3
    for turn in (1, 3):
        assert sorted(seen[0][turn] + seen[1][turn]) == list(range(6))


@pytest.mark.parametrize("made", ["loader(ds)", "loader(ds, on_error='skip')"])
def test_a_world_that_changes_under_a_pass_raises(made: str) -> None:
    done = run_forked(
        f"""{_OWN_WORLD}
import tensor_bridge
ds = tf.data.Dataset.range(6)
for change in (begin, dist.destroy_process_group):
    made = {made}
    elements = iter(made)
    assert int(next(elements)) == 0
    change()
    try:
        next(elements)
    except tensor_bridge.WorldChangedError as e:
        assert "in the middle of this pass" in str(e)
        assert isinstance(e, RuntimeError)
        print("raised")
    assert list(elements) == []
    assert [int(i) for i in made] == list(range(6))
    assert tensor_bridge.testing.live_owners() == 0
# What is not shared out, or is so by the caller's word, does not ask.
for options in (dict(shard="all"), dict(rank=0, world_size=1)):
    elements = iter(loader(ds, **options))
    next(elements)
    begin()
    next(elements)
    dist.destroy_process_group()
""",
        timeout=60,
    )
    # Gloo of torch 2.8 writes lines of its own.
    assert done.check().splitlines().count("raised") == 2
