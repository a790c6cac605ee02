"""What people see of a pass: statistics and the progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import needs
import pytest
import tensorflow as tf

import tensor_bridge
from tensor_bridge.data import Stats, TorchDataset, loader


def waits(seconds: float) -> tf.data.Dataset:
    def wait(i: Any) -> Any:
        time.sleep(seconds)
        return i

    return tf.data.Dataset.range(12).map(lambda i: tf.py_function(wait, [i], tf.int64))


def watched(made: Any, pause: Callable[[int], None]) -> tuple[Stats, float, float]:
    """The statistics of a pass, and how long this loop waited and did something else.

    What the loop measures around a call holds what is measured in it, however long a thread waits
    for its turn.
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


@pytest.mark.parametrize(
    "missing", [(), pytest.param(("tqdm", "tqdm.auto"), marks=needs.module("rich"))]
)
def test_progress(missing: Any, monkeypatch: Any, capfd: Any) -> None:
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    made = loader(tf.data.Dataset.range(7), progress=True)
    for _ in range(2):
        assert [int(i) for i in made] == list(range(7))
    for element in made:
        if element == 3:
            break
    shown = "".join(capfd.readouterr())
    assert "7/7" in shown
    assert "epoch 1" in shown
    assert "waits" in shown
    unknown = loader(tf.data.Dataset.range(4).filter(lambda i: i > 1), progress=True)
    assert len(list(unknown)) == 2


def test_progress_without_a_library_for_it(monkeypatch: Any) -> None:
    for name in ("tqdm", "tqdm.auto", "rich", "rich.progress"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(tensor_bridge.FrameworkError, match="pip install tqdm"):
        iter(loader(tf.data.Dataset.range(3), progress=True))
