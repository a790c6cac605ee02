"""Keras variables convert like TensorFlow's; layers and models become their weights by path."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import keras
import needs
import pytest
import tensorflow as tf
import torch
from refusals import assert_refused
from sharing import owners

import tensor_bridge
from tensor_bridge import LiveView, assign
from tensor_bridge.testing import shares_memory

if not hasattr(keras, "Variable"):
    pytest.skip("Keras 2 has no variables of its own", allow_module_level=True)

from keras.src.backend.common.variables import AutocastScope

VALUES = [1.0, 2.0, 3.0, 4.0]


@pytest.fixture(autouse=True)
def fresh_names() -> None:
    keras.backend.clear_session()


def model() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )


# ---- variables -----------------------------------------------------------------------------------


def test_a_variable_is_a_snapshot() -> None:
    v = keras.Variable(VALUES)
    with owners() as added:
        x = tensor_bridge.to_torch(v)
        assert shares_memory(v.value, x)
        assert added() == 1
        assert tensor_bridge.explain(v).action == "shared"
        v.assign_add([1.0] * 4)
        assert x.tolist() == VALUES
        x.zero_()
        assert v.numpy().tolist() == [2.0, 3.0, 4.0, 5.0]
        assert not shares_memory(v.value, tensor_bridge.to_torch(v, copy=True))
        del x


def test_a_variable_can_be_live() -> None:
    v = keras.Variable(VALUES)
    view = tensor_bridge.to_torch(v, live=True)
    assert type(view) is LiveView
    view.tensor.mul_(2)
    assert v.numpy().tolist() == [2.0, 4.0, 6.0, 8.0]
    v.assign(VALUES)
    assert not view.valid
    assert view.refresh().tolist() == VALUES
    assert tensor_bridge.explain(v, live=True).on_write == "alias"


def test_a_variable_is_assigned() -> None:
    v = keras.Variable(VALUES)
    x = torch.zeros(4)
    assign(v, x)
    assert shares_memory(v.value, x) == needs.SHARES_TO_TF
    x.add_(1)
    assert v.numpy().tolist() == [0.0] * 4
    with pytest.raises(tensor_bridge.MismatchError, match="shape"):
        assign(v, torch.zeros(3))


def test_a_variable_that_is_not_initialised_is_refused() -> None:
    with keras.StatelessScope():
        v = keras.Variable(lambda shape, dtype: tf.zeros(shape, dtype), shape=(2,))
        assert_refused(
            tensor_bridge, v, tensor_bridge.UnsupportedTypeError, "build the layer or model first"
        )


def test_a_variable_under_autocast_gives_the_cast_value() -> None:
    v = keras.Variable(VALUES, autocast=True)
    with AutocastScope("bfloat16"):
        assert tensor_bridge.to_torch(v).dtype is torch.bfloat16
        assert_refused(
            tensor_bridge, v, tensor_bridge.InvalidOptionError, "convert it outside", live=True
        )
        with pytest.raises(tensor_bridge.UnsupportedTypeError):
            assign(v, torch.zeros(4))
    assert tensor_bridge.to_torch(v).dtype is torch.float32


def test_a_variable_inside_a_function_is_refused() -> None:
    v = keras.Variable(VALUES)

    @tf.function(autograph=False)
    def traced() -> None:
        assert_refused(tensor_bridge, v, tensor_bridge.SymbolicTensorError, r"tf\.py_function")

    traced()


def test_a_variable_in_a_structure() -> None:
    v = keras.Variable(VALUES)
    x = tensor_bridge.to_torch({"a": [v, 1]})
    assert x["a"][0].tolist() == VALUES
    assert x["a"][1] == 1


# ---- layers and models ---------------------------------------------------------------------------


def test_the_weights_of_a_model_by_path_in_order() -> None:
    m = model()
    with owners() as added:
        weights = tensor_bridge.to_torch(m)
        assert type(weights) is OrderedDict
        assert list(weights) == [w.path for w in m.weights]
        assert "sequential/batch_normalization/moving_mean" in weights
        for w, x in zip(m.weights, weights.values(), strict=True):
            assert shares_memory(w.value, x)
        explanation = tensor_bridge.explain(m)
        assert explanation.action == "shared"
        assert [name for name, _ in explanation.parts] == list(weights)
        assert explanation.nbytes == sum(x.nbytes for x in weights.values())
        for path in weights:
            assert f"\n  {path}: shared: " in str(explanation)
        assert added() == len(weights)
        del weights, x


def test_the_model_trains_on_and_torch_keeps_its_values() -> None:
    m = model()
    m.compile("sgd", "mse")
    weights = tensor_bridge.to_torch(m)
    kept = {path: x.clone() for path, x in weights.items()}
    m.fit(tf.ones([8, 3]), tf.zeros([8, 1]), epochs=1, verbose=0)
    for path, x in weights.items():
        assert torch.equal(x, kept[path])
        x.zero_()
    assert float(tf.reduce_sum(tf.abs(m.weights[0].value))) > 0


def test_a_layer_alone_and_one_without_weights() -> None:
    layer = keras.layers.Dense(2, name="alone")
    assert_refused(tensor_bridge, layer, tensor_bridge.UnsupportedTypeError, "not built yet")
    layer.build((None, 3))
    assert list(tensor_bridge.to_torch(layer)) == ["alone/kernel", "alone/bias"]
    activation = keras.layers.Activation("relu")
    activation.build((None, 3))
    assert tensor_bridge.to_torch(activation) == {}
    assert tensor_bridge.explain(activation).nbytes == 0


def test_two_weights_of_one_path_are_refused() -> None:
    class Twice(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.a = self.add_weight(shape=(1,), name="w")
            self.b = self.add_weight(shape=(1,), name="w")

    layer = Twice(name="twice")
    layer.build((1,))
    assert_refused(tensor_bridge, layer, tensor_bridge.UnsupportedTypeError, r"layer\.weights")
    assert len(tensor_bridge.to_torch(layer.weights)) == 2


def test_keywords_reach_every_weight() -> None:
    m = model()
    copied = tensor_bridge.to_torch(m, copy=True)
    for w, x in zip(m.weights, copied.values(), strict=True):
        assert not shares_memory(w.value, x)
    assert tensor_bridge.explain(m, copy=True).action == "copied"
    m.weights[1].value.scatter_nd_update([[0]], [1.0])
    assert_refused(
        tensor_bridge, m, tensor_bridge.CopyRequiredError, "^sequential/dense/bias: ", copy=False
    )


def test_a_live_model() -> None:
    m = model()
    with owners() as added:
        views = tensor_bridge.to_torch(m, live=True)
        with torch.no_grad():
            for view in views.values():
                view.tensor.fill_(0.5)
        for w in m.weights:
            assert tf.reduce_all(w.value == 0.5)
        assert added() == len(views)
        del views, view


# ---- to TensorFlow ------------------------------------------------------------------------------


def test_weights_are_assigned_by_path() -> None:
    m, other = model(), model()
    assert [w.path for w in other.weights] != [w.path for w in m.weights]
    weights = {
        w.path: x for w, x in zip(m.weights, tensor_bridge.to_torch(other).values(), strict=True)
    }
    assign(m, weights)
    for w, o in zip(m.weights, other.weights, strict=True):
        assert tf.reduce_all(w.value == o.value)
    for x in weights.values():
        x.zero_()
    assert float(tf.reduce_sum(tf.abs(m.weights[0].value))) > 0
    assert tf.reduce_all(m.weights[0].value == other.weights[0].value)


def test_nothing_is_assigned_unless_everything_fits() -> None:
    m = model()
    kept = {path: x.clone() for path, x in tensor_bridge.to_torch(m).items()}
    zeros = {path: torch.zeros_like(x) for path, x in kept.items()}
    last = list(zeros)[-1]
    mismatch = tensor_bridge.MismatchError
    for changed, error, message in (
        ({last: torch.zeros(7)}, mismatch, f"^{last}: expected shape"),
        ({"other": torch.zeros(1)}, mismatch, "missing: none; unexpected: other"),
        ({last: None}, tensor_bridge.UnsupportedTypeError, f"^{last}: expected a torch"),
    ):
        with pytest.raises(error, match=message):
            assign(m, zeros | changed)
    del zeros[last]
    with pytest.raises(mismatch, match=f"missing: {last}; unexpected: none"):
        assign(m, zeros)
    for path, x in tensor_bridge.to_torch(m).items():
        assert torch.equal(x, kept[path])


def test_a_structure_of_weights_goes_to_tensorflow() -> None:
    m = model()
    again = tensor_bridge.to_tf(tensor_bridge.to_torch(m))
    assert type(again) is OrderedDict
    for w, t in zip(m.weights, again.values(), strict=True):
        assert tf.reduce_all(w.value == t)
