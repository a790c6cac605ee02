"""Work on a CUDA stream that ends when the test says so, and waiting for conditions."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch

from tensor_bridge.testing import live_owners

BOUND = 1 << 30
"""Bytes that are held back at most for kernels that may still read them."""


class Gate:
    """Holds back the work queued after it on a stream, until `open`."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        # glibc's sem_t has 32 bytes.
        self._semaphore = ctypes.create_string_buffer(32)
        self._libc.sem_init(self._semaphore, 0, 0)

    def close(self, stream: torch.cuda.Stream) -> None:
        """From here on the stream waits. A function of libc needs no GIL."""
        # From torch's own runtime, even if the process has others.
        launch = ctypes.CDLL("libc10_cuda.so").cudaLaunchHostFunc
        function = ctypes.cast(self._libc.sem_wait, ctypes.c_void_p)
        assert launch(ctypes.c_void_p(stream.cuda_stream), function, self._semaphore) == 0

    def open(self) -> None:
        self._libc.sem_post(self._semaphore)


@contextmanager
def gated(stream: torch.cuda.Stream) -> Iterator[Gate]:
    """A gate on a stream, open after the block at the latest."""
    gate = Gate()
    gate.close(stream)
    try:
        yield gate
    finally:
        gate.open()
        stream.synchronize()


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    """Whether the condition comes true within that time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


def assert_bounded(drop: Callable[[], Iterable[object]], size: int, ahead: int = 0) -> None:
    """Asserts that at most `BOUND` bytes are held back while torch's stream is blocked.

    Args:
      drop: Makes and drops 24 tensors on the GPU, one for each value that it yields.
      size: Bytes of a tensor.
      ahead: Tensors that are made in advance.
    """
    before = live_owners()
    most = made = 0

    def work() -> None:
        nonlocal most, made
        for _ in drop():
            made += 1
            most = max(most, live_owners() - before)

    with gated(torch.cuda.current_stream()):
        worker = threading.Thread(target=work)
        begin = time.monotonic()
        worker.start()
        assert wait_until(lambda: made >= BOUND // size)
        # The stream is blocked, so there is no progress in the time that the first tensors took.
        assert not wait_until(lambda: made == 24, seconds=time.monotonic() - begin)
    worker.join()
    assert most <= BOUND // size + 1 + ahead
    assert wait_until(lambda: live_owners() == before)
