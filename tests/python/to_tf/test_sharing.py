"""to_tf shares torch's memory without a copy, and the next write moves torch away from it.

TensorFlow's tensors are immutable; torch writes in place. The tests here write to memory, replace
it and release it; `test_threads.py` does so with several threads.
"""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Callable
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from memory import allocated
from sharing import (
    SHAPE,
    Shared,
    misaligned,
    numbers,
    saved,
    shared_to_tf,
    tf_bytes,
    values,
)
from torch import nn
from writes import OPTIMIZERS

import tensor_bridge
from tensor_bridge.testing import (
    live_owners,
    shares_memory,
    tf_data_address,
    torch_data_address,
)

pytestmark = needs.shares_to_tf

# ---- the first write -----------------------------------------------------------------------------


def test_view_is_shared_and_a_write_elsewhere_in_the_storage_moves_it() -> None:
    x = values((4, 1024))
    kept = shared_to_tf(x[2])
    assert kept.address == torch_data_address(x) + 2 * 4096
    x[0].zero_()
    kept.assert_moved()
    assert not kept.address <= torch_data_address(x) < kept.address + 4096
    assert torch.equal(kept.torch, torch.arange(2048.0, 3072.0))


def test_out_of_place_results_are_not_tied_to_tensorflow() -> None:
    kept = shared_to_tf()
    y = kept.torch * 2
    y.zero_()
    kept.assert_shared()


def test_tensor_saved_for_backward_may_be_shared() -> None:
    w = nn.Parameter(values())
    y = w * w
    kept = shared_to_tf(y)
    (y * y).sum().backward()
    assert torch.equal(w.grad, 4 * torch.arange(24.0).reshape(SHAPE) ** 3)
    kept.assert_shared()


# ---- how often, and for how long -----------------------------------------------------------------


def test_released_before_the_write_costs_no_copy() -> None:
    kept = shared_to_tf()
    x, address = kept.torch, kept.address
    before = live_owners()
    del kept
    assert live_owners() == before - 1
    x.zero_()
    assert torch_data_address(x) == address
    assert not x.any()
    again = shared_to_tf(x)
    assert again.address == address


def test_shared_and_released_many_times_stays_in_place() -> None:
    x = values()
    address = torch_data_address(x)
    for i in range(50):
        shared_to_tf(x)
        x.fill_(i)
        assert torch_data_address(x) == address


def test_two_shares_a_write_a_third_share_a_write() -> None:
    x = values()
    first, second = shared_to_tf(x), shared_to_tf(x)
    assert first.address == second.address
    x.add_(1)
    first.assert_moved()
    second.assert_moved()
    third = shared_to_tf(x)
    assert third.address != first.address
    x.add_(1)
    for kept in (first, second, third):
        kept.assert_moved()
    assert torch.equal(x, torch.arange(24.0).reshape(SHAPE) + 2)


def test_one_of_two_shares_released_still_moves() -> None:
    x = values()
    first, second = shared_to_tf(x), shared_to_tf(x)
    del first
    x.add_(1)
    second.assert_moved()


def test_move_back_onto_the_kept_memory_never_happens() -> None:
    """Each write after a share finds another buffer while the earlier ones are held."""
    x = values()
    shares = []
    for _ in range(10):
        shares.append(shared_to_tf(x))
        x.add_(1)
    assert len({kept.address for kept in shares}) == 10
    for kept in shares:
        kept.assert_moved()


@pytest.mark.parametrize("first", ["tensorflow", "torch"])
def test_either_side_may_be_released_first(first: str) -> None:
    before = live_owners()
    x = values()
    alive = weakref.ref(x.untyped_storage())
    t = tensor_bridge.to_tf(x)
    if first == "tensorflow":
        del t
        assert live_owners() == before
        assert torch.equal(x, values())
        del x
    else:
        del x
        assert live_owners() == before + 1
        assert tf.reduce_sum(t).numpy() == 276
        del t
        assert live_owners() == before
    assert alive() is None


def test_memory_is_freed_when_both_sides_are_gone() -> None:
    """A NumPy buffer, whose release is visible."""
    import numpy as np

    memory = np.empty(24 + 16, np.float32)
    start = -memory.ctypes.data % 64 // 4
    array = memory[start : start + 24]
    array[:] = range(24)
    ended = weakref.ref(array)
    x = torch.from_numpy(array)
    del array
    t = tensor_bridge.to_tf(x)
    assert shares_memory(t, x)
    del x
    gc.collect()
    assert ended() is not None
    assert tf.reduce_sum(t).numpy() == 276
    del t
    gc.collect()
    assert ended() is None


