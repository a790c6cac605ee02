"""Memory in use, counted by the allocators: exact, where a resident size only ever approximates.

glibc's malloc counts what TensorFlow, torch, and the library hold (`mallinfo2`); Python's own
allocator takes its arenas from `mmap` and counts its blocks itself.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from typing import Any, NamedTuple


class _Mallinfo2(ctypes.Structure):
    """`struct mallinfo2` of malloc.h, glibc 2.33 and later."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


_mallinfo2 = ctypes.CDLL(None).mallinfo2
_mallinfo2.restype = _Mallinfo2


class Growth(NamedTuple):
    """Memory that stayed allocated: bytes of malloc, and blocks of Python's allocator."""

    bytes: int
    blocks: int

    def assert_flat(self) -> None:
        """Asserts no growth, with slack for other threads and for caches that grow once."""
        assert self.bytes < 64 << 10, self
        assert self.blocks < 500, self


def allocated() -> int:
    """Bytes that malloc has handed out in this process."""
    info = _mallinfo2()
    return int(info.uordblks + info.hblkhd)


def python_blocks() -> int:
    """Blocks that Python's allocator has handed out, without garbage and names in caches.

    CPython's method cache keeps up to 4,096 names, and PyObject_GetAttrString, by which the
    frameworks look up theirs, makes a new one each time: 600 in 100,000 calls of torch's autograd.
    """
    gc.collect()
    sys._clear_type_cache()
    return sys.getallocatedblocks()


def growth(call: Callable[[], Any], times: int) -> Growth:
    """The memory that `times` calls leave allocated, after warming up one-time allocations."""
    for _ in range(100):
        call()
    blocks, before = python_blocks(), allocated()
    for _ in range(times):
        call()
    more = python_blocks() - blocks
    return Growth(allocated() - before, more)


def growth_over(call: Callable[[], Any], alone: Callable[[], Any], times: int) -> Growth:
    """`growth`, without the Python objects that calls of TensorFlow by itself leave behind.

    TensorFlow 2.15 leaves two of every operation, and 2.16 with Python 3.12 some of every tape.
    """
    ours, own = growth(call, times), growth(alone, 500)
    return ours if own.blocks < 500 else Growth(ours.bytes, 0)
