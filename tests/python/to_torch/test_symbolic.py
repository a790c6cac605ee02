"""Graph tensors have no value: they are refused with advice, wherever they occur."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tensorflow as tf
from refusals import assert_refused

import tensor_bridge
from tensor_bridge.testing import shares_memory

ADVICE = r"tensor_bridge\.autograd\.torch_to_tf, or tf\.py_function"


class Probe:
    """Used in a graph-building function, it checks the refusal and records that it ran."""

    def __init__(self, interface: Any) -> None:
        self._interface = interface
        self.count = 0

    def __call__(self, t: Any, advice: str = ADVICE) -> Any:
        assert_refused(self._interface, t, tensor_bridge.SymbolicTensorError, advice)
        with pytest.raises(tensor_bridge.UnsupportedTypeError):  # the base class for callers
            self._interface.convert_tf_to_pytorch(t)
        self.count += 1
        return t


@pytest.fixture
def probe(interface: Any) -> Iterator[Probe]:
    probe = Probe(interface)
    yield probe
    assert probe.count, "the function was never traced"


def test_in_a_function(probe: Probe) -> None:
    @tf.function(autograph=False)
    def traced(t: tf.Tensor) -> tf.Tensor:
        return probe(t) + probe(t * 2) + probe(tf.constant(1.0))

    assert traced(tf.constant(1.0)).numpy() == 4.0


@pytest.mark.parametrize("dtype", [tf.float32, tf.string, tf.int32, tf.qint8], ids=str)
def test_of_any_dtype_and_unknown_shape(dtype: tf.DType, probe: Probe) -> None:
    @tf.function(autograph=False, input_signature=[tf.TensorSpec(None, dtype)])
    def traced(t: tf.Tensor) -> tf.Tensor:
        return tf.shape(probe(t))

    traced.get_concrete_function()


def test_under_autograph(probe: Probe) -> None:
    @tf.function
    def traced(t: tf.Tensor) -> tf.Tensor:
        if tf.reduce_sum(t) > 0:
            probe(t)
        return t

    traced(tf.constant([1.0]))


def test_in_a_compiled_function(probe: Probe) -> None:
    @tf.function(jit_compile=True, autograph=False)
    def traced(t: tf.Tensor) -> tf.Tensor:
        return probe(t) + 1

    traced(tf.constant([1.0]))


@pytest.mark.parametrize(
    "pipeline",
    [
        lambda dataset, f: dataset.map(f),
        lambda dataset, f: dataset.filter(lambda t: tf.equal(f(t), f(t))),
        lambda dataset, f: dataset.flat_map(lambda t: tf.data.Dataset.from_tensors(f(t))),
        lambda dataset, f: dataset.batch(2).map(f, num_parallel_calls=2),
    ],
)
def test_in_a_dataset(pipeline: Callable[..., Any], probe: Probe, interface: Any) -> None:
    dataset = pipeline(tf.data.Dataset.range(4), probe)
    # The elements are eager.
    for t in dataset:
        assert shares_memory(t, interface.to_torch(t))


def test_in_control_flow_and_vectorized_map(probe: Probe) -> None:
    @tf.function(autograph=False)
    def traced(t: tf.Tensor) -> tf.Tensor:
        return tf.while_loop(lambda i: i < 3, lambda i: [probe(i) + 1], [t])[0]

    traced(tf.constant(0))
    tf.vectorized_map(lambda t: probe(t) + 1, tf.constant([1.0, 2.0]))


def test_in_a_keras_layer(probe: Probe) -> None:
    class Layer(tf.keras.layers.Layer):
        def call(self, t: Any) -> Any:
            return probe(t, "has no value|no value yet")

    inputs = tf.keras.Input((2,))
    probe(inputs, "Call the model on data")
    outputs = Layer()(inputs)
    probe(outputs, "Call the model on data")
    model = tf.keras.Model(inputs, outputs)
    assert isinstance(model(inputs), type(inputs))


def test_in_a_graph_of_version_1(probe: Probe) -> None:
    with tf.Graph().as_default():
        placeholder = tf.compat.v1.placeholder(tf.float32, [None])
        probe(placeholder)
        constant = probe(tf.constant([1.0]))
    probe(placeholder)
    probe(constant)


def test_in_the_backward_graph(probe: Probe) -> None:
    @tf.custom_gradient
    def identity(t: tf.Tensor) -> Any:
        return tf.identity(t), lambda upstream: probe(upstream)

    @tf.function(autograph=False)
    def traced(t: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(t)
            y = identity(t)
        return tape.gradient(y, t)

    traced(tf.constant(1.0))


def test_options_do_not_matter(interface: Any) -> None:
    @tf.function(autograph=False)
    def traced(t: tf.Tensor) -> tf.Tensor:
        for options in ({"copy": True}, {"raw": True}, {"device": "cpu"}, {"on_write": "alias"}):
            assert_refused(interface, t, tensor_bridge.SymbolicTensorError, ADVICE, **options)
        return t

    traced(tf.constant(1.0))


def test_eager_tensors_convert_while_a_graph_is_built(interface: Any) -> None:
    outside = tf.constant([1.0, 2.0]) * 1
    seen: list[list[float]] = []

    @tf.function(autograph=False)
    def traced(t: tf.Tensor) -> tf.Tensor:
        x = interface.to_torch(outside)
        assert shares_memory(outside, x)
        seen.append(x.tolist())
        return t

    traced(tf.constant(1.0))
    assert seen == [[1.0, 2.0]]


def test_the_advice_helps(interface: Any) -> None:
    """py_function and running functions eagerly give tensors that can be converted."""
    seen: list[float] = []

    def body(t: tf.Tensor) -> None:
        seen.append(interface.to_torch(t).sum().item())

    @tf.function(autograph=False)
    def traced(t: tf.Tensor) -> tf.Tensor:
        tf.py_function(body, [t], [])
        return t * 2

    outside = traced(tf.constant([1.0, 2.0]))
    assert seen == [3.0]
    assert interface.to_torch(outside).tolist() == [2.0, 4.0]

    tf.config.run_functions_eagerly(True)
    try:
        tf.function(body)(tf.constant([3.0]))
    finally:
        tf.config.run_functions_eagerly(False)
    assert seen == [3.0, 3.0]


def test_the_output_of_a_keras_model_converts(interface: Any) -> None:
    inputs = tf.keras.Input((2,))
    model = tf.keras.Model(inputs, tf.keras.layers.Lambda(lambda t: t * 2)(inputs))
    y = model(tf.constant([[1.0, 2.0]]))
    x = interface.to_torch(y)
    assert shares_memory(y, x)
    assert x.tolist() == [[2.0, 4.0]]