def test_memory_from_elsewhere_is_shared_until_the_first_move() -> None:
    import numpy as np

    memory = np.zeros(1024 + 16, np.float32)
    start = -memory.ctypes.data % 64 // 4
    array = memory[start : start + 1024]
    for x in (torch.from_numpy(array), saved(torch.zeros(1024))):
        first = shared_to_tf(x)
        x.add_(1)
        first.assert_moved()
        explanation = tensor_bridge.explain(x)
        assert explanation.action == "copied"
        assert "NumPy array" in explanation.reason
        second = tensor_bridge.to_tf(x)
        address = torch_data_address(x)
        for _ in range(3):
            x.add_(1)
            tensor_bridge.to_tf(x)
        assert torch_data_address(x) == address, "the tensor stays with its last array"
        assert tf.reduce_sum(second).numpy() == 1024
        first.assert_untouched()
    assert not array.any(), "the source keeps its values"


def test_memory_from_elsewhere_stays_shareable_if_nothing_was_left_behind() -> None:
    for x in (saved(torch.zeros(1024)), torch.zeros(1024)):
        address = torch_data_address(x)
        for i in range(3):
            t = tensor_bridge.to_tf(x, copy=False)
            assert tf_data_address(t) == address
            assert t[0].numpy() == i
            del t
            gc.collect()
            x.add_(1)
            assert torch_data_address(x) == address


def test_an_array_of_a_loaded_tensor_is_like_an_export() -> None:
    """A documented limit. If this fails, remove the limit from the docs."""
    x = saved(values())
    array = x.numpy()
    t = tensor_bridge.to_tf(x)
    array[0, 0] = 99
    assert t[0, 0].numpy() == 99


def test_a_tensor_whose_array_is_in_use_is_copied() -> None:
    x = values()
    array = x.numpy()
    before = tf_bytes(tensor_bridge.to_tf(x))
    assert tensor_bridge.explain(x).action == "copied"
    with pytest.raises(tensor_bridge.CopyRequiredError, match="NumPy array"):
        tensor_bridge.to_tf(x, copy=False)
    t = tensor_bridge.to_tf(x)
    assert not shares_memory(t, x)
    array[0, 0] = 99
    x[0, 1] = 98
    assert tf_bytes(t) == before
    for _ in range(3):
        tensor_bridge.to_tf(x)
        x.add_(1)
    assert array.tolist() == x.tolist(), "the array follows the tensor"
    assert array.ctypes.data == torch_data_address(x)


def test_an_array_of_a_tensor_that_was_shared_is_of_the_moved_one() -> None:
    kept = shared_to_tf(values())
    array = kept.torch.numpy()
    kept.assert_moved()
    array += 1
    kept.assert_untouched()
    assert torch_data_address(kept.torch) == array.ctypes.data
    assert not shares_memory(tensor_bridge.to_tf(kept.torch), kept.torch)


