"""What people see of a pass: statistics and the progress bar."""

from __future__ import annotations

import sys
import time
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


def test_a_slow_pipeline_starves_the_model() -> None:
    dataset = TorchDataset(waits(0.02))
    assert dataset.stats() == Stats()
    assert len(list(dataset)) == 12
    stats = dataset.stats()
    assert (stats.elements, stats.bytes, stats.failures) == (12, 96, 0)
    assert stats.wait_seconds > 0.15 > stats.compute_seconds
    assert stats.make_seconds > 0.2
    assert stats.wait_share > 0.8
    assert "12 elements" in str(stats)
    assert f"{stats.wait_share:.0%} of the time" in str(stats)


def test_a_slow_model_starves_the_pipeline() -> None:
    made = loader(tf.data.Dataset.range(12), prefetch=4)
    for i, _ in enumerate(made):
        time.sleep(0.02)
        if i == 5:
            assert made.stats().queued > 0
    stats = made.stats()
    assert stats.compute_seconds > 0.2 > stats.wait_seconds
    assert stats.wait_share < 0.2
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
