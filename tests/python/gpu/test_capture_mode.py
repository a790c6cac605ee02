"""Conversions call CUDA in the capture mode "relaxed", and restore the thread's mode."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf
import torch

GLOBAL = 0


def capture_mode() -> int:
    """This thread's cudaStreamCaptureMode."""
    exchange = ctypes.CDLL("libc10_cuda.so").cudaThreadExchangeStreamCaptureMode
    mode = ctypes.c_int(GLOBAL)
    assert exchange(ctypes.byref(mode)) == 0
    found = mode.value
    assert exchange(ctypes.byref(mode)) == 0
    return found


WAYS: dict[str, Callable[[Any, tf.Tensor], object]] = {
    "shared": lambda interface, t: interface.to_torch(t) * 1,
    "written": lambda interface, t: interface.to_torch(t).add_(1),
    "copied": lambda interface, t: interface.to_torch(t, copy=True),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_thread_keeps_its_capture_mode(way: str, interface: Any) -> None:
    assert capture_mode() == GLOBAL
    WAYS[way](interface, tf.fill([16], 1.0))
    torch.cuda.synchronize()
    assert capture_mode() == GLOBAL
