"""Tensors whose producer still runs or has failed: no deadlocks, and typed errors."""

from __future__ import annotations

import pytest
from fresh import run_forked
from gate import GATED

PENDING = """
import threading, time
from tensorflow.python.eager import context, executor
def slow():
    time.sleep(0.4)
    return tf.constant([1.0, 2.0, 3.0])
# Kept: its end waits for everything that it runs.
background = executor.new_executor(enable_async=True)
def enqueue(make):
    with context.executor_scope(background):
        return make()
def pending():
    return enqueue(lambda: tf.py_function(slow, [], tf.float32))
y = pending()
"""

INTERFACES = {"module": "tensor_bridge", "ctypes": "TensorBridge()"}


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("call", ["", ", copy=True", ', on_write="raise"', ", copy=False"])
def test_pending_py_function_is_waited_for_without_the_gil(interface: str, call: str) -> None:
    code = f"""
{GATED}
y = gated([1.0, 2.0, 3.0])
open_when_let_in()
x = {INTERFACES[interface]}.to_torch(y{call})
returned.set()
assert x.tolist() == [1, 2, 3]
x.add_(1) if "raise" not in {call!r} else None
assert y.numpy().tolist() == [1, 2, 3]
del x
assert testing.live_owners() == 0
"""
    run_forked(code).check()


@pytest.mark.parametrize("interface", INTERFACES)
def test_pending_tensor_is_explained_and_looked_at(interface: str) -> None:
    code = f"""
{PENDING}
e = {INTERFACES[interface]}.explain(y)
assert (e.action, e.shape, e.nbytes) == ("shared", (3,), 12), e
assert testing.tf_data_address(pending()) != 0
assert not testing.shares_memory(pending(), torch.zeros(3))
"""
    run_forked(code).check()


def test_operations_queued_behind_a_py_function() -> None:
    code = f"""
{PENDING}
z = enqueue(lambda: tf.reshape(y * 2 + 1, (3, 1)))
x = tensor_bridge.to_torch(z)
assert x.tolist() == [[3], [5], [7]]
assert testing.shares_memory(z, x)
"""
    run_forked(code).check()


@pytest.mark.parametrize("interface", INTERFACES)
def test_variable_behind_a_pending_assignment(interface: str) -> None:
    code = f"""
v = tf.Variable([0.0, 0.0, 0.0])
{PENDING}
def convert():
    v.assign(y)
    return {INTERFACES[interface]}.to_torch(v), {INTERFACES[interface]}.explain(v)
x, e = enqueue(convert)
assert x.tolist() == [1, 2, 3], x
assert e.action == "shared", e
"""
    run_forked(code).check()


def test_several_threads_wait_for_one_tensor() -> None:
    code = f"""
{PENDING}
results = []
def work():
    results.append(tensor_bridge.to_torch(y).tolist())
threads = [threading.Thread(target=work) for _ in range(6)]
[t.start() for t in threads]
[t.join() for t in threads]
assert results == [[1, 2, 3]] * 6, results
assert testing.live_owners() == 0
"""
    run_forked(code).check()


def test_caller_may_let_go_of_the_tensor_while_waiting() -> None:
    code = f"""
{PENDING}
box = [y]
del y
x = tensor_bridge.to_torch(box.pop())
assert x.tolist() == [1, 2, 3]
"""
    run_forked(code).check()


def test_dlpack_deadlocks() -> None:
    """TensorFlow waits with the GIL held. Delete this test when it no longer does."""
    code = f"{PENDING}\ntf.experimental.dlpack.to_dlpack(y)"
    assert run_forked(code, timeout=4).code == 124


FAILING = """
import time
from tensorflow.python.eager import context, executor
def bad():
    time.sleep(0.2)
    raise ValueError("the producer went wrong")
background = executor.new_executor(enable_async=True)
def enqueue(make):
    with context.executor_scope(background):
        return make()
"""

PRODUCERS = {
    "py_function": ("tf.py_function(bad, [], tf.float32)", "the producer went wrong"),
    "kernel": ("tf.linalg.inv(tf.zeros((2, 2)))", "not invertible"),
    "behind a failure": (
        "tf.negative(tf.py_function(bad, [], tf.float32))",
        "the producer went wrong",
    ),
}


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("producer", PRODUCERS)
def test_failed_producer_is_a_tensorflow_error(producer: str, interface: str) -> None:
    make, words = PRODUCERS[producer]
    code = f"""
{FAILING}
y = enqueue(lambda: {make})
for _ in range(2):
    try:
        {INTERFACES[interface]}.to_torch(y)
        raise SystemExit("no error")
    except tensor_bridge.TensorFlowError as e:
        assert isinstance(e, RuntimeError)
        assert {words!r} in str(e), e
    e = {INTERFACES[interface]}.explain(y)
    assert e.action == "refused" and e.error is tensor_bridge.TensorFlowError, e
    assert {words!r} in e.reason, e
    assert e.tf_dtype == "float32"
assert testing.live_owners() == 0
assert tensor_bridge.to_torch(tf.fill((2,), 1.5)).tolist() == [1.5, 1.5]
"""
    run_forked(code).check()
