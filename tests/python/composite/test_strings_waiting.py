"""Strings that are not computed yet, strings that never are, and many threads."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import pytest
import tensorflow as tf
from fresh import run_forked
from gate import GATED
from sharing import in_threads

import tensor_bridge


@pytest.mark.parametrize("call", ["to_torch(t)", "to_torch(t, strings='list')", "explain(t)"])
@pytest.mark.parametrize("interface", ["tensor_bridge", "TensorBridge()"])
def test_a_pending_tensor_is_waited_for_without_the_gil(interface: str, call: str) -> None:
    run_forked(
        f"""{GATED}
t = gated(["a", "b" * 30])
open_when_let_in()
result = {interface}.{call}
returned.set()
assert t.numpy().tolist() == [b"a", b"b" * 30]
if "explain" in {call!r}:
    assert (result.action, result.shape) == ("copied", (2,)), result
else:
    assert getattr(result, "tolist", lambda: result)() == [b"a", b"b" * 30], result
del result
assert testing.live_owners() == 0
"""
    ).check()


@pytest.mark.parametrize("interface", ["tensor_bridge", "TensorBridge()"])
def test_a_producer_that_failed_is_an_error(interface: str) -> None:
    run_forked(
        f"""
from tensorflow.python.eager import context, executor
background = executor.new_executor(enable_async=True)
with context.executor_scope(background):
    t = tf.io.read_file("/no/such/file")
for options in ({{}}, {{"strings": "list"}}):
    try:
        {interface}.to_torch(t, **options)
        raise SystemExit("no error")
    except tensor_bridge.TensorFlowError as e:
        assert "/no/such/file" in str(e), e
assert {interface}.explain(t).error is tensor_bridge.TensorFlowError
assert testing.live_owners() == 0
background.clear_error()
"""
    ).check()


def test_the_gil_is_released_for_large_tensors() -> None:
    t = tf.fill([2_000_000], "x" * 40)
    x = tensor_bridge.to_torch(t)
    running = threading.Event()

    def seen_running(call: Any) -> bool:
        """Whether this thread could run during the call."""
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
    sys.setswitchinterval(60)  # a thread that does not release the GIL keeps it to the end
    try:
        for call in (lambda: tensor_bridge.to_torch(t), lambda: tensor_bridge.to_tf(x)):
            # On a busy machine this thread may run too late.
            end = time.monotonic() + 120
            while not (seen := seen_running(call)) and time.monotonic() < end:
                pass
            assert seen
    finally:
        sys.setswitchinterval(interval)


def test_threads_at_once() -> None:
    t = tf.strings.as_string(tf.range(10_000))

    def work() -> None:
        for _ in range(20):
            x = tensor_bridge.to_torch(t)
            assert tensor_bridge.to_tf(x).numpy().tolist() == x.tolist()

    in_threads(*[work] * 4, timeout=240)
