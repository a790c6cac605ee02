"""Tests that need a GPU which both frameworks see. TENSOR_BRIDGE_REQUIRE_CUDA=1 promises one."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow as tf
import torch
from cuda_gate import wait_until

from tensor_bridge.testing import live_owners

REQUIRED = os.environ.get("TENSOR_BRIDGE_REQUIRE_CUDA") == "1"
HERE = Path(__file__).parent
_kept: int | None = None


def has_gpu() -> bool:
    return torch.cuda.is_available() and bool(tf.config.list_physical_devices("GPU"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder, and skips them if there is no GPU and none was promised."""
    reason = None if REQUIRED or has_gpu() else "no GPU for both frameworks"
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def nothing_held_back() -> Iterator[None]:
    """Waits until the memory that a test dropped is released, so that the next can count its own.

    A GPU's memory is released some time after it was dropped. This fixture is set up before
    `on_gpu` and torn down after it, because `on_gpu` synchronises with everything that may still
    read memory.
    """
    global _kept
    _kept = live_owners() if _kept is None else _kept
    yield
    if live_owners() > _kept:
        gc.collect()
        wait_until(lambda: live_owners() <= _kept)
    _kept = live_owners()  # more if a test failed


@pytest.fixture(autouse=True)
def on_gpu(nothing_held_back: None) -> Iterator[None]:
    # Otherwise TensorFlow would silently place everything on the CPU.
    assert torch.cuda.is_available(), "torch sees no GPU"
    assert tf.config.list_physical_devices("GPU"), "TensorFlow sees no GPU"
    with tf.device("GPU:0"):
        yield
    torch.cuda.synchronize()
