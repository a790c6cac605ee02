"""Fixtures of the tests that need the rig itself. `make emulated-gpu` runs them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

if "CUDA_EMU_LIB" not in os.environ:
    raise pytest.UsageError("these tests run on the emulated device only: make emulated-gpu")

import tensorflow as tf
import torch


@pytest.fixture(autouse=True)
def on_device() -> Iterator[None]:
    """Puts TensorFlow's tensors on the device. Nothing is queued when the next test begins."""
    with tf.device("GPU:0"):
        yield
    torch.cuda.synchronize()
