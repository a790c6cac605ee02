"""StringTensor and Ragged in batches of torch and accelerate: collating, saving, moving."""

from __future__ import annotations

import copy
import io
import pickle
import random
from typing import Any

import pytest
import tensorflow as tf
import torch
from fresh import run_python
from torch.utils.data import DataLoader, default_collate

import tensor_bridge
from tensor_bridge import MismatchError, Ragged, StringTensor, UnsupportedTypeError


def words(draw: random.Random, shape: tuple[int, ...]) -> Any:
    if not shape:
        return bytes(draw.choices(b"ab\0\xff", k=draw.randrange(4)))
    return [words(draw, shape[1:]) for _ in range(shape[0])]


# ---- default_collate -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_strings_of_one_shape_become_a_batch_as_tensorflow_stacks_them(seed: int) -> None:
    draw = random.Random(seed)
    shape = tuple(draw.randrange(3) for _ in range(draw.randrange(3)))
    tensors = [tf.constant(words(draw, shape), tf.string, shape) for _ in range(1 + seed % 4)]
    batch = [tensor_bridge.to_torch(t) for t in tensors]
    assert default_collate(batch) == tensor_bridge.to_torch(tf.stack(tensors))
    # Slices of others, whose offsets do not begin at 0.
    if shape and shape[0]:
        collated = default_collate([strings[-1:] for strings in batch])
        assert collated == tensor_bridge.to_torch(tf.stack([t[-1:] for t in tensors]))


def test_strings_of_two_shapes_are_refused() -> None:
    batch = [StringTensor.from_list(["a"]), StringTensor.from_list(["a", "b"])]
    with pytest.raises(MismatchError, match=r"of one shape.*\(1,\) and \(2,\).*collate_fn="):
        default_collate(batch)


def ragged(draw: random.Random, depth: int, leaf: Any) -> Any:
    if depth == 0:
        return leaf()
    return [ragged(draw, depth - 1, leaf) for _ in range(draw.randrange(4))]


@pytest.mark.parametrize("seed", range(20))
def test_raggeds_become_a_batch_as_tensorflow_stacks_them(seed: int) -> None:
    draw = random.Random(seed)
    rank = draw.choice([1, 2])
    dtype, leaf = draw.choice(
        [
            (tf.string, lambda: words(draw, ())),
            (tf.int32, lambda: draw.randrange(9)),
            (tf.float64, draw.random),
        ]
    )
    splits = draw.choice([tf.int32, tf.int64])
    tensors = [
        tf.ragged.constant(ragged(draw, rank + 1, leaf), dtype, rank, row_splits_dtype=splits)
        for _ in range(1 + seed % 4)
    ]
    if rank == 1 and dtype != tf.string:  # torch's nested tensors hold these
        batch = [
            Ragged(tensor_bridge.to_torch(t.values), (tensor_bridge.to_torch(t.row_splits),))
            for t in tensors
        ]
    else:
        batch = [tensor_bridge.to_torch(t) for t in tensors]
    assert all(type(each) is Ragged for each in batch)
    again = tensor_bridge.to_tf(default_collate(batch))
    expected = tf.ragged.stack(tensors)
    assert again.to_list() == expected.to_list()
    assert (again.dtype, again.row_splits.dtype) == (expected.dtype, expected.row_splits.dtype)
    assert again.shape.as_list() == expected.shape.as_list()


def test_raggeds_that_differ_in_more_than_their_rows_are_refused() -> None:
    def make(values: Any, *splits: list[int]) -> Ragged:
        return Ragged(values, tuple(map(torch.tensor, splits)))

    one = make(torch.zeros(3), [0, 3])
    strings = make(StringTensor.from_list(["a"]), [0, 1])
    for other, what in (
        (make(torch.zeros(3), [0, 1], [0, 3]), "ragged rank"),
        (make(torch.zeros(3, 2), [0, 3]), "inner shape"),
        (make(torch.zeros(3, dtype=torch.int64), [0, 3]), "dtype"),
        (Ragged(torch.zeros(3), (torch.tensor([0, 3], dtype=torch.int32),)), "row splits of one"),
        (strings, "values of one kind"),
    ):
        with pytest.raises(MismatchError, match=rf"{what}.*collate_fn="):
            default_collate([one, other])


