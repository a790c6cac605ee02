"""Nothing leaks, and sharing costs no memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from fresh import run_forked, run_python
from memory import growth
from sharing import from_bytes, numbers, owners

import tensor_bridge


def refused(convert: Callable[..., Any], value: Any, **options: Any) -> None:
    try:
        convert(value, **options)
    except tensor_bridge.TensorBridgeError:
        return
    raise AssertionError("not refused")


T = numbers()
SCALAR = tf.reshape(tf.range(1.0), ())
EMPTY = tf.zeros((0, 3))
VARIABLE = tf.Variable(numbers())
SCATTERED = tf.Variable(numbers())
SCATTERED.scatter_nd_update([[0, 0]], [7.0])
INT4 = from_bytes(bytes(range(16)), (16,), tf.as_dtype("int4")) if needs.has("int4") else None
QINT8 = from_bytes(bytes(range(16)), (2, 8), tf.as_dtype("qint8"))
RESOURCE = VARIABLE.handle

CASES: dict[str, Callable[[Any], Any]] = {
    "shared": lambda interface: interface.to_torch(T),
    "scalar": lambda interface: interface.to_torch(SCALAR),
    "empty": lambda interface: interface.to_torch(EMPTY),
    "new tensor": lambda interface: interface.to_torch(tf.reshape(T, (-1,))),
    "read": lambda interface: interface.to_torch(T).sum(),
    "written": lambda interface: interface.to_torch(T).add_(1),
    "resized": lambda interface: interface.to_torch(T).resize_(100),
    "view": lambda interface: interface.to_torch(T)[1].t(),
    "raise": lambda interface: interface.to_torch(T, on_write="raise"),
    "alias": lambda interface: interface.to_torch(T, on_write="alias"),
    "copy": lambda interface: interface.to_torch(T, copy=True),
    "device": lambda interface: interface.to_torch(T, device="cpu"),
    "looked up": lambda interface: interface.to_torch(INT4),
    "raw": lambda interface: interface.to_torch(INT4, raw=True),
    "per channel": lambda interface: interface.to_torch(
        QINT8, scale=[1, 2], zero_point=[0, 1], axis=0
    ),
    "variable": lambda interface: interface.to_torch(VARIABLE),
    "variable copied by TensorFlow": lambda interface: interface.to_torch(SCATTERED),
    "explained": lambda interface: interface.explain(T),
    "explained variable": lambda interface: interface.explain(VARIABLE),
    "explained refusal": lambda interface: interface.explain(RESOURCE),
    "refused dtype": lambda interface: refused(interface.to_torch, RESOURCE),
    "refused type": lambda interface: refused(interface.to_torch, [1]),
    "refused quantized": lambda interface: refused(interface.to_torch, QINT8),
    "refused scale": lambda interface: refused(
        interface.to_torch, QINT8, scale=float("nan"), zero_point=0
    ),
    "refused option": lambda interface: refused(interface.to_torch, T, on_write="never"),
    "refused copy": lambda interface: refused(interface.to_torch, INT4, copy=False),
    "refused device": lambda interface: refused(interface.to_torch, T, device="cuda"),
    "refused variable": lambda interface: refused(interface.to_torch, VARIABLE, on_write="alias"),
    "refused copy of a variable": lambda interface: refused(
        interface.to_torch, SCATTERED, copy=False
    ),
}


def failing_write(x: torch.Tensor) -> None:
    try:
        x.add_(1)
    except BufferError:
        return
    raise AssertionError("no error")


if INT4 is None:
    for each in ("looked up", "raw", "refused copy"):
        del CASES[each]

CASES["refused write"] = lambda interface: failing_write(interface.to_torch(T, on_write="raise"))

# A leak of one block per call is found easily, because memory is counted, not estimated.
TIMES = 2000


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_repetition_leaves_memory_and_owners_flat(name: str, interface: Any) -> None:
    gc.collect()
    with owners():
        growth(lambda: CASES[name](interface), TIMES).assert_flat()


def test_new_bridges_leave_memory_flat() -> None:
    growth(lambda: tensor_bridge.TensorBridge().to_torch(T), TIMES).assert_flat()


def test_this_measurement_sees_a_leak() -> None:
    kept: list[Any] = []
    shared = growth(lambda: kept.append(tensor_bridge.to_torch(T)), TIMES)
    assert shared.bytes > TIMES * 100
    assert shared.blocks >= TIMES
    copied = growth(lambda: kept.append(tensor_bridge.to_torch(T, copy=True)), TIMES)
    assert copied.bytes > TIMES * 196
    kept.clear()
    with pytest.raises(AssertionError):
        shared.assert_flat()


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["shared", "written", "variable", "refused dtype", "explained"])
def test_millions_of_repetitions_leave_memory_flat(name: str) -> None:
    with owners():
        times = 10_000_000 if name in ("shared", "written") else 1_000_000
        growth(lambda: CASES[name](tensor_bridge), times).assert_flat()


# In separate processes: after other tests the allocators have memory to reuse, and the resident
# size says nothing.

MEASURE = """
import ctypes, os
from pathlib import Path
from tensor_bridge.testing import live_owners, shares_memory
MIB = 1 << 20
trim = ctypes.CDLL(None).malloc_trim
def resident():
    trim(0)  # what is free goes back to the system
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
tensor_bridge.to_torch(tf.fill((MIB,), 0.0)).sum()
"""


def test_a_thousand_shared_tensors_of_4_mb_take_no_memory() -> None:
    run_forked(
        f"""{MEASURE}
