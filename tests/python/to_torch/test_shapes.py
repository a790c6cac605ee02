"""Every rank, zero-size shapes, scalars, and the layout of the result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from sharing import owners
from tf_bytes import BY_DEFAULT, random_tensor, row_named, tf_memory, tf_tensor, torch_memory

from tensor_bridge import DtypeRow
from tensor_bridge.testing import live_owners, shares_memory, tf_data_address

# TensorShape::MaxDimensions() is 254, and TensorFlow only allows ranks below it.
HIGHEST_RANK = 253

EMPTY_SHAPES = [
    (0,),
    (0, 3),
    (3, 0),
    (3, 0, 2),
    (0, 0),
    (1, 0, 1),
    (0, 2**40),
    (2**31, 0, 2**31),
    (2**62, 0, 1),
    (0,) * 60,
]


def row_major_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.insert(0, step)
        step *= max(size, 1)
    return tuple(strides)


def tensors_of_every_rank() -> Iterator[tf.Tensor]:
    scalar = tf.constant(5.0) * 1
    for rank in range(HIGHEST_RANK + 1):
        yield tf.reshape(scalar, [1] * rank)


def test_tensorflow_has_no_higher_rank() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="too many dimensions"):
        tf.reshape(tf.constant([5.0]), [1] * (HIGHEST_RANK + 1))


def test_every_rank_shares(interface: Any) -> None:
    before = live_owners()
    for rank, t in enumerate(tensors_of_every_rank()):
        x = interface.to_torch(t)
        assert x.shape == (1,) * rank
        assert x.stride() == (1,) * rank
        assert x.is_contiguous()
        assert shares_memory(t, x)
        assert x.sum().item() == 5.0
        assert live_owners() == before + 1
        del x
        assert live_owners() == before


def test_every_rank_is_explained(interface: Any) -> None:
    for rank, t in enumerate(tensors_of_every_rank()):
        explanation = interface.explain(t)
        assert explanation.action == "shared"
        assert explanation.shape == (1,) * rank
        assert explanation.nbytes == 4


def test_every_rank_of_a_variable_shares(interface: Any) -> None:
    for rank in (0, 1, 5, 64, HIGHEST_RANK):
        v = tf.Variable(tf.fill([1] * rank, 2.0))
        x = interface.to_torch(v)
        assert x.dim() == rank
        assert shares_memory(v, x)
        assert x.sum().item() == 2.0


@pytest.mark.parametrize(
    "shape", [(), (1,), (7,), (2, 3), (1, 5), (5, 1), (2, 1, 3), (2, 3, 4, 5), (1,) * 20], ids=str
)
@pytest.mark.parametrize("name", needs.dtypes(["float32", "bool", "complex128", "int4", "uint2"]))
def test_the_layout_is_row_major(name: str, shape: tuple[int, ...], interface: Any) -> None:
    t = random_tensor(row_named(name), shape)
    for copy in (None, True):
        x = interface.to_torch(t, copy=copy)
        assert x.shape == shape
        assert x.stride() == row_major_strides(shape)
        assert x.storage_offset() == 0
        assert x.untyped_storage().nbytes() == x.nbytes


@pytest.mark.parametrize("row", BY_DEFAULT, ids=lambda row: row.name)
def test_a_scalar_converts(row: DtypeRow, interface: Any) -> None:
    t = random_tensor(row, ())
    x = interface.to_torch(t)
    assert x.shape == ()
    assert x.numel() == 1
    if row.kind != "converted":
        assert shares_memory(t, x)
        assert torch_memory(x) == tf_memory(t)


@pytest.mark.parametrize("shape", EMPTY_SHAPES, ids=str)
@pytest.mark.parametrize("copy", [None, False, True])
def test_an_empty_tensor_converts(
    shape: tuple[int, ...], copy: bool | None, interface: Any
) -> None:
    t = tf_tensor(row_named("float32"), shape, b"")
    with owners():
        x = interface.to_torch(t, copy=copy)
        assert x.shape == shape
        assert x.stride() == torch.empty(shape).stride()
        assert x.numel() == x.nbytes == 0
        assert x.is_contiguous()
        assert not shares_memory(t, x), "there is no memory to share"
        x.zero_()
        x.add_(1)
        assert x.sum().item() == 0
        x = None
    explanation = interface.explain(t, copy=copy)
    assert explanation.shape == shape
    assert explanation.nbytes == 0


@pytest.mark.parametrize("row", BY_DEFAULT, ids=lambda row: row.name)
def test_an_empty_tensor_of_any_dtype_converts(row: DtypeRow, interface: Any) -> None:
    t = tf_tensor(row, (2, 0), b"")
    for raw in (False, True):
        x = interface.to_torch(t, raw=raw)
        assert x.shape == (2, 0)
        expected = "torch.uint8" if raw and row.kind == "converted" else row.nearest
        assert str(x.dtype) == expected


def test_an_empty_result_can_grow(interface: Any) -> None:
    x = interface.to_torch(tf.zeros([0, 3]))
    x.resize_(4, 3).fill_(2.0)
    assert x.sum().item() == 24.0


def test_an_empty_tensor_with_forbidden_writes_has_nothing_to_write(interface: Any) -> None:
    x = interface.to_torch(tf.zeros([0, 3]), on_write="raise")
    assert x.clone().shape == (0, 3)
    assert (x + 1).shape == (0, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x[1:3],  # starts on a 64-byte boundary, so it shares the parent's memory
        lambda x: x[1],
        lambda x: tf.split(x, 2)[1],
        lambda x: tf.reshape(x, [2, 2, 16]),
        lambda x: tf.transpose(x),
        lambda x: x[:, 1:3],
        lambda x: x[::2],
        lambda x: tf.reverse(x, [0]),
        lambda x: tf.broadcast_to(x, [3, 4, 16]),
    ],
)
def test_what_tensorflow_makes_of_a_tensor_converts(make: Any, interface: Any) -> None:
    parent = tf.reshape(tf.range(64, dtype=tf.float32), [4, 16])
    t = make(parent)
    x = interface.to_torch(t)
    assert shares_memory(t, x)
    assert x.tolist() == t.numpy().tolist()
    x.zero_()
    assert interface.to_torch(parent).flatten().tolist() == list(range(64))


def test_a_slice_keeps_its_parent_s_memory(interface: Any) -> None:
    parent = tf.reshape(tf.range(64, dtype=tf.float32), [4, 16])
    part = parent[1:3]
    assert tf_data_address(part) == tf_data_address(parent) + 64
    x = interface.to_torch(part)
    del parent, part
    scratch = [tf.fill([4, 16], float(i)) for i in range(20)]
    assert x.flatten().tolist() == [float(i) for i in range(16, 48)]
    del scratch


def test_a_large_tensor_shares_and_copies(interface: Any) -> None:
    t = tf.random.stateless_uniform([1 << 20], [1, 2])  # so large that copies release the GIL
    shared = interface.to_torch(t)
    copied = interface.to_torch(t, copy=True)
    assert shares_memory(t, shared)
    assert not shares_memory(t, copied)
    assert torch.equal(shared, copied)
    shared.add_(1)
    assert torch.equal(shared, copied + 1)
    assert torch.equal(interface.to_torch(t), copied)
