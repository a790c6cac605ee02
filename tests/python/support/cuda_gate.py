"""Work on a CUDA stream that ends when the test says so, and what comes true after it."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class Gate:
    """Holds what is queued on a stream behind it until `open`."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        # glibc's sem_t has 32 bytes.
        self._semaphore = ctypes.create_string_buffer(32)
        self._libc.sem_init(self._semaphore, 0, 0)

    def close(self, stream: torch.cuda.Stream) -> None:
        """From here on the stream waits. A function of libc needs no GIL."""
        # Of torch's own runtime, whichever else the process has.
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
    """Whether the condition has come true by then."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()
