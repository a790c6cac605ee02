"""Tests that need a GPU which both frameworks see. TENSOR_BRIDGE_REQUIRE_CUDA=1 promises one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow as tf
import torch

REQUIRED = os.environ.get("TENSOR_BRIDGE_REQUIRE_CUDA") == "1"
HERE = Path(__file__).parent


def has_gpu() -> bool:
    return torch.cuda.is_available() and bool(tf.config.list_physical_devices("GPU"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder; skips them where there is no GPU and none was promised."""
    reason = None if REQUIRED or has_gpu() else "no GPU for both frameworks"
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def on_gpu() -> Iterator[None]:
    # TensorFlow would place everything on the CPU without a word.
    assert torch.cuda.is_available(), "torch sees no GPU"
    assert tf.config.list_physical_devices("GPU"), "TensorFlow sees no GPU"
    with tf.device("GPU:0"):
        yield
    torch.cuda.synchronize()
