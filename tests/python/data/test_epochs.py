"""Epochs in any order: a shuffled dataset has the orders of TensorFlow's own passes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import torch

import tensor_bridge
from tensor_bridge.data import TorchDataset, loader

Make = Callable[[Path], tf.data.Dataset]
RANGE = tf.data.Dataset.range


def files(folder: Path) -> list[str]:
    paths = []
    for number in range(4):
        paths.append(str(folder / f"part-{number}"))
        Path(paths[-1]).write_text("\n".join(str(10 * number + i) for i in range(3)))
    return paths


def of_table(_: Path) -> tf.data.Dataset:
    keys = tf.lookup.KeyValueTensorInitializer(list(range(6)), list(range(10, 16)))
    table = tf.lookup.StaticHashTable(keys, -1)
    return RANGE(6).map(lambda i: table.lookup(tf.cast(i, tf.int32))).shuffle(6, seed=2)


PIPELINES: dict[str, Make] = {
    "shuffle": lambda _: RANGE(8).shuffle(8, seed=1),
    "two": lambda _: RANGE(8).shuffle(8, seed=1).shuffle(4, seed=7),
    "files": lambda folder: (
        tf.data.Dataset.from_tensor_slices(files(folder))
        .shuffle(4, seed=2)
        .interleave(tf.data.TextLineDataset, cycle_length=2)
        .map(tf.strings.to_number)
        .shuffle(6, seed=4)
        .batch(5)
    ),
    "repeat": lambda _: RANGE(5).shuffle(5, seed=1).repeat(2),
    "kept order and another": lambda _: (
        RANGE(8).shuffle(8, seed=1, reshuffle_each_iteration=False).shuffle(8, seed=3)
    ),
    "inner": lambda _: RANGE(3).flat_map(lambda i: RANGE(4).shuffle(4, seed=9)).shuffle(5, seed=2),
    "cache": lambda _: RANGE(8).cache().shuffle(8, seed=1).prefetch(2),
    "zip": lambda _: tf.data.Dataset.zip(
        (RANGE(8).shuffle(8, seed=1), RANGE(8).shuffle(8, seed=2))
    ),
    "table": of_table,
    "py_function": lambda _: (
        RANGE(6).map(lambda i: tf.py_function(lambda x: x * 2, [i], tf.int64)).shuffle(6, seed=2)
    ),
    "generator": lambda _: tf.data.Dataset.from_generator(
        lambda: iter(range(6)), output_signature=tf.TensorSpec([], tf.int64)
    ).shuffle(6, seed=2),
}


def one_pass(dataset: Any) -> list[Any]:
    """The elements as plain values."""

    def plain(value: Any) -> Any:
        return [plain(v) for v in value] if isinstance(value, tuple) else value.tolist()

    return [plain(element) for element in dataset]


def own_passes(dataset: tf.data.Dataset, count: int) -> list[list[Any]]:
    """The passes that TensorFlow itself makes."""

    def plain(value: Any) -> Any:
        return [plain(v) for v in value] if isinstance(value, tuple) else value.numpy().tolist()

    return [[plain(element) for element in dataset] for _ in range(count)]


@pytest.mark.parametrize("name", PIPELINES)
def test_epochs_in_any_order_are_those_of_tensorflow(tmp_path: Path, name: str) -> None:
    make = PIPELINES[name]
    orders = own_passes(make(tmp_path), 5)
    assert orders[0] != orders[1]
    dataset = TorchDataset(make(tmp_path))
    draw = random.Random(name)
    for _ in range(8):
        epoch = draw.randrange(4)
        dataset.set_epoch(epoch)
        if draw.random() < 0.3:  # stopped in the middle, and begun again
            next(iter(dataset))
            dataset.set_epoch(epoch)
        assert one_pass(dataset) == orders[epoch]
        if draw.random() < 0.5:
            assert one_pass(dataset) == orders[epoch + 1]  # the next epoch follows


def test_a_pass_that_was_left_does_not_change_the_next_ones() -> None:
    orders = own_passes(RANGE(8).shuffle(8, seed=1), 3)
    made = loader(RANGE(8).shuffle(8, seed=1))
    for _ in range(3):
        made.set_epoch(1)
        for element in made:
            assert int(element) == orders[1][0]
            break
        made.set_epoch(0)
        assert one_pass(made) == orders[0]
    assert one_pass(made) == orders[1]


def test_ranks_agree_on_every_epoch() -> None:
    orders = own_passes(RANGE(9).shuffle(9, seed=5), 3)
    ranks = [TorchDataset(RANGE(9).shuffle(9, seed=5), rank=r, world_size=2) for r in (0, 1)]
    for epoch in (0, 2, 1, 0):
        for rank, dataset in enumerate(ranks):
            dataset.set_epoch(epoch)
            assert one_pass(dataset) == orders[epoch][rank::2]


def test_files_are_shared_out_when_a_dataset_begins_anew(tmp_path: Path) -> None:
    paths = files(tmp_path)

    def make() -> tf.data.Dataset:
        names = tf.data.Dataset.from_tensor_slices(paths).shuffle(4, seed=2)
        return names.interleave(tf.data.TextLineDataset).map(tf.strings.to_number)

    ranks = [TorchDataset(make(), rank=r, world_size=2, shard="file") for r in (0, 1)]
    for epoch in (0, 2, 1, 0):
        seen = []
        for dataset in ranks:
            dataset.set_epoch(epoch)
            seen.append(one_pass(dataset))
        assert sorted(seen[0] + seen[1]) == sorted(own_passes(make(), 1)[0])
        assert len({int(x) // 10 for x in seen[0]} & {int(x) // 10 for x in seen[1]}) == 0


def test_a_state_of_an_earlier_epoch_goes_on_in_its_order() -> None:
    def make() -> Any:
        return loader(RANGE(8).shuffle(8, seed=1))

    orders = own_passes(RANGE(8).shuffle(8, seed=1), 3)
    made = make()
    elements = iter(made)
    first = [int(next(elements)) for _ in range(3)]
    state = made.state_dict()
    rest = [int(i) for i in elements]
    assert first + rest == orders[0]
    for _ in range(2):
        one_pass(made)
    made.load_state_dict(state)
    assert one_pass(made) == rest
    assert one_pass(made) == orders[1]


def test_without_a_seed_any_epoch_is_taken() -> None:
    tf.random.set_seed(None)
    dataset = TorchDataset(RANGE(8).shuffle(8))
    for epoch in (0, 3, 1, 0):
        dataset.set_epoch(epoch)
        assert dataset.epoch == epoch
        assert sorted(one_pass(dataset)) == list(range(8))
        assert dataset.epoch == epoch + 1


def test_a_dataset_that_cannot_be_made_anew_says_what_to_do(monkeypatch: Any) -> None:
    dataset = TorchDataset(RANGE(4).shuffle(4, seed=1))
    before = one_pass(dataset)

    def fail(**_: Any) -> Any:
        raise tf.errors.InvalidArgumentError(None, None, "it is too large")

    monkeypatch.setattr(tf.raw_ops, "DatasetToGraphV2", fail)
    with pytest.raises(tensor_bridge.InvalidOptionError, match=r"too large.*lambda epoch"):
        dataset.set_epoch(0)
    monkeypatch.undo()
    assert dataset.epoch == 1
    assert sorted(one_pass(dataset)) == sorted(before)
    assert torch.is_tensor(next(iter(dataset)))
