"""Keras 2 under its present name tf_keras, whose variables are TensorFlow's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tensorflow as tf
import torch
from refusals import assert_refused

import tensor_bridge
from tensor_bridge.testing import shares_memory

tf_keras = pytest.importorskip("tf_keras")


@pytest.fixture(params=["float32", "mixed_bfloat16"], autouse=True)
def policy(request: pytest.FixtureRequest) -> Iterator[None]:
    tf_keras.backend.clear_session()
    tf_keras.mixed_precision.set_global_policy(request.param)
    yield
    tf_keras.mixed_precision.set_global_policy("float32")


def model() -> Any:
    layers = [tf_keras.Input((3,)), tf_keras.layers.Dense(2), tf_keras.layers.BatchNormalization()]
    return tf_keras.Sequential(layers)


def test_the_weights_of_a_model_by_path() -> None:
    m = model()
    weights = tensor_bridge.to_torch(m)
    assert list(weights) == [
        "dense/kernel",
        "dense/bias",
        "batch_normalization/gamma",
        "batch_normalization/beta",
        "batch_normalization/moving_mean",
        "batch_normalization/moving_variance",
    ]
    for w, x in zip(m.weights, weights.values(), strict=True):
        assert x.dtype is torch.float32
        assert shares_memory(w, x)
    assert tensor_bridge.explain(m).action == "shared"


def test_variables_are_live_and_assigned() -> None:
    m = model()
    kernel = m.layers[0].kernel
    view = tensor_bridge.to_torch(kernel, live=True)
    view.tensor.fill_(2)
    assert tf.reduce_all(kernel == 2)
    tensor_bridge.assign(kernel, torch.ones(3, 2))
    assert not view.valid
    assert tf.reduce_all(kernel == 1)
    tensor_bridge.assign(m, {k: x * 0 for k, x in tensor_bridge.to_torch(m).items()})
    assert not any(w.numpy().any() for w in m.weights)


def test_a_layer_that_is_not_built_is_refused() -> None:
    layer = tf_keras.layers.Dense(2)
    assert_refused(tensor_bridge, layer, tensor_bridge.UnsupportedTypeError, "not built yet")
