"""Elements of tf.data that lie on a GPU: when their memory goes back to TensorFlow."""

from __future__ import annotations

import threading
import time

import tensorflow as tf
import torch
from cuda_gate import gated, wait_until

from tensor_bridge.data import loader
from tensor_bridge.testing import live_owners

COUNT = 1 << 16
LARGE = 128 << 20
BOUND = 1 << 30  # What is held back at most, in bytes.


def on_a_gpu(count: int, size: int) -> tf.data.Dataset:
    """Elements of so many float32, each full of its number."""
    made = tf.data.Dataset.range(count).map(lambda i: tf.fill([size], tf.cast(i, tf.float32)))
    return made.apply(tf.data.experimental.copy_to_device("/gpu:0"))


def test_a_copied_element_is_read_before_its_memory_is_used_anew() -> None:
    with gated(torch.cuda.current_stream()):
        copied = list(loader(on_a_gpu(8, COUNT), copy=True, prefetch=1))
    for i, x in enumerate(copied):
        assert x.is_cuda
        assert (x == i).all()


def test_what_dropped_elements_hold_back_is_bounded() -> None:
    before = live_owners()
    most = made = 0

    def iterate() -> None:
        nonlocal most, made
        for x in loader(on_a_gpu(24, LARGE // 4), prefetch=1):
            del x
            made += 1
            most = max(most, live_owners() - before)

    with gated(torch.cuda.current_stream()):
        worker = threading.Thread(target=iterate)
        begin = time.monotonic()
        worker.start()
        assert wait_until(lambda: made >= BOUND // LARGE)
        # The stream stands still, so it gets no further, in as much time as the first ones took.
        assert not wait_until(lambda: made == 24, seconds=time.monotonic() - begin)
    worker.join()
    assert most <= BOUND // LARGE + 2  # One is made ahead.
    assert wait_until(lambda: live_owners() == before)
