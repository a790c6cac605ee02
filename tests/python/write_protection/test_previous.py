"""The memory that a tensor keeps after it has moved, and its release."""

from __future__ import annotations

import ctypes
import io
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import needs
import numpy as np
import pytest
import tensorflow as tf
import torch
from guard import Fault, Guard, GuardedTensor
from memory import allocated
from sharing import in_threads, numbers, owners, plain, torch_bytes

import tensor_bridge
from tensor_bridge import release_previous
from tensor_bridge.testing import tf_data_address, torch_data_address

shares_to_tf = needs.torch_since(13, "what goes to TensorFlow is copied")

ROWS, COLUMNS = 8, 4096
VALUES = torch.arange(ROWS * COLUMNS, dtype=torch.float32).reshape(ROWS, COLUMNS)
LARGE = 8 << 20  # bytes; malloc counts them, and nothing else in a test takes as much


def guarded(detector: Guard) -> GuardedTensor:
    return detector.tensor(VALUES.data_ptr(), VALUES.nbytes, tf.float32, VALUES.shape)


def moved() -> torch.Tensor:
    """A tensor that has moved, and keeps a buffer that TensorFlow no longer has."""
    t = numbers()
    x = tensor_bridge.to_torch(t)
    x.add_(1)
    return x


def test_tensorflows_buffer_is_kept_and_then_given_back(armed_guard: Guard, interface: Any) -> None:
    regions = armed_guard.live_regions()
    source = guarded(armed_guard)
    x = interface.to_torch(source.tensor)
    x[0].add_(1)
    address = torch_data_address(x)
    del source
    assert armed_guard.live_regions() == regions + 1, "kernels may still read the buffer"
    assert release_previous(x) == 1
    assert armed_guard.live_regions() == regions
    assert release_previous(x) == 0
    x[1].add_(1)
    expected = VALUES.clone()
    expected[:2] += 1
    assert torch.equal(x, expected)
    assert torch_data_address(x) == address


def test_pointer_from_before_a_write_leads_to_memory_until_it_is_given_back(
    armed_guard: Guard,
) -> None:
    source = guarded(armed_guard)
    x = tensor_bridge.to_torch(source.tensor)
    region, address = source.region, torch_data_address(x)
    del source
    x.zero_()
    assert ctypes.c_float.from_address(address + 4).value == 1.0
    assert armed_guard.take_faults() == []
    release_previous(x)
    with armed_guard.operator("stale"):
        ctypes.string_at(address + 4, 4)
    assert armed_guard.take_faults() == [Fault("use after release", "stale", region, 4)]


def test_readers_beside_a_writer_and_then_it_is_given_back(armed_guard: Guard) -> None:
    """The reader of each row began before or after the write; none is running at the end."""
    regions = armed_guard.live_regions()
    sums = [float(row.sum()) for row in VALUES]
    for _ in range(20):
        x = tensor_bridge.to_torch(guarded(armed_guard).tensor)

        def read(x: torch.Tensor = x) -> None:
            for _ in range(20):
                assert [float(row.sum()) for row in x[1:]] == sums[1:]

        in_threads(read, read, lambda x=x: x[0].zero_(), read)
        assert release_previous(x) == 1
        assert armed_guard.live_regions() == regions
        read()


def test_what_autograd_saved_reads_the_new_memory(armed_guard: Guard) -> None:
    x = tensor_bridge.to_torch(guarded(armed_guard).tensor)
    w = torch.ones(COLUMNS, requires_grad=True)
    y = x * w
    x.data.fill_(3)  # without counting a version
    release_previous(x)
    y.sum().backward()
    assert w.grad is not None
    assert bool((w.grad == 3 * ROWS).all())


def test_optimizer_on_converted_parameters(armed_guard: Guard) -> None:
    regions = armed_guard.live_regions()
    parameters = [
        torch.nn.Parameter(tensor_bridge.to_torch(guarded(armed_guard).tensor)) for _ in range(3)
    ]
    twins = [torch.nn.Parameter(VALUES.clone()) for _ in parameters]
    for each in (parameters, twins):
        optimizer = torch.optim.SGD(each, lr=0.5)
        for _ in range(3):
            sum((p * p).sum() for p in each).backward()
            optimizer.step()
            optimizer.zero_grad()
            if each is parameters:
                release_previous(optimizer.param_groups)
                assert armed_guard.live_regions() == regions
    assert all(torch.equal(p, twin) for p, twin in zip(parameters, twins, strict=True))


def test_buffer_stays_with_its_other_holders() -> None:
    t = numbers()
    x, y = tensor_bridge.to_torch(t), tensor_bridge.to_torch(t)
    before = torch_bytes(y)
    x.add_(1)
    assert release_previous(x) == 1
    assert torch_bytes(y) == before == torch_bytes(plain(y))
    assert torch_data_address(y) == tf_data_address(t)
    del t
    y.add_(1)
    assert torch.equal(x, y)


@needs.takes_over
def test_last_holder_takes_the_buffer_over_after_it() -> None:
    """`x` held the buffer for readers from before its move. Then only `y` holds it."""
    t = numbers()
    x, y = tensor_bridge.to_torch(t), tensor_bridge.to_torch(t)
    x.add_(1)
    del t
    release_previous(x)
    before = torch_data_address(y)
    y.add_(1)
    assert torch_data_address(y) == before


