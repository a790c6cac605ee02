"""tf.IndexedSlices become sparse gradients in torch, and torch's become tf.IndexedSlices."""

from __future__ import annotations

from functools import partial
from typing import Any

import needs
import pytest
import refusals
import tensorflow as tf
import torch
from refusals import assert_refused
from sharing import owners
from tf_bytes import tf_memory

import tensor_bridge
from tensor_bridge.testing import (
    shares_memory,
    tf_data_address,
    torch_data_address,
)

assert_to_tf_refused = partial(refusals.assert_to_tf_refused, tensor_bridge)

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")


def slices(
    indices: Any = (2, 0, 2), shape: Any = (3, 2), dtype: tf.DType = tf.int64
) -> tf.IndexedSlices:
    count = len(indices)
    values = tf.reshape(tf.cast(tf.range(count * 2) + 1, tf.float32), (count, 2))
    return tf.IndexedSlices(
        values,
        tf.constant(indices, dtype) + 0,
        None if shape is None else tf.constant(shape, tf.int64),
    )


def test_a_sparse_gradient_over_both_tensors() -> None:
    s = slices()
    with owners() as added:
        x = tensor_bridge.to_torch(s)
        assert x.layout is torch.sparse_coo
        assert (x.sparse_dim(), x.dense_dim()) == (1, 1)
        assert x.shape == (3, 2)
        assert not x.is_coalesced()
        assert shares_memory(s.values, x._values())
        assert shares_memory(s.indices, x._indices())
        assert added() == 2
        again = tensor_bridge.to_tf(x)
        assert type(again) is tf.IndexedSlices
        for name in ("values", "indices", "dense_shape"):
            assert tf_memory(getattr(again, name)) == tf_memory(getattr(s, name)), name
        assert tf_data_address(again.values) == tf_data_address(s.values)
        assert tf_data_address(again.indices) == tf_data_address(s.indices)
        assert x.to_dense().tolist() == [[3.0, 4.0], [0.0, 0.0], [6.0, 8.0]]
        x._values().zero_()
        x._indices().zero_()
        assert tf_memory(s.values) == tf_memory(slices().values)
        assert tf_memory(s.indices) == tf_memory(slices().indices)
        del x


def test_a_gradient_of_an_embedding_trains_torchs() -> None:
    table = tf.Variable(tf.ones([5, 2]))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.gather(table, [1, 3, 1]) * 2)
    gradient = tape.gradient(loss, table)
    assert isinstance(gradient, tf.IndexedSlices)
    weight = torch.nn.Parameter(torch.ones(5, 2))
    weight.grad = tensor_bridge.to_torch(gradient)
    torch.optim.SGD([weight], lr=1.0).step()
    assert weight.tolist() == [[1, 1], [-3, -3], [1, 1], [-1, -1], [1, 1]]
    weight.grad = tensor_bridge.to_torch(gradient)
    torch.optim.SparseAdam([weight], lr=1.0).step()
    assert weight[0].tolist() == [1, 1]


def test_a_gradient_of_torch_trains_tensorflows() -> None:
    embedding = torch.nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1, 3, 1])).sum().backward()
    gradient = tensor_bridge.to_tf(embedding.weight.grad)
    assert type(gradient) is tf.IndexedSlices
    shared = torch_data_address(embedding.weight.grad._values())
    assert (tf_data_address(gradient.values) == shared) == needs.SHARES_TO_TF
    table = tf.Variable(tf.zeros([5, 2]))
    tf.keras.optimizers.SGD(1.0).apply_gradients([(gradient, table)])
    assert table.numpy().tolist() == [[0, 0], [-2, -2], [0, 0], [-1, -1], [0, 0]]


def test_int32_indices_are_widened_by_a_copy() -> None:
    s = slices(dtype=tf.int32)
    x = tensor_bridge.to_torch(s)
    assert x._indices().dtype is torch.int64
    assert x._indices().tolist() == [[2, 0, 2]]
    assert shares_memory(s.values, x._values())
    explanation = tensor_bridge.explain(s)
    parts = dict(explanation.parts)
    assert (parts["values"].action, parts["indices"].action) == ("shared", "copied")
    assert (parts["indices"].torch_dtype, parts["indices"].nbytes) == ("torch.int64", 24)
    assert_refused(tensor_bridge, s, tensor_bridge.CopyRequiredError, "int64", copy=False)
    assert tensor_bridge.to_torch(slices(), copy=False).shape == (3, 2)


def test_without_a_dense_shape_they_are_refused() -> None:
    assert_refused(
        tensor_bridge,
        slices(shape=None),
        tensor_bridge.UnsupportedTypeError,
        r"tf\.IndexedSlices\(s\.values, s\.indices, dense_shape\)",
    )


def test_what_does_not_fit_is_refused() -> None:
    out = tensor_bridge.ValueRangeError
    assert_refused(tensor_bridge, slices((0, 3)), out, "from 0 to 2 in dimension 0, got 3")
    assert_refused(tensor_bridge, slices((-1, 0)), out, "got -1")
    assert_refused(
        tensor_bridge,
        slices(shape=(3, 5)),
        tensor_bridge.MismatchError,
        r"expected values of shape \(count, 5\)",
    )
    strings = tf.IndexedSlices(tf.constant(["a"]), tf.constant([0], tf.int64), [1])
    assert_refused(tensor_bridge, strings, tensor_bridge.UnsupportedDtypeError, "sparse")
    x = torch.sparse_coo_tensor(
        torch.tensor([[0, 7]]), torch.ones(2, 2), (3, 2), check_invariants=False
    )
    assert_to_tf_refused(x, out, "got 7")


def test_lists_in_the_place_of_tensors() -> None:
    s = tf.IndexedSlices([[1.0, 2.0]], [1], [3, 2])
    assert tensor_bridge.to_torch(s).to_dense().tolist() == [[0, 0], [1, 2], [0, 0]]
    assert tensor_bridge.explain(s).shape == (3, 2)


def test_values_without_inner_dimensions_come_back_as_a_sparse_tensor() -> None:
    s = tf.IndexedSlices(tf.constant([1.0, 2.0]), tf.constant([0, 2], tf.int64), [3])
    x = tensor_bridge.to_torch(s)
    assert x.to_dense().tolist() == [1.0, 0.0, 2.0]
    assert isinstance(tensor_bridge.to_tf(x), tf.SparseTensor)


def test_keywords() -> None:
    s = slices()
    with owners():
        tensor_bridge.to_torch(s, copy=True)
    alias = tensor_bridge.to_torch(s, on_write="alias")
    alias._indices().zero_()
    assert s.indices.numpy().tolist() == [2, 0, 2]
    alias._values().zero_()
    assert tf.reduce_all(s.values == 0)
    x = torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1, 2), (3, 2), requires_grad=True)
    assert_to_tf_refused(x, tensor_bridge.InvalidOptionError, "detach", grad="raise")
    assert type(tensor_bridge.to_tf(x)) is tf.IndexedSlices


def test_slices_of_a_graph_are_refused() -> None:
    @tf.function(autograph=False)
    def traced(values: tf.Tensor) -> None:
        s = tf.IndexedSlices(values, tf.constant([0]), tf.constant([3, 2]))
        assert_refused(tensor_bridge, s, tensor_bridge.SymbolicTensorError, r"tf\.py_function")

    traced(tf.ones([1, 2]))
