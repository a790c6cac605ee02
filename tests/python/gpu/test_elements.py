"""Elements of tf.data on a GPU: when their memory is released to TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf
import torch
from cuda_gate import assert_bounded, gated

from tensor_bridge.data import loader

COUNT = 1 << 16
LARGE = 128 << 20


def on_a_gpu(count: int, size: int) -> tf.data.Dataset:
    """Elements of `size` float32, each filled with its number."""
    made = tf.data.Dataset.range(count).map(lambda i: tf.fill([size], tf.cast(i, tf.float32)))
    return made.apply(tf.data.experimental.copy_to_device("/gpu:0"))


def test_a_copied_element_is_read_before_its_memory_is_used_anew() -> None:
    with gated(torch.cuda.current_stream()):
        copied = list(loader(on_a_gpu(8, COUNT), copy=True, prefetch=1))
    for i, x in enumerate(copied):
        assert x.is_cuda
        assert (x == i).all()


def test_what_dropped_elements_hold_back_is_bounded() -> None:
    def drop() -> Iterator[None]:
        for x in loader(on_a_gpu(24, LARGE // 4), prefetch=1):
            del x
            yield

    assert_bounded(drop, LARGE, ahead=1)