sources = [tf.fill((MIB,), float(i)) for i in range(50)]
owners, before = live_owners(), resident()
shared = [tensor_bridge.to_torch(sources[i % 50]) for i in range(1000)]
assert all(shares_memory(sources[i % 50], x) for i, x in enumerate(shared))
assert [float(x[-1]) for x in shared[:50]] == list(range(50))
assert sum(x.sum() for x in shared[::10]) == sum(float(i % 50) * MIB for i in range(0, 1000, 10))
assert resident() - before < 8 * MIB, resident() - before
assert live_owners() == owners + 1000
# The measurement sees what a write costs, and that it is given back.
for x in shared[:16]:
    x.add_(1)
assert resident() - before > 60 * MIB, resident() - before
del shared, x
assert live_owners() == owners
assert resident() - before < 16 * MIB, resident() - before
"""
    ).check()


def test_dropping_the_last_shared_tensor_frees_tensorflows_buffer() -> None:
    # With oneDNN, which TensorFlow uses on some processors, its allocator keeps one such buffer for
    # later use.
    run_forked(
        f"""{MEASURE}
before = resident()
for i in range(8):
    x = tensor_bridge.to_torch(tf.fill((64 * MIB,), float(i)))
    assert 200 * MIB < resident() - before < 300 * MIB, (i, resident() - before)
    assert float(x[-1]) == i
    del x
assert resident() - before < 300 * MIB, resident() - before
"""
    ).check()


# Trained parameters without gradients, whose TensorFlow values are gone.
TRAINED = """
import ctypes, gc, os, sys
from pathlib import Path
import keras, tensorflow as tf, torch, tensor_bridge
from tensor_bridge.testing import live_owners

total = int(sys.argv[1]) << 20
WIDTH = 1024 if total < 1 << 28 else 4096  # weights of 4 or 64 MB

def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

def keras_model(count):
    layers = [keras.layers.Dense(WIDTH, use_bias=False) for _ in range(count)]
    model = keras.Sequential([keras.Input((WIDTH,)), *layers])
    return model, [tensor_bridge.to_torch(v) for v in model.trainable_variables]

def variables(count):
    made = [tf.Variable(tf.fill((WIDTH, WIDTH), float(i))) for i in range(count)]
    return made, tensor_bridge.to_torch(made)

def to_tf(count):
    made = [torch.full((WIDTH, WIDTH), float(i)) for i in range(count)]
    return tensor_bridge.to_tf(made), made

def copies(make, count, before):
    held, tensors = make(count)
    parameters = [torch.nn.Parameter(x) for x in tensors]
    expected = [x[0, :2] - 0.5 for x in tensors]
    del tensors
    for p in parameters:
        p.grad = torch.ones_like(p)
        torch.optim.SGD([p], lr=0.5).step()
        p.grad = None
    del held
    keras.backend.clear_session()
    gc.collect()
    found = [resident()]
    assert live_owners() == (0 if make is to_tf else count)
    assert tensor_bridge.release_previous(parameters) == count
    assert live_owners() == 0
    found.append(resident())
    assert all(torch.equal(p[0, :2], e) for p, e in zip(parameters, expected, strict=True))
    return [(bytes_ - before) / (4 * count * WIDTH * WIDTH) for bytes_ in found]

for make in (keras_model, variables, to_tf):
    copies(make, 2, 0)
    ctypes.CDLL(None).malloc_trim(0)  # what this first round left free is not to be used again
    print(make.__name__, *copies(make, total // (4 * WIDTH * WIDTH), resident()))
"""


@needs.torch_since(13, "what goes to TensorFlow is copied")
@pytest.mark.parametrize("mib", [128, pytest.param(1024, marks=pytest.mark.exhaustive)])
def test_trained_parameters_take_one_copy_once_the_previous_is_released(mib: int) -> None:
    # TensorFlow's allocator with oneDNN keeps all memory that its tensors release.
    out = run_python(TRAINED, str(mib), TF_ENABLE_ONEDNN_OPTS="0").check()
    assert len(out.splitlines()) == 3
    for line in out.splitlines():
        _, kept, released = line.split()
        assert float(kept) > 1.9, out
        assert float(released) < 1.05, out
