"""The GIL is released during a large copy: other Python threads make progress."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from sharing import from_bytes

LARGE = 1 << 28  # bytes; a copy takes much longer than the interpreter's switch interval


def progress_during(work: Callable[[], Any]) -> int:
    """How often another Python thread ran during `work`."""
    ticks: list[float] = []
    stop = threading.Event()
    running = threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks.append(time.perf_counter())
            running.set()
            time.sleep(0.0005)

    thread = threading.Thread(target=tick)
    thread.start()
    running.wait()
    start = time.perf_counter()
    result = work()
    end = time.perf_counter()
    stop.set()
    thread.join()
    del result
    margin = (end - start) / 10
    return sum(start + margin < t < end - margin for t in ticks)


def lets_others_run(work: Callable[[], Any]) -> bool:
    """Whether another thread ran during one of the calls within two minutes.

    On a busy machine it may not run during a single call.
    """
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if progress_during(work) >= 5:
            return True
    return False


@pytest.fixture(scope="module")
def large() -> tf.Tensor:
    return tf.zeros((LARGE // 4,)) + 0.0


def test_large_copy_lets_others_run(interface: Any, large: tf.Tensor) -> None:
    assert lets_others_run(lambda: interface.to_torch(large, copy=True))


@needs.dtype("int4")
def test_large_conversion_of_bytes_lets_others_run(interface: Any) -> None:
    int4 = from_bytes(bytes(1 << 27), (1 << 27,), tf.as_dtype("int4"))
    assert lets_others_run(lambda: interface.to_torch(int4))


def test_move_of_a_large_tensor_by_an_operator_lets_others_run(
    interface: Any, large: tf.Tensor
) -> None:
    assert lets_others_run(lambda: interface.to_torch(large)[0].add_(1))


def test_this_measurement_sees_a_held_gil(large: tf.Tensor) -> None:
    """Otherwise the tests above would prove nothing."""
    target = torch.empty(LARGE // 4)
    address = target.data_ptr()
    memset = ctypes.PyDLL(None).memset
    memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)

    def hold() -> None:
        for _ in range(3):
            memset(address, 1, LARGE)

    interval = sys.getswitchinterval()
    try:
        # The interpreter must not switch threads between the bytecodes of the loop above.
        sys.setswitchinterval(60)
        progress = progress_during(hold)
    finally:
        sys.setswitchinterval(interval)
    assert progress == 0
