"""The first write through torch's Python API moves torch to its own memory.

`test_op_db.py` tests each operator. The tests here are for the ways to write: each kind of call,
view, storage access, pointer and protocol.
"""

from __future__ import annotations

import ctypes
import math

import needs
import pytest
import tensorflow as tf
import torch
from sharing import SHAPE, Shared, from_bytes, numbers, tf_bytes, torch_bytes

import tensor_bridge
from tensor_bridge.testing import shares_memory, tf_data_address, torch_data_address

SHARED_ROWS = [row for row in needs.rows() if row.kind in ("shared", "viewed")]


@pytest.mark.parametrize("row", SHARED_ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2, 1, 3, 1, 2)], ids=str)
def test_first_write_of_every_shared_dtype(
    row: tensor_bridge.DtypeRow, shape: tuple[int, ...]
) -> None:
    raw = bytes([1, 0]) * (row.itemsize * 32)
    nbytes = row.itemsize * math.prod(shape)
    shared = Shared(from_bytes(raw[:nbytes], shape, tf.as_dtype(row.tf_enum)))
    assert str(shared.torch.dtype) == row.nearest
    shared.torch.fill_(0)
    assert not any(torch_bytes(shared.torch))
    shared.assert_moved()


def test_scalar_moves() -> None:
    shared = Shared(tf.reshape(tf.range(1.0) + 3, ()))
    shared.torch.add_(1)
    assert shared.torch.item() == 4
    shared.assert_moved()


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2)], ids=str)
def test_empty_tensor_takes_writes(shape: tuple[int, ...]) -> None:
    t = tf.zeros(shape)
    x = tensor_bridge.to_torch(t)
    assert x.shape == shape
    x.add_(1)
    x.zero_()
    assert not shares_memory(t, x)
    assert x.resize_(2, 2).fill_(1).sum() == 4
    assert t.shape == shape


def test_two_conversions_of_one_tensor_move_apart() -> None:
    t = numbers()
    first, second = Shared(t), Shared(t)
    first.torch.zero_()
    first.assert_moved()
    second.assert_shared()
    second.torch.fill_(1)
    second.assert_moved()
    assert not first.torch.any()


def test_conversions_of_aliases_of_tensorflow_move_apart() -> None:
    t = numbers((4, 1024))
    whole, row, reshaped = Shared(t), Shared(t[2]), Shared(tf.reshape(t, (-1,)))
    assert tf_data_address(row.tf) == tf_data_address(t) + 2 * 4096
    row.torch.zero_()
    row.assert_moved()
    whole.assert_shared()
    reshaped.assert_shared()


def test_read_of_a_pointer_taken_before_the_write_is_safe() -> None:
    shared = Shared()
    address = torch_data_address(shared.torch)
    before = shared.before
    shared.torch.zero_()
    del shared.tf
    assert tensor_bridge.testing.live_owners() >= 1
    assert ctypes.string_at(address, len(before)) == before


def test_write_to_the_snapshot_of_a_variable() -> None:
    variable = tf.Variable(numbers())
    before = tf_bytes(variable.read_value())
    x = tensor_bridge.to_torch(variable)
    assert torch_data_address(x) == tf_data_address(variable)
    x.zero_()
    assert torch_data_address(x) != tf_data_address(variable)
    assert tf_bytes(variable.read_value()) == before
    x = tensor_bridge.to_torch(variable)
    variable.assign_add(tf.ones(SHAPE))
    assert torch_bytes(x) == before
    x.zero_()
    assert torch.equal(tensor_bridge.to_torch(variable), torch.arange(24.0).reshape(SHAPE) + 1)


@needs.dtype("int4")
def test_shared_integers_of_raw_conversions_are_protected() -> None:
    shared = Shared(from_bytes(bytes(range(8)), (2, 4), tf.as_dtype("int4")), raw=True)
    assert shared.torch.dtype == torch.uint8
    shared.torch.fill_(3)
    shared.assert_moved()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("axis", [None, 0])
def test_quantized_tensors_are_protected(axis: int | None) -> None:
    t = tf.bitcast(tf.reshape(tf.range(1, 7, dtype=tf.int32) + 0, (2, 3)), tf.qint32)
    scale, zero_point = (0.5, 0) if axis is None else ([0.5, 0.25], [0, 0])
    x = tensor_bridge.to_torch(t, scale=scale, zero_point=zero_point, axis=axis)
    before = tf_bytes(t)
    assert torch_data_address(x) == tf_data_address(t)
    x.fill_(9.0)
    assert torch_data_address(x) != tf_data_address(t)
    assert bool((x.dequantize() == 9).all())
    assert tf_bytes(t) == before


def test_copied_result_is_plain_torch_memory() -> None:
    t = numbers()
    x = tensor_bridge.to_torch(t, copy=True)
    assert not shares_memory(t, x)
    address = torch_data_address(x)
    assert x.data_ptr() == address
    x.zero_()
    assert torch_data_address(x) == address
    assert torch_bytes(tensor_bridge.to_torch(t)) == tf_bytes(t)
