"""on_write="raise": every write raises, nothing is copied, TensorFlow's bytes do not change."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import needs
import numpy as np
import pytest
import tensorflow as tf
import torch
from sharing import SHAPE, Shared, numbers, plain, tf_bytes
from torch import nn
from writes import OPTIMIZERS, WAYS, WRITES, in_place_then_read

import tensor_bridge
from tensor_bridge.testing import shares_memory, tf_data_address, torch_data_address

TEXT = (
    "this tensor shares memory with TensorFlow, or with a DLPack producer, and was converted with "
    'on_write="raise": it may not be written to, and torch asked for a pointer to write through. '
    'clone() it first, or convert it with on_write="copy"'
)


def read_only(t: tf.Tensor | None = None, interface: Any = tensor_bridge, **options: Any) -> Shared:
    return Shared(t, interface.to_torch, on_write="raise", **options)


def raises(write: Callable[[], Any], error: type[Exception] = BufferError) -> None:
    if needs.torch_release < (2, 13):
        with needs.forbidden_write():
            write()
        return
    with pytest.raises(error) as caught:
        write()
    assert TEXT in str(caught.value)
    assert type(caught.value) is error


# Before torch 2.13 a failed export leaves the tensor alive for ever, and share_memory_() does not
# request a writable pointer.
OLD = {"__dlpack__", "from_dlpack", "share_memory_", "raw: to_dlpack", "raw: from_dlpack"}
RECENT = needs.torch_since(13, "torch's own exports and shared memory")


@pytest.mark.parametrize(
    "write",
    [w for w in WAYS if w.values[0] not in OLD]
    + [pytest.param(w, marks=RECENT) for w in WRITES if w in OLD],
)
def test_write_raises_and_changes_nothing(write: str, interface: Any) -> None:
    shared = read_only(interface=interface)
    for _ in range(2):
        raises(lambda: WRITES[write](shared.torch))
        shared.assert_shared()
    assert torch.equal(shared.torch + 1, torch.arange(24.0).reshape(SHAPE) + 1)
    WRITES[write](shared.torch.clone())
    shared.assert_shared()


ALSO: dict[str, Callable[[torch.Tensor], Any]] = {
    "data_ptr": torch.Tensor.data_ptr,
    "storage data_ptr": lambda x: x.untyped_storage().data_ptr(),
    "numpy": torch.Tensor.numpy,
    "np.asarray": np.asarray,
    "pickle": pickle.dumps,
    "torch.save": lambda x: torch.save(x, io.BytesIO()),
    "__dlpack__": lambda x: x.__dlpack__(),
    "from_dlpack": torch.from_dlpack,
    "share_memory_": torch.Tensor.share_memory_,
}


@pytest.mark.parametrize("way", [pytest.param(w, marks=RECENT if w in OLD else ()) for w in ALSO])
def test_what_asks_for_a_mutable_pointer_raises_too_and_clone_is_the_way_out(way: str) -> None:
    shared = read_only()
    raises(lambda: ALSO[way](shared.torch))
    shared.assert_shared()
    copied = shared.torch.clone()
    ALSO[way](copied)
    shared.assert_shared()


@pytest.mark.filterwarnings("ignore")
def test_compiled_function_raises_a_runtime_error() -> None:
    torch.compiler.reset()
    compiled = torch.compile(in_place_then_read, fullgraph=True)
    shared = read_only()
    raises(lambda: compiled(shared.torch), RuntimeError)
    shared.assert_shared()
    assert torch.equal(compiled(shared.torch.clone())[1], shared.torch[1] * 2 + 1)


@pytest.mark.filterwarnings("ignore")
def test_scripted_function_raises() -> None:
    @torch.jit.script
    def scripted(x: torch.Tensor) -> torch.Tensor:
        return x.mul_(2)

    shared = read_only()
    with pytest.raises((BufferError, RuntimeError)) as caught:
        scripted(shared.torch)
    if needs.torch_release >= (2, 13):
        assert TEXT in str(caught.value)
    shared.assert_shared()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_step_raises(name: str) -> None:
    weight, gradient = read_only(), read_only()
    parameter = nn.Parameter(weight.torch)
    weight.assert_shared(parameter)
    parameter.grad = torch.ones(SHAPE)
    optimizer = OPTIMIZERS[name]([parameter])
    raises(lambda: optimizer.step(lambda: parameter.detach().sum()))
    weight.assert_shared(parameter)
    other = nn.Parameter(torch.zeros(SHAPE))
    other.grad = gradient.torch
    if "fused" not in name:  # the fused kernels get a mutable pointer to the gradient
        OPTIMIZERS[name]([other]).step(lambda: other.detach().sum())
        gradient.assert_shared()


def test_gradient_accumulation_raises_out_of_backward() -> None:
    shared = read_only()
    w = torch.ones(SHAPE, requires_grad=True)
    w.grad = shared.torch
    raises((w * 2).sum().backward)
    shared.assert_shared(w.grad)


def test_views_raise() -> None:
    shared = read_only()
    for view in (
        shared.torch.detach(),
        shared.torch[1:3, 2],
        shared.torch.t(),
        shared.torch.view(torch.int32),
        torch.empty(0).set_(shared.torch),
        nn.Parameter(shared.torch).data,
    ):
        raises(lambda view=view: view.fill_(1))
    shared.assert_shared()


def test_reading_training_and_copying_do_not_raise() -> None:
    shared = read_only()
    x = shared.torch
    leaf = x.detach().requires_grad_()
    (leaf**2).sum().backward()
    assert torch.equal(leaf.grad, 2 * x)
    leaf.grad.zero_()
    nn.Linear(6, 2)(x).sum().backward()
    repr(x)
    x.tolist()
    copy.deepcopy(x).zero_()
    torch.zeros(SHAPE).copy_(x).add_(x)
    x.to(torch.float64).zero_()
    nn.Linear(6, 4, bias=False).load_state_dict({"weight": x})
    shared.assert_shared()


@needs.torch_dlpack_copies
def test_a_copy_by_dlpack_does_not_raise() -> None:
    shared = read_only()
    torch.from_dlpack(shared.torch, copy=True).zero_()
    shared.assert_shared()


def test_other_memory_may_take_its_place() -> None:
    shared = read_only()
    shared.torch.data = torch.zeros(2)
    shared.torch.fill_(1)
    shared.assert_untouched()
    shared = read_only()
    shared.torch.set_(torch.zeros(2))
    shared.torch.fill_(1)
    shared.assert_untouched()
    shared = read_only()
    other = torch.zeros(2)
    torch.utils.swap_tensors(shared.torch, other)
    shared.torch.fill_(1)
    raises(lambda: other.fill_(1))
    shared.assert_untouched()


@needs.torch_since(13, "a storage that refuses writes does so when it has grown, too")
def test_growing_gives_memory_of_its_own_which_takes_writes() -> None:
    for grow in (lambda x: x.resize_(100), lambda x: x.untyped_storage().resize_(1000)):
        shared = read_only()
        grow(shared.torch)
        assert torch.equal(shared.torch.view(-1)[:24], torch.arange(24.0))
        shared.assert_moved()
        shared.torch.fill_(1)
        shared.assert_untouched()


def test_each_conversion_has_its_own_policy() -> None:
    t = numbers()
    frozen, moving = read_only(t), Shared(t)
    moving.torch.zero_()
    raises(lambda: frozen.torch.zero_())
    frozen.assert_shared()
    moving.assert_moved()


def test_variable_snapshot_raises() -> None:
    variable = tf.Variable(numbers())
    x = tensor_bridge.to_torch(variable, on_write="raise")
    assert torch_data_address(x) == tf_data_address(variable)
    before = tf_bytes(variable.read_value())
    raises(lambda: x.zero_())
    variable.assign_add(tf.ones(SHAPE))
    assert torch.equal(x, torch.arange(24.0).reshape(SHAPE))
    assert tf_bytes(variable.read_value()) != before


def test_copied_result_takes_writes() -> None:
    t = numbers()
    x = tensor_bridge.to_torch(t, on_write="raise", copy=True)
    assert tensor_bridge.explain(t, on_write="raise", copy=True).on_write is None
    x.zero_()
    assert not shares_memory(t, x)
    assert torch.equal(tensor_bridge.to_torch(t), torch.arange(24.0).reshape(SHAPE))


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2)], ids=str)
def test_empty_tensor_has_nothing_to_write(shape: tuple[int, ...]) -> None:
    x = tensor_bridge.to_torch(tf.zeros(shape), on_write="raise")
    assert plain(x).shape == shape
    assert x.tolist() == tf.zeros(shape).numpy().tolist()


def test_explain_says_raise() -> None:
    explanation = tensor_bridge.explain(numbers(), on_write="raise")
    assert explanation.action == "shared"
    assert explanation.on_write == "raise"
    assert "on_write='raise'" in str(explanation)
