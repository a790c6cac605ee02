"""Models of TensorFlow Lite, by TensorFlow's converter or made tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

MODES = ("float", "dynamic", "float16", "int8", "16x8")


def _net() -> tf.Module:
    """A convolution, a depthwise one and a product, with biases: per channel along several axes."""
    net = tf.Module()
    draw = np.random.default_rng(1).normal
    net.kernel = tf.Variable(draw(size=(3, 3, 2, 4)), dtype=tf.float32)
    net.bias = tf.Variable(draw(size=4), dtype=tf.float32)
    net.depthwise = tf.Variable(draw(size=(3, 3, 4, 1)), dtype=tf.float32)
    net.product = tf.Variable(draw(size=(64, 40)), dtype=tf.float32)

    def call(x: Any) -> Any:
        y = tf.nn.relu(tf.nn.conv2d(x, net.kernel, 1, "VALID") + net.bias)
        y = tf.nn.depthwise_conv2d(y, net.depthwise, [1] * 4, "VALID")
        return tf.reshape(y, (1, 64)) @ net.product

    net.call = tf.function(call, [tf.TensorSpec((1, 8, 8, 2))])
    return net


def converted(mode: str) -> bytes:
    """One small net as the converter writes it."""
    net = _net()
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [net.call.get_concrete_function()], net
    )
    if mode != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if mode == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if mode in ("int8", "16x8"):
        converter.representative_dataset = _examples
        ops = tf.lite.OpsSet
        converter.target_spec.supported_ops = [
            ops.TFLITE_BUILTINS_INT8
            if mode == "int8"
            else ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        ]
    data: bytes = converter.convert()
    return data


def _examples() -> Iterator[list[Any]]:
    random = np.random.default_rng(2)
    for _ in range(4):
        yield [random.normal(size=(1, 8, 8, 2)).astype(np.float32)]


def interpreter(data: bytes) -> Any:
    """TensorFlow Lite's own reader of a model."""
    made = tf.lite.Interpreter(
        model_content=data,
        experimental_op_resolver_type=(
            tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        ),
    )
    made.allocate_tensors()
    return made


@dataclass
class Drawn:
    """A tensor to be stored; ``data`` are its bytes in the file."""

    name: str
    type: int
    shape: Sequence[int]
    data: bytes
    scale: Sequence[float] = ()
    zero_point: Sequence[int] = ()
    axis: int = 0
    sparse: bool = False
    external: bool = False


def made(*subgraphs: Sequence[Drawn], behind: bool = False, names: Sequence[str] = ()) -> bytes:
    """A model with these tensors and no operators.

    ``behind``: the values are after the flatbuffer, as in models above 2 GB.
    """
    model = schema.ModelT()
    model.version = 3
    model.operatorCodes = []
    model.buffers = [schema.BufferT()]
    model.subgraphs = []
    for i, tensors in enumerate(subgraphs):
        subgraph = schema.SubGraphT()
        subgraph.name = names[i] if names else None
        subgraph.inputs, subgraph.outputs, subgraph.operators = [], [], []
        subgraph.tensors = [_tensor(drawn, model.buffers) for drawn in tensors]
        model.subgraphs.append(subgraph)
    if behind:
        return _behind(model)
    return packed(model)


def packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _behind(model: Any) -> bytes:
    stored = [buffer.data for buffer in model.buffers]
    for buffer in model.buffers:
        buffer.data, buffer.offset, buffer.size = None, int(buffer.data is not None), 1
    begin = -(-len(packed(model)) // 16) * 16 + 64
    at = begin
    for buffer, data in zip(model.buffers, stored, strict=True):
        if data is not None:
            buffer.offset, buffer.size = at, len(data)
            at += -(-len(data) // 16) * 16
    out = bytearray(packed(model).ljust(begin, b"\0"))
    for data in stored:
        if data is not None:
            out += bytes(data) + bytes(-len(data) % 16)
    return bytes(out)


def _tensor(drawn: Drawn, buffers: list[Any]) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.shape = drawn.name, drawn.type, list(drawn.shape)
    tensor.buffer = len(buffers)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(drawn.data, np.uint8)
    buffers.append(buffer)
    if drawn.scale:
        how = schema.QuantizationParametersT()
        how.scale, how.zeroPoint = list(drawn.scale), list(drawn.zero_point)
        how.quantizedDimension = drawn.axis
        tensor.quantization = how
    if drawn.sparse:
        tensor.sparsity = schema.SparsityParametersT()
    if drawn.external:
        tensor.externalBuffer, tensor.buffer = 1, 0
        buffers.pop()
    return tensor
