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
    """What stayed allocated: bytes of malloc, and blocks of Python's allocator."""

    bytes: int
    blocks: int

    def assert_flat(self) -> None:
        """Other threads and caches that grow once are the slack."""
        assert self.bytes < 64 << 10, self
        assert self.blocks < 500, self


def allocated() -> int:
    """Bytes that malloc has handed out in this process."""
    info = _mallinfo2()
    return int(info.uordblks + info.hblkhd)


def growth(call: Callable[[], Any], times: int) -> Growth:
    """What `times` calls leave allocated, once everything that is made once is made."""
    for _ in range(100):
        call()
    gc.collect()
    before, blocks = allocated(), sys.getallocatedblocks()
    for _ in range(times):
        call()
    gc.collect()
    return Growth(allocated() - before, sys.getallocatedblocks() - blocks)


def growth_over(call: Callable[[], Any], alone: Callable[[], Any], times: int) -> Growth:
    """`growth`, without Python's objects where calls of TensorFlow alone leave some behind.

    TensorFlow 2.15 leaves two of every operation, and 2.16 with Python 3.12 some of every tape.
    """
    ours, own = growth(call, times), growth(alone, 500)
    return ours if own.blocks < 500 else Growth(ours.bytes, 0)
