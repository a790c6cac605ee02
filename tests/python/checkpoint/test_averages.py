"""Moving averages of TensorFlow 1 instead of the variables, compared with TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tensorflow as tf
import torch
from torch import nn

from tensor_bridge import CheckpointError, checkpoint

tf1 = tf.compat.v1


def save(prefix: Path, averaged: tuple[str, ...], with_variables: bool = True) -> str:
    """Saves three variables, some of them with an average of another value."""
    with tf.Graph().as_default(), tf1.Session() as session:
        made = {
            name: tf1.get_variable(name, initializer=tf.random.stateless_normal(shape, (1, seed)))
            for seed, (name, shape) in enumerate(
                {"dense/kernel": (3, 2), "dense/bias": (2,), "mean": (2,)}.items()
            )
        }
        averages = tf1.train.ExponentialMovingAverage(0.5)
        of = [made[name] for name in averaged]
        update = averages.apply(of) if of else tf.no_op()
        changes = [tf1.assign_add(variable, tf.ones(variable.shape)) for variable in made.values()]
        session.run(tf1.global_variables_initializer())
        session.run(changes)
        session.run(update)
        names = None if with_variables else averages.variables_to_restore(of)
        saved: str = tf1.train.Saver(names).save(session, str(prefix))
    return saved


def stored(prefix: str, name: str) -> torch.Tensor:
    return torch.from_numpy(tf.train.load_variable(prefix, name))


def test_an_average_takes_the_place_of_its_variable(tmp_path: Path) -> None:
    prefix = save(tmp_path / "model.ckpt", ("dense/kernel", "mean"))
    opened = checkpoint.load(prefix)
    averages = opened.averages
    assert sorted(averages) == sorted(opened) == ["dense/bias", "dense/kernel", "mean"]
    for name in ("dense/kernel", "mean"):
        right = stored(prefix, f"{name}/ExponentialMovingAverage")
        assert torch.equal(averages[name], right)
        assert torch.equal(opened.slots[f"{name}/ExponentialMovingAverage"], right)
        assert not torch.equal(opened[name], right)
    assert torch.equal(averages["dense/bias"], stored(prefix, "dense/bias"))


def test_averages_without_their_variables(tmp_path: Path) -> None:
    prefix = save(tmp_path / "model.ckpt", ("dense/kernel",), with_variables=False)
    opened = checkpoint.load(prefix)
    assert "dense/kernel/ExponentialMovingAverage" in opened
    assert "dense/kernel" in opened.averages
    assert "dense/kernel/ExponentialMovingAverage" not in opened.averages


def test_averages_are_loaded_into_a_module(tmp_path: Path) -> None:
    prefix = save(tmp_path / "model.ckpt", ("dense/kernel", "dense/bias"))
    module = nn.ModuleDict({"dense": nn.Linear(3, 2)})
    report = checkpoint.load_into(
        module, checkpoint.load(prefix).averages, rules=[("^mean$", None)]
    )
    assert report.complete
    right = stored(prefix, "dense/kernel/ExponentialMovingAverage").t()
    assert torch.equal(module.get_parameter("dense.weight"), right)


def test_averages_are_not_read_before_they_are_asked_for(tmp_path: Path) -> None:
    prefix = save(tmp_path / "model.ckpt", ("dense/kernel",))
    opened = checkpoint.load(prefix)
    os.truncate(f"{prefix}.data-00000-of-00001", 0)
    averages = opened.averages
    assert len(averages) == 3
    with pytest.raises(CheckpointError, match=r"data-00000-of-00001"):
        averages["dense/kernel"]


def test_a_checkpoint_without_averages_says_so(tmp_path: Path) -> None:
    opened = checkpoint.load(save(tmp_path / "model.ckpt", ()))
    expected = r"model\.ckpt: expected moving averages, .*got none; the variables are in"
    with pytest.raises(CheckpointError, match=expected):
        _ = opened.averages