@shares_to_tf
def test_bytes_that_tensorflow_shares_stay_its_own() -> None:
    x = torch.arange(LARGE // 4, dtype=torch.float32)
    u = tensor_bridge.to_tf(x)
    x.add_(1)
    before = allocated()
    assert release_previous(x) == 1
    assert before - allocated() < LARGE // 2, "TensorFlow still holds the bytes"
    assert float(u[-1]) == LARGE // 4 - 1
    assert float(x[-1]) == LARGE // 4
    del u
    assert before - allocated() > LARGE // 2, "the bytes have no holder"


@shares_to_tf
def test_bytes_that_tensorflow_let_go_of_are_freed() -> None:
    x = torch.zeros(LARGE // 4)
    u = tensor_bridge.to_tf(x)
    x.add_(1)
    del u
    before = allocated()
    assert release_previous(x) == 1
    assert before - allocated() > LARGE // 2
    assert bool((x == 1).all())


@shares_to_tf
def test_buffer_of_a_tensor_that_was_given_back_to_tensorflow(armed_guard: Guard) -> None:
    regions = armed_guard.live_regions()
    x = tensor_bridge.to_torch(guarded(armed_guard).tensor)
    x.add_(1)
    u = tensor_bridge.to_tf(x)
    assert armed_guard.live_regions() == regions + 1
    assert release_previous(x) == 1
    assert armed_guard.live_regions() == regions
    assert release_previous(x) == 0, "x shows the memory that TensorFlow shares"
    assert tf_data_address(u) == torch_data_address(x)
    x.add_(1)
    assert float(u[0, 1]) == 2.0
    assert float(x[0, 1]) == 3.0


@shares_to_tf
def test_step_between_shares_leaves_memory_flat() -> None:
    p = torch.nn.Parameter(torch.zeros(LARGE // 4))
    p.grad = torch.ones_like(p)
    optimizer = torch.optim.SGD([p], lr=1.0)
    before = allocated()
    for step in range(6):
        value = tensor_bridge.to_tf(p)
        optimizer.step()
        release_previous(p)
        assert float(value[0]) == -step
        del value
        assert allocated() - before < LARGE // 2, step
    assert p[-1].item() == -6


@shares_to_tf
def test_array_of_a_loaded_tensor_keeps_its_memory() -> None:
    """numpy() leaves no mark on a tensor from torch.load, so the array cannot be noticed."""
    file = io.BytesIO()
    torch.save(torch.arange(LARGE // 4, dtype=torch.float32), file)
    file.seek(0)
    x = torch.load(file)
    if torch_data_address(x) % 64:
        pytest.skip("torch.load did not align it")
    array = x.numpy()
    u = tensor_bridge.to_tf(x)
    assert tf_data_address(u) == torch_data_address(x)
    x.add_(1)
    del u
    before = allocated()
    assert release_previous(x) == 0
    assert before - allocated() < LARGE // 2
    assert array[-1] == LARGE // 4 - 1
    assert float(x[-1]) == LARGE // 4


@pytest.mark.parametrize("on_write", ["copy", "raise", "alias"])
def test_buffer_that_a_tensor_shows_is_not_given_back(armed_guard: Guard, on_write: str) -> None:
    source = guarded(armed_guard)
    x = tensor_bridge.to_torch(source.tensor, on_write=on_write)
    del source
    regions = armed_guard.live_regions()
    assert release_previous(x) == 0
    assert armed_guard.live_regions() == regions
    assert torch.equal(x, VALUES)


@needs.takes_over
def test_buffer_that_was_taken_over_is_not_given_back() -> None:
    x = tensor_bridge.to_torch(numbers())
    x.add_(1)
    assert release_previous(x) == 0
    assert torch.equal(x, plain(x))


def test_resized_tensor() -> None:
    x = moved()
    x.resize_(100)
    assert release_previous(x) in (0, 1)  # before torch 2.13 x keeps the buffer, later it does not
    assert x[23].item() == 24.0


class Model(torch.nn.Module):
    def __init__(self, weight: torch.Tensor, running: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)
        self.register_buffer("running", running)
        self.scale = 2.0


VALUES_OF: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "list": lambda x, y: [x, y],
    "tuple": lambda x, y: (x, y, None, 1.0, "text"),
    "state_dict": lambda x, y: OrderedDict(x=x, y=y),
    "nested": lambda x, y: {"a": [x], "b": ({"c": y.t()},)},
    "module": Model,
    "modules": lambda x, y: [torch.nn.Sequential(Model(x, y)), x],
    "iterator": lambda x, y: iter([x, y]),
    "parameters": lambda x, y: torch.nn.ParameterList([x, y]).parameters(),
    "groups": lambda x, y: [{"params": [x], "lr": 0.1}, {"params": [y], "lr": 0.2}],
}


@pytest.mark.parametrize("form", VALUES_OF)
def test_structures_modules_and_iterators(form: str) -> None:
    with owners() as added:
        kept = numbers()  # so that both move
        x, y = (tensor_bridge.to_torch(kept) for _ in range(2))
        x.add_(1)
        y.add_(1)
        assert added() == 2
        assert release_previous(VALUES_OF[form](x, y)) == 2


@pytest.mark.parametrize(
    "value",
    [torch.ones(3), torch.empty(0), torch.nn.Linear(2, 2), [], {}, None, 3, "text"],
    ids=lambda value: type(value).__name__,
)
def test_nothing_is_kept_of_torchs_own(value: Any) -> None:
    assert release_previous(value) == 0


@pytest.mark.parametrize(
    "value",
    [object(), np.zeros(3), tf.zeros(3), torch.eye(3).to_sparse(), [1, {"a": object()}]],
    ids=["object", "array", "tf.Tensor", "sparse", "nested"],
)
def test_what_is_no_dense_torch_tensor_is_refused(value: Any) -> None:
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="tensors that it is made of"):
        release_previous(value)


def test_nothing_is_given_back_where_a_part_is_refused() -> None:
    x = moved()
    with pytest.raises(tensor_bridge.UnsupportedTypeError):
        release_previous([x, object()])
    assert release_previous(x) == 1