def test_uniform_lengths_are_kept_where_all_have_them() -> None:
    def make(length: int | None) -> Ragged:
        splits = (torch.tensor([0, 2]), torch.tensor([0, 1, 4]))
        return Ragged(torch.arange(4), splits, (length, None))

    assert default_collate([make(2), make(2)]).uniform_row_lengths == (None, 2, None)
    assert default_collate([make(2), make(None)]).uniform_row_lengths == (None, None, None)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_loader_batches_them(workers: int) -> None:
    nested = Ragged(torch.arange(3), (torch.tensor([0, 1, 3]),))
    data = [{"s": StringTensor.from_list([f"{i}", "x" * i]), "r": nested} for i in range(4)]
    batches = list(DataLoader(data, batch_size=2, num_workers=workers))  # type: ignore[arg-type]
    assert [batch["s"].to_str() for batch in batches] == [
        [["0", ""], ["1", "x"]],
        [["2", "xx"], ["3", "xxx"]],
    ]
    assert batches[1]["r"].to_list() == [[[0], [1, 2]]] * 2


# ---- saving --------------------------------------------------------------------------------------


def saved(value: Any) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return file


def test_torch_loads_them_with_weights_only() -> None:
    strings = StringTensor.from_list([["a", "bc"]])
    nested = Ragged(strings.reshape(-1), (torch.tensor([0, 2]),), (2,))
    again = torch.load(saved({"s": strings, "r": nested}), weights_only=True)
    assert again["s"] == strings
    assert again["r"].to_list() == nested.to_list()
    assert again["r"].uniform_row_lengths == (2,)
    for copied in (copy.copy(strings), copy.deepcopy(strings), pickle.loads(pickle.dumps(strings))):
        assert copied == strings


def test_what_comes_out_of_a_file_is_checked() -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return StringTensor, (torch.zeros(2), torch.zeros(2), torch.Size([1]))

    with pytest.raises(TypeError, match=r"bytes of torch\.uint8"):
        torch.load(saved(Hostile()), weights_only=True)

    class Changed:
        def __reduce__(self) -> Any:
            good = (torch.zeros(0, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
            return StringTensor, good, {"bytes": 3, "offsets": 4}

    changed = torch.load(saved(Changed()), weights_only=True)
    with pytest.raises((UnsupportedTypeError, TypeError, AttributeError)):
        changed.tolist()


@pytest.mark.parametrize("first", ["tensor_bridge", "torch"])
def test_a_process_that_only_imports_both_loads_them(first: str, tmp_path: Any) -> None:
    path = tmp_path / "strings.pt"
    torch.save(StringTensor.from_list(["a", "b"]), path)
    second = {"torch": "tensor_bridge", "tensor_bridge": "torch"}[first]
    out = run_python(
        f"import {first}, {second}; print(torch.load({str(path)!r}, weights_only=True))"
    ).check()
    assert out == "StringTensor([b'a', b'b'])"


# ---- moving --------------------------------------------------------------------------------------


def test_accelerate_moves_batches_with_them_and_refuses_what_it_does_to_tensors_alone() -> None:
    operations = pytest.importorskip("accelerate.utils.operations")
    strings = StringTensor.from_list(["a", "bc"])
    nested = Ragged(torch.arange(3), (torch.tensor([0, 1, 3]),))
    batch = {"x": torch.ones(2), "s": strings, "r": nested}
    assert operations.find_batch_size(batch) == 2
    for non_blocking in (False, True):
        moved = operations.send_to_device(batch, torch.device("meta"), non_blocking=non_blocking)
        assert moved["s"].device.type == moved["x"].device.type == "meta"
        assert moved["r"].values.device.type == moved["r"].row_splits[0].device.type == "meta"
    stayed = operations.send_to_device(batch, torch.device("cpu"))
    assert stayed["s"] == strings
    assert stayed["s"].bytes.data_ptr() == strings.bytes.data_ptr()
    with pytest.raises(TypeError, match="Can only concatenate tensors"):
        operations.concatenate([batch, batch])
