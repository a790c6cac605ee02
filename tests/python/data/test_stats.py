"""What users see of a pass: statistics, and tqdm's bar."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf
from tqdm import tqdm

from tensor_bridge.data import Stats, TorchDataset, loader


def waits(seconds: float) -> tf.data.Dataset:
    def wait(i: Any) -> Any:
        time.sleep(seconds)
        return i

    return tf.data.Dataset.range(12).map(lambda i: tf.py_function(wait, [i], tf.int64))


def watched(made: Any, pause: Callable[[int], None]) -> tuple[Stats, float, float]:
    """The statistics of a pass, and this loop's own times of waiting and of other work.

    A time that the loop measures around a call includes the time measured in the call, even if a
    thread waits for the processor.
    """
    elements, waited, computed = iter(made), 0.0, 0.0
    for i in range(12):
        begin = time.monotonic()
        next(elements)
        end = time.monotonic()
        waited += end - begin
        pause(i)
        computed += time.monotonic() - end
    begin = time.monotonic()
    assert next(elements, None) is None
    return made.stats(), waited + time.monotonic() - begin, computed


def test_a_slow_pipeline_starves_the_model() -> None:
    dataset = TorchDataset(waits(0.02), prefetch=0)
    assert dataset.stats() == Stats()
    stats, waited, computed = watched(dataset, lambda i: None)
    assert (stats.elements, stats.bytes, stats.failures) == (12, 96, 0)
    assert 12 * 0.02 <= stats.wait_seconds <= waited
    assert computed <= stats.compute_seconds <= waited + computed - stats.wait_seconds
    assert stats.make_seconds >= 12 * 0.02
    assert "12 elements" in str(stats)
    assert f"{stats.wait_share:.0%} of the time" in str(stats)


def test_a_slow_model_starves_the_pipeline() -> None:
    made = loader(tf.data.Dataset.range(12), prefetch=4)

    def pause(i: int) -> None:
        time.sleep(0.02)
        deadline = time.monotonic() + 60
        while i == 5 and made.stats().queued == 0 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert i != 5 or made.stats().queued > 0

    stats, waited, computed = watched(made, pause)
    assert stats.wait_seconds <= waited
    assert 12 * 0.02 <= computed <= stats.compute_seconds
    assert stats.wait_share == stats.wait_seconds / (stats.wait_seconds + stats.compute_seconds)
    assert 1 / stats.elements_per_second == pytest.approx(
        (stats.wait_seconds + stats.compute_seconds) / 12
    )


def test_tqdm_knows_the_length() -> None:
    made = loader(tf.data.Dataset.range(7))
    bar = tqdm(made, file=io.StringIO())
    assert [int(i) for i in bar] == list(range(7))
    assert (bar.n, bar.total) == (7, 7)
