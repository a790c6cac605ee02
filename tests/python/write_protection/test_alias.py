"""on_write="alias": writes reach TensorFlow, as the caller requested."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch
from sharing import SHAPE, Shared, numbers, plain, torch_bytes
from torch import nn
from writes import WAYS, WRITES

import tensor_bridge
from tensor_bridge.testing import shares_memory, tf_data_address, torch_data_address


def alias(t: tf.Tensor | None = None, interface: Any = tensor_bridge, **options: Any) -> Shared:
    return Shared(t, interface.to_torch, on_write="alias", **options)


@pytest.mark.parametrize("write", WAYS)
def test_write_reaches_tensorflow(write: str, interface: Any) -> None:
    shared = alias(interface=interface)
    expected = plain(shared.torch)
    WRITES[write](shared.torch)
    WRITES[write](expected)
    shared.before = torch_bytes(expected)
    shared.assert_shared()


def test_pointers_are_tensorflows() -> None:
    shared = alias()
    address = tf_data_address(shared.tf)
    assert shared.torch.data_ptr() == address
    assert shared.torch.untyped_storage().data_ptr() == address
    assert shared.torch.numpy().ctypes.data == address
    assert torch.from_dlpack(shared.torch).data_ptr() == address
    shared.assert_shared()
    ctypes.memset(shared.torch.data_ptr(), 0, 4 * 24)
    assert not np.any(shared.tf.numpy())


def test_aliases_of_tensorflow_change_too_as_the_caller_vouched() -> None:
    t = numbers()
    other = tf.reshape(t, (-1,))
    alias(t).torch[0].fill_(-1)
    assert other.numpy()[:7].tolist() == [-1, -1, -1, -1, -1, -1, 6]


def test_alias_outlives_the_tensorflow_tensor() -> None:
    shared = alias()
    del shared.tf
    shared.torch.add_(1)
    assert torch.equal(shared.torch, torch.arange(24.0).reshape(SHAPE) + 1)
    assert tensor_bridge.testing.live_owners() >= 1


def test_optimizer_trains_tensorflows_memory() -> None:
    shared = alias()
    parameter = nn.Parameter(shared.torch)
    parameter.grad = torch.ones(SHAPE)
    torch.optim.SGD([parameter], lr=1.0).step()
    assert np.array_equal(shared.tf.numpy(), np.arange(24).reshape(SHAPE) - 1)
    assert shares_memory(shared.tf, parameter)


def test_resize_and_shared_memory_leave_tensorflow() -> None:
    shared = alias()
    shared.torch.resize_(100).fill_(1)
    shared.assert_moved()
    shared = alias()
    shared.torch.share_memory_()
    shared.torch.fill_(1)
    shared.assert_moved()


def test_protected_conversion_of_the_same_tensor_stays_protected() -> None:
    t = numbers()
    writer, reader = alias(t), Shared(t)
    writer.torch.add_(1)
    writer.before = reader.before = torch_bytes(writer.torch)
    reader.assert_shared()
    reader.torch.zero_()
    reader.assert_moved()
    writer.assert_shared()


def test_variable_is_refused(interface: Any) -> None:
    variable = tf.Variable(numbers())
    with pytest.raises(tensor_bridge.InvalidOptionError, match="snapshot") as caught:
        interface.to_torch(variable, on_write="alias")
    assert isinstance(caught.value, ValueError)
    assert "variable.assign()" in str(caught.value)
    explanation = tensor_bridge.explain(variable, on_write="alias")
    assert explanation.action == "refused"
    assert explanation.error is tensor_bridge.InvalidOptionError


def test_explain_says_alias() -> None:
    explanation = tensor_bridge.explain(numbers(), on_write="alias")
    assert explanation.action == "shared"
    assert explanation.on_write == "alias"
    assert "on_write='alias'" in str(explanation)


def test_copied_result_is_no_alias() -> None:
    t = numbers()
    assert tensor_bridge.explain(t, on_write="alias", copy=True).on_write is None
    x = tensor_bridge.to_torch(t, on_write="alias", copy=True)
    assert torch_data_address(x) != tf_data_address(t)
    x.zero_()
    assert torch.equal(tensor_bridge.to_torch(t), torch.arange(24.0).reshape(SHAPE))
