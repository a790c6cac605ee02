"""Input pipelines whose elements go to a GPU."""

from __future__ import annotations

import tensorflow as tf
import torch

from tensor_bridge.data import loader


def pipeline(count: int) -> tf.data.Dataset:
    with tf.device("CPU:0"):
        return tf.data.Dataset.range(count).map(
            lambda i: (tf.fill([100_000], i), tf.strings.as_string(i))
        )


def test_elements_arrive_in_order() -> None:
    seen = []
    for x, s in loader(pipeline(50), device="cuda"):
        assert x.is_cuda
        assert s.bytes.is_cuda
        seen.append(int(x.sum()) // 100_000)
        x.zero_()
    assert seen == list(range(50))


def test_a_busy_stream_gets_the_values_of_its_element() -> None:
    sums = []
    for x, _ in loader(pipeline(20), device="cuda"):
        torch.cuda._sleep(20_000_000)
        sums.append(x.sum())
        del x
    assert [int(s) // 100_000 for s in sums] == list(range(20))


def test_pinned_memory() -> None:
    with tf.device("CPU:0"):
        ds = tf.data.Dataset.from_tensors([1.0, 2.0])
    (pinned,) = loader(ds, pin_memory=True)
    assert pinned.is_pinned()
    assert pinned.tolist() == [1.0, 2.0]
