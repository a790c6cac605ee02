"""Several recurrent layers of Keras in one torch module, compared with Keras."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import keras
import needs
import pytest
import tensorflow as tf
import torch
from torch import nn

import tensor_bridge
from tensor_bridge import checkpoint

pytestmark = [
    needs.keras_3,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:keras"),
    pytest.mark.filterwarnings("ignore:.*saving your model as an HDF5"),
]
KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "SimpleRNN": nn.RNN}


def with_random_weights(variables: list[Any]) -> None:
    for i, variable in enumerate(variables):
        variable.assign(tf.random.stateless_uniform(variable.shape, (i, 9), -0.9, 0.9))


def same(module: nn.Module, data: Any, expected: Any) -> None:
    with torch.no_grad():
        found = module(tensor_bridge.to_torch(data))[0]
    torch.testing.assert_close(found, tensor_bridge.to_torch(expected), rtol=1e-5, atol=1e-5)


@needs.module("tf_keras")
@pytest.mark.parametrize("kind", KINDS)
def test_cells_that_are_stacked_in_one_layer(tmp_path: Path, kind: str) -> None:
    import tf_keras

    cells = [getattr(tf_keras.layers, f"{kind}Cell")(3) for _ in range(3)]
    layer = tf_keras.layers.RNN(cells, return_sequences=True)
    data = tf.random.stateless_normal((2, 4, 3), (1, 1))
    layer(data)
    with_random_weights(layer.variables)
    prefix = tf.train.Checkpoint(part=layer).write(str(tmp_path / "ck"))
    module = KINDS[kind](3, 3, 3, batch_first=True)
    assert checkpoint.load_into(nn.ModuleDict({"part": module}), prefix).complete
    same(module, data, layer(data))


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".h5"])
@pytest.mark.parametrize("seed", range(3))
def test_layers_one_after_the_other(tmp_path: Path, suffix: str, seed: int) -> None:
    draw = random.Random(seed)
    kind, count, both = draw.choice(sorted(KINDS)), draw.choice([2, 3]), draw.random() < 0.5
    model = keras.Sequential([keras.Input((4, 3))])
    for i in range(count):
        layer = getattr(keras.layers, kind)(3, return_sequences=True, name=f"r{i}")
        model.add(keras.layers.Bidirectional(layer, name=f"r{i}") if both else layer)
    with_random_weights(model.variables)
    path = tmp_path / f"m{suffix}"
    model.save_weights(path) if "weights" in suffix else model.save(path)
    module = KINDS[kind](3, 3, count, batch_first=True, bidirectional=both)
    report = checkpoint.load_into(
        nn.ModuleDict({"rnn": module}), path, rules=[(r"^r(\d)/", r"rnn/l\1/")]
    )
    assert report.complete
    data = tf.random.stateless_normal((2, 4, 3), (1, 1))
    same(module, data, model(data))