# ---- optimizers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_stepped_between_shares_are_right_each_time(name: str) -> None:
    w = nn.Parameter(values())
    twin = nn.Parameter(values())
    optimizer, reference = OPTIMIZERS[name]([w]), OPTIMIZERS[name]([twin])

    def step(p: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = (p * p).sum()
            loss.backward()
            return loss

        optimizer.step(closure)

    shares: list[Shared] = []
    for _ in range(4):
        shares.append(shared_to_tf(w))
        step(w, optimizer)
        step(twin, reference)
        assert torch.equal(w, twin)
        for kept in shares:
            kept.assert_untouched()
    assert len({kept.address for kept in shares}) == 4


@pytest.mark.parametrize("keep", [False, True], ids=["released", "held until the next share"])
@pytest.mark.parametrize("name", ["SGD", "AdamW fused"])
def test_memory_is_flat_over_200_steps(name: str, keep: bool) -> None:
    """One buffer of 1 MiB a step would be 200 MiB."""
    w = nn.Parameter(torch.ones(1 << 18))
    optimizer = OPTIMIZERS[name]([w])
    w.grad = torch.ones_like(w)
    t = None
    for i in range(200):
        new = tensor_bridge.to_tf(w)
        if keep:
            t = new
        del new
        optimizer.step()
        if i == 20:
            start = allocated()
    assert allocated() - start < 3 << 20
    if keep:
        assert float(t[0]) > w[0].item()


# ---- other memory for the tensor -----------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 3), (4, 6), (10, 10)], ids=str)
def test_resize(shape: tuple[int, ...]) -> None:
    kept = shared_to_tf()
    x = kept.torch.resize_(*shape)
    count = min(24, x.numel())
    assert torch.equal(x.view(-1)[:count], torch.arange(float(count)))
    x.fill_(9)
    kept.assert_moved()
    again = shared_to_tf(x)
    x.zero_()
    again.assert_moved()


def test_resized_storage_is_shared_again_after_the_next_write() -> None:
    kept = shared_to_tf()
    kept.torch.resize_(100, 100)
    copied = tensor_bridge.to_tf(kept.torch)
    assert not shares_memory(copied, kept.torch)
    kept.torch.fill_(1)
    again = shared_to_tf(kept.torch)
    kept.torch.fill_(2)
    again.assert_moved()
    kept.assert_untouched()


@pytest.mark.parametrize("way", [".data", "swap_tensors", "nn.Module.to", "load assign"])
def test_shared_tensor_gets_other_memory(way: str) -> None:
    module = nn.Linear(6, 4)
    w = module.weight
    kept = shared_to_tf(w)
    if way == ".data":
        w.data = torch.full(SHAPE, 3.0)
    elif way == "swap_tensors":
        torch.utils.swap_tensors(w, nn.Parameter(torch.full(SHAPE, 3.0)))
    elif way == "nn.Module.to":
        module.to(torch.float64)
    else:
        state = {"weight": torch.full(SHAPE, 3.0), "bias": torch.zeros(4)}
        module.load_state_dict(state, assign=True)
    with torch.no_grad():
        module.weight.fill_(4)
    kept.assert_untouched()


def test_numpy_array_taken_after_the_share_writes_torchs_copy() -> None:
    kept = shared_to_tf()
    array = kept.torch.numpy()
    kept.assert_moved()
    array[0] = 7
    assert bool((kept.torch[0] == 7).all()), "the array and the tensor still share memory"
    kept.torch[1] = 8
    assert (array[1] == 8).all()
    kept.assert_untouched()


def test_export_from_before_the_share_cannot_be_protected() -> None:
    """A documented limit. If this fails, remove the limit from the docs."""
    x = values()
    other = torch.from_dlpack(x)
    t = tensor_bridge.to_tf(x)
    other[0, 0] = 99
    assert t[0, 0].numpy() == 99
    x.add_(1)
    assert other[1, 0] == 6, "after the move they no longer share memory"


def test_pointer_taken_before_the_write_stays_valid() -> None:
    kept = shared_to_tf()
    address, before, x = kept.address, kept.before, kept.torch
    x.zero_()
    del kept
    assert ctypes.string_at(address, len(before)) == before


# ---- what TensorFlow does with it ----------------------------------------------------------------


def test_variable_made_from_it_is_independent() -> None:
    kept = shared_to_tf()
    v = tf.Variable(kept.tf)
    v.assign_add(tf.ones(SHAPE))
    kept.assert_shared()
    v.assign(kept.tf)
    v[0].assign(tf.zeros(6))
    v.scatter_nd_update([[1]], [tf.zeros(6)])
    kept.assert_shared()
    kept.torch.fill_(3)
    kept.assert_moved()
    assert v.numpy().sum() == 276 - 66


def test_keras_optimizer_does_not_write_into_torch() -> None:
    kept = shared_to_tf()
    v = tf.Variable(kept.tf)
    for optimizer in (tf.keras.optimizers.SGD(0.1), tf.keras.optimizers.Adam(0.1)):
        optimizer.apply_gradients([(tf.ones(SHAPE), v)])
    kept.assert_shared()


OPERATIONS: dict[str, Callable[[tf.Tensor], Any]] = {
    "add": lambda t: t + 1,
    "matmul": lambda t: tf.matmul(t, t, transpose_b=True),
    "reduce": lambda t: tf.reduce_sum(t, axis=0),
    "concat": lambda t: tf.concat([t, t], 0),
    "concat of one": lambda t: tf.concat([t], 0),
    "slice": lambda t: t[1:3, ::2],
    "aligned slice": lambda t: t[2:],
    "gather": lambda t: tf.gather(t, [0, 2]),
    "transpose": tf.transpose,
    "reshape": lambda t: tf.reshape(t, (-1,)) * 2,
    "cast": lambda t: tf.cast(t, tf.int32),
    "bitcast": lambda t: tf.bitcast(t, tf.int32),
    "softmax": tf.nn.softmax,
    "conv": lambda t: tf.nn.conv1d(t[None], tf.ones((2, 6, 3)), 1, "SAME"),
    "pool": lambda t: tf.nn.max_pool1d(t[None], 2, 2, "VALID"),
    "argsort": tf.argsort,
    "where": lambda t: tf.where(t > 3),
    "unstack": tf.unstack,
    "split": lambda t: tf.split(t, 2),
    "scan": lambda t: tf.scan(lambda a, b: a + b, t),
    "map_fn": lambda t: tf.map_fn(lambda r: r + 1, t),
    "einsum": lambda t: tf.einsum("ij,kj->ik", t, t),
    "svd": lambda t: tf.linalg.svd(t, compute_uv=False),
    "function": lambda t: tf.function(lambda u: tf.nn.relu(u) @ tf.ones((6, 2)))(t),
    "captured by a function": lambda t: tf.function(lambda: t * 2)(),
    "jit": lambda t: tf.function(lambda u: u * 2 + 1, jit_compile=True)(t),
    "gradient": lambda t: gradient(t),
    "dataset": lambda t: [e.numpy() for e in tf.data.Dataset.from_tensor_slices(t).batch(2)],
    "py_function": lambda t: tf.py_function(lambda u: u.numpy(), [t], tf.float32),
    "serialise": tf.io.serialize_tensor,
    "string": tf.strings.as_string,
    "embedding": lambda t: tf.nn.embedding_lookup(t, [0, 3]),
    "tensor array": lambda t: tf.TensorArray(tf.float32, 4).unstack(t).stack(),
    "control flow": lambda t: tf.while_loop(
        lambda i, u: i < 3, lambda i, u: (i + 1, u + u), (0, t)
    ),
    "numpy": lambda t: t.numpy(),
    "repr": repr,
}


def gradient(t: tf.Tensor) -> tf.Tensor:
    with tf.GradientTape() as tape:
        tape.watch(t)
        loss = tf.reduce_sum(t * t)
    return tape.gradient(loss, t)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_on_shared_memory(name: str) -> None:
    """Each reads the shared memory without changing it, and has the result that a copy gives."""
    kept = shared_to_tf()
    result = OPERATIONS[name](kept.tf)
    expected = OPERATIONS[name](numbers())
    assert repr(result).replace("<tf.Tensor", "") == repr(expected).replace("<tf.Tensor", "")
    kept.assert_shared()
    kept.torch.zero_()
    kept.assert_moved()


def test_result_that_aliases_it_in_tensorflow_is_protected_too() -> None:
    kept = shared_to_tf()
    alias = tf.reshape(kept.tf, (6, 4))
    assert tf_data_address(alias) == kept.address
    kept.tf = tf.zeros(())
    kept.torch.zero_()
    assert tf_bytes(alias) == kept.before


def test_dataset_captures_it() -> None:
    kept = shared_to_tf()
    dataset = tf.data.Dataset.from_tensors(kept.tf).repeat()
    elements = iter(dataset)
    kept.torch.zero_()
    assert tf.reduce_sum(next(elements)).numpy() == 276
    kept.assert_moved()


@pytest.mark.parametrize("offset", [4, 16, 60])
def test_every_operation_takes_a_misaligned_tensor(offset: int) -> None:
    """TensorFlow would abort on a shared misaligned tensor, so nothing here may be shared."""
    x = misaligned(offset)
    for name, operation in OPERATIONS.items():
        t = tensor_bridge.to_tf(x)
        assert tf_data_address(t) % 64 == 0, name
        operation(t)


def test_sharing_is_symmetric_and_of_any_two_values() -> None:
    x = values()
    t, v = tensor_bridge.to_tf(x, copy=True), tf.Variable([1.0])
    y, z = tensor_bridge.to_torch(t), tensor_bridge.to_torch(v)
    for one, other in ((t, y), (v, z), (t, tf.identity(t)), (y, y.detach())):
        assert shares_memory(one, other)
        assert shares_memory(other, one)
    for one, other in ((t, x), (t, v), (y, z), (tf.zeros(0), torch.zeros(0))):
        assert not shares_memory(one, other)
        assert not shares_memory(other, one)
