"""Strings that are not there yet, that never come, and on many threads."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
import tensorflow as tf
from fresh import run_forked

import tensor_bridge

PENDING = """
import threading, time
from tensorflow.python.eager import context, executor
def slow():
    time.sleep(0.4)
    return tf.constant(["a", "b" * 30])
background = executor.new_executor(enable_async=True)
with context.executor_scope(background):
    t = tf.py_function(slow, [], tf.string)
"""


@pytest.mark.parametrize("call", ["to_torch(t)", "to_torch(t, strings='list')", "explain(t)"])
@pytest.mark.parametrize("door", ["tensor_bridge", "TensorBridge()"])
def test_a_pending_tensor_is_waited_for_without_the_gil(door: str, call: str) -> None:
    run_forked(
        f"""{PENDING}
start = time.perf_counter()
result = {door}.{call}
assert time.perf_counter() - start > 0.2
assert t.numpy().tolist() == [b"a", b"b" * 30]
if "explain" in {call!r}:
    assert (result.action, result.shape) == ("copied", (2,)), result
else:
    assert getattr(result, "tolist", lambda: result)() == [b"a", b"b" * 30], result
del result
assert testing.live_owners() == 0
""",
        timeout=20,
    ).check()


@pytest.mark.parametrize("door", ["tensor_bridge", "TensorBridge()"])
def test_a_producer_that_failed_is_an_error(door: str) -> None:
    run_forked(
        f"""
from tensorflow.python.eager import context, executor
background = executor.new_executor(enable_async=True)
with context.executor_scope(background):
    t = tf.io.read_file("/no/such/file")
for options in ({{}}, {{"strings": "list"}}):
    try:
        {door}.to_torch(t, **options)
        raise SystemExit("no error")
    except tensor_bridge.TensorFlowError as e:
        assert "/no/such/file" in str(e), e
assert {door}.explain(t).error is tensor_bridge.TensorFlowError
assert testing.live_owners() == 0
background.clear_error()
""",
        timeout=20,
    ).check()


def test_the_gil_is_released_for_large_tensors() -> None:
    t = tf.fill([2_000_000], "x" * 40)
    x = tensor_bridge.to_torch(t)
    running = threading.Event()

    def seen_running(call: Any) -> bool:
        """Whether this thread got its turn while the call was on."""
        running.clear()
        ended: list[Any] = []

        def work() -> None:
            running.set()
            ended.append(call())

        thread = threading.Thread(target=work)
        thread.start()
        running.wait()
        seen = not ended
        thread.join()
        return seen

    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)  # a thread that keeps the GIL keeps it to the end
    try:
        assert seen_running(lambda: tensor_bridge.to_torch(t))
        assert seen_running(lambda: tensor_bridge.to_tf(x))
    finally:
        sys.setswitchinterval(interval)


def test_threads_at_once() -> None:
    t = tf.strings.as_string(tf.range(10_000))
    results: list[Any] = []

    def work() -> None:
        for _ in range(20):
            x = tensor_bridge.to_torch(t)
            results.append(tensor_bridge.to_tf(x).numpy().tolist() == x.tolist())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 80
