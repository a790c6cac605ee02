"""Graphs, frozen by TensorFlow or made node by node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2, tensor_pb2
from tensorflow.python.framework.convert_to_constants import (
    convert_variables_to_constants_v2,
)


def frozen_1() -> Any:
    """A graph of TensorFlow 1 with variables of both kinds, frozen."""
    tf1 = tf.compat.v1
    with tf.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder(tf.float32, (2, 4), name="x")
        kernel = tf1.get_variable("dense/kernel", (4, 3), use_resource=False)
        bias = tf1.get_variable(
            "dense/bias", (3,), use_resource=True, initializer=tf1.initializers.ones()
        )
        scale = tf1.get_variable(
            "scale", (), tf.int32, use_resource=False, initializer=tf1.initializers.constant(7)
        )
        y = tf.matmul(x, kernel) + bias
        y = tf.reshape(y * tf.cast(scale, tf.float32), (-1,))
        tf.identity(y, name="y")
        session.run(tf1.global_variables_initializer())
        return tf1.graph_util.convert_variables_to_constants(session, session.graph_def, ["y"])


def frozen_2(lower: bool) -> Any:
    """A tf.function with a branch, frozen; the branch is a function unless ``lower``."""
    root = tf.Module()
    root.table = tf.Variable(tf.random.normal((5, 3)))
    root.numbers = tf.Variable([1, 2, 3])

    def call(x: Any, i: Any) -> Any:
        y = tf.gather(root.table, i) + x
        y = tf.cond(tf.reduce_sum(x) > 0, lambda: y * [1.0, 2.0, 3.0], lambda: y - 4.0)
        return y, root.numbers + 1, tf.constant(["a", "b\xff"])

    function = tf.function(
        call, input_signature=[tf.TensorSpec((2, 3)), tf.TensorSpec((2,), tf.int64)]
    )
    frozen = convert_variables_to_constants_v2(
        function.get_concrete_function(), lower_control_flow=lower
    )
    return frozen.graph.as_graph_def()


def constants(graph: Any) -> dict[str, Any]:
    """The TensorProtos of a graph, by the names that they have in a checkpoint."""
    functions = [(f.signature.name + "/", f.node_def) for f in graph.library.function]
    return {
        prefix + node.name: node.attr["value"].tensor
        for prefix, nodes in [("", graph.node), *functions]
        for node in nodes
        if node.op == "Const"
    }


def tensor(dtype: int, shape: Sequence[int], **values: Any) -> Any:
    """A TensorProto with these fields, whatever they say."""
    proto = tensor_pb2.TensorProto(dtype=dtype)
    proto.tensor_shape.SetInParent()
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    for name, value in values.items():
        if isinstance(value, bytes):
            setattr(proto, name, value)
        else:
            getattr(proto, name).extend(value)
    return proto


def graph_of(**tensors: Any) -> Any:
    """A graph of constants."""
    graph = graph_pb2.GraphDef()
    for name, proto in tensors.items():
        node = graph.node.add(name=name, op="Const")
        node.attr["dtype"].type = proto.dtype
        node.attr["value"].tensor.CopyFrom(proto)
    return graph


def texts(tensor: Any) -> Any:
    """Strings of an eager tensor. NumPy's arrays of bytes would lose zeros at their end."""
    value = tensor.numpy()
    return value if isinstance(value, bytes) else value.tolist()


def write(folder: Path, message: Any, name: str = "graph.pb") -> Path:
    path = folder / name
    path.write_bytes(message if isinstance(message, bytes) else message.SerializeToString())
    return path
