"""Conversion of elements: values, memory, structure, and refused elements."""

from __future__ import annotations

import collections
import gc
from typing import Any, NamedTuple

import needs
import pytest
import tensorflow as tf
import torch
from sharing import owners

import tensor_bridge
from tensor_bridge.data import TorchDataset
from tensor_bridge.testing import tf_data_address, torch_data_address

PREFETCH = pytest.mark.parametrize("prefetch", [0, 1, 4])


@PREFETCH
def test_elements_share_tensorflows_memory_and_protect_it(prefetch: int) -> None:
    t = tf.reshape(tf.range(12, dtype=tf.float32) + 0, (3, 4))
    with owners():
        elements = iter(TorchDataset(tf.data.Dataset.from_tensors(t).repeat(3), prefetch=prefetch))
        x, y = next(elements), next(elements)
        assert torch_data_address(x) == torch_data_address(y) == tf_data_address(t)
        x.add_(100)
        assert torch_data_address(x) != tf_data_address(t)
        assert tf_data_address(t) == torch_data_address(y)
        assert t[0, 1].numpy() == 1
        assert y[0, 1] == 1
        assert next(elements)[0, 1] == 1
        del x, y, elements
        gc.collect()


@pytest.mark.parametrize("row", [r for r in needs.rows() if r.tf_enum], ids=str)
def test_each_dtype_is_what_a_conversion_makes_of_it(row: Any) -> None:
    dtype = tf.as_dtype(row.tf_enum)
    if not row.itemsize:
        pytest.skip("no memory")
    data = bytes([1, 0, 1, 1]) * row.itemsize
    proto = tf.compat.v1.make_tensor_proto([0], tf.int8)
    proto.dtype = row.tf_enum
    proto.tensor_content = data
    proto.tensor_shape.dim[0].size = 4
    t = tf.io.parse_tensor(proto.SerializeToString(), dtype)
    ds = tf.data.Dataset.from_tensors({"t": t})
    try:
        iter(ds)
    except tf.errors.OpError as e:  # float8_e5m2 in 2.21
        with pytest.raises(tensor_bridge.TensorFlowError, match="could not begin"):
            iter(TorchDataset(ds))
        pytest.skip(f"TensorFlow itself: {e.message.splitlines()[0]}")
    for options in ({}, {"raw": True}):
        try:
            expected = tensor_bridge.to_torch(t, **options)
        except tensor_bridge.TensorBridgeError as e:
            with pytest.raises(type(e), match="element 0"):
                next(iter(TorchDataset(ds, **options)))
            continue
        (element,) = TorchDataset(ds, **options)
        assert element["t"].dtype == expected.dtype
        assert element["t"].view(torch.uint8).tolist() == expected.view(torch.uint8).tolist()


class Point(NamedTuple):
    x: Any
    y: Any


@PREFETCH
def test_structure_is_kept(prefetch: int) -> None:
    def element(i: Any) -> Any:
        ordered = collections.OrderedDict([("z", i), ("a", i + 1)])
        return {"b": (i, (i * 2,)), "a": Point(i + 3, {"k": i + 4}), "o": ordered, "n": None}

    ds = tf.data.Dataset.range(1, 3).map(element)
    first, second = TorchDataset(ds, prefetch=prefetch)
    assert list(first) == ["b", "a", "o", "n"]
    assert first["b"] == (1, (2,))
    assert type(first["a"]) is Point
    assert first["a"] == Point(4, {"k": 5})
    assert type(first["o"]) is collections.OrderedDict
    assert list(first["o"].items()) == [("z", 1), ("a", 2)]
    assert first["n"] is None
    assert second["a"].y["k"] == 6
    assert all(type(leaf) is torch.Tensor for leaf in (first["b"][0], first["a"].x))


def test_elements_without_dimensions_and_without_elements() -> None:
    ds = tf.data.Dataset.from_tensors((tf.constant(3), tf.zeros((0, 2)), tf.zeros((1,) * 8)))
    ((scalar, empty, deep),) = TorchDataset(ds)
    assert scalar.shape == ()
    assert empty.shape == (0, 2)
    assert deep.shape == (1,) * 8


COMPOSITE = tf.data.Dataset.range(4).map(
    lambda i: {
        "words": tf.strings.as_string([[i, i + 10]]),
        "word": tf.strings.as_string(i),
        "ragged": tf.ragged.range(tf.stack([i, i + 1])),
        "deep": tf.RaggedTensor.from_nested_row_splits(
            tf.range(i), [tf.constant([0, 1], tf.int64), tf.stack([0, i])]
        ),
        "text": tf.RaggedTensor.from_row_lengths(tf.strings.as_string(tf.range(i)), [i]),
        "sparse": tf.sparse.from_dense(tf.stack([[i, 0], [0, i]])),
    }
)


@PREFETCH
def test_strings_ragged_and_sparse_values_are_composites(prefetch: int) -> None:
    elements = list(TorchDataset(COMPOSITE, prefetch=prefetch))
    assert len(elements) == 4
    for i, (element, t) in enumerate(zip(elements, COMPOSITE, strict=True)):
        assert element["words"].tolist() == [[str(i).encode(), str(i + 10).encode()]]
        assert element["word"].item() == str(i).encode()
        assert element["word"].shape == ()
        rows = [row.tolist() for row in element["ragged"].unbind()]
        assert element["ragged"].layout is torch.jagged
        assert rows == [list(range(i)), list(range(i + 1))]
        assert type(element["deep"]) is tensor_bridge.Ragged
        assert element["deep"].to_list() == t["deep"].to_list()
        assert element["text"].to_list() == t["text"].to_list()
        assert element["sparse"].layout is torch.sparse_coo
        assert element["sparse"].to_dense().tolist() == [[i, 0], [0, i]]


def test_strings_as_lists() -> None:
    element = next(iter(TorchDataset(COMPOSITE.skip(2), strings="list")))
    assert element["words"] == [[b"2", b"12"]]
    assert element["word"] == b"2"
    assert element["text"] == [[b"0", b"1"]]


def test_batched_ragged_and_sparse_values() -> None:
    ds = COMPOSITE.map(lambda e: (e["ragged"], e["sparse"])).batch(2)
    for (ragged, sparse), (t, s) in zip(TorchDataset(ds), ds, strict=True):
        assert ragged.to_list() == t.to_list()
        assert sparse.to_dense().tolist() == tf.sparse.to_dense(s).numpy().tolist()


def test_uniform_dimensions_of_ragged_values_stay_uniform() -> None:
    t = tf.RaggedTensor.from_uniform_row_length(tf.ragged.constant([[1], [2, 3], [], [4]]), 2)
    (element,) = TorchDataset(tf.data.Dataset.from_tensors(t))
    assert element.uniform_row_lengths == tensor_bridge.to_torch(t).uniform_row_lengths == (2, None)
    assert element.to_list() == t.to_list()


def test_optionals_are_values_or_none() -> None:
    def optional(i: Any) -> Any:
        some = tf.experimental.Optional.from_value({"v": i})
        return tf.cond(i % 2 == 0, lambda: some, lambda: tf.experimental.Optional.empty(spec))

    spec = {"v": tf.TensorSpec([], tf.int64)}
    elements = list(TorchDataset(tf.data.Dataset.range(3).map(lambda i: (i, optional(i)))))
    assert elements == [(0, {"v": 0}), (1, None), (2, {"v": 2})]


def test_datasets_inside_elements_are_datasets() -> None:
    ds = tf.data.Dataset.range(7).window(3)
    inner = [list(part) for part in TorchDataset(ds)]
    assert inner == [[0, 1, 2], [3, 4, 5], [6]]
    assert all(isinstance(part, TorchDataset) for part in TorchDataset(ds))


def test_extension_types_are_what_a_conversion_makes_of_them() -> None:
    class Pair(tf.experimental.BatchableExtensionType):
        a: tf.Tensor
        b: tf.Tensor

    ds = tf.data.Dataset.from_tensors(Pair(tf.constant([1]), tf.constant([2.0])))
    (element,) = TorchDataset(ds)
    assert type(element) is type(tensor_bridge.to_torch(Pair(tf.constant([1]), tf.constant([2.0]))))


def test_copies_and_refused_writes() -> None:
    t = tf.random.uniform((8,))
    ds = tf.data.Dataset.from_tensors(t)
    (copy,) = TorchDataset(ds, copy=True)
    assert torch_data_address(copy) != tf_data_address(t)
    (strict,) = TorchDataset(ds, on_write="raise")
    with needs.forbidden_write():
        strict.zero_()
    with pytest.raises(tensor_bridge.CopyRequiredError, match="element 0"):
        next(iter(TorchDataset(tf.data.Dataset.from_tensors(tf.constant("a")), copy=False)))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"strings": "str"}, tensor_bridge.InvalidOptionError),
        ({"prefetch": -1}, tensor_bridge.InvalidOptionError),
        ({"prefetch": 1.5}, tensor_bridge.InvalidOptionError),
        ({"resume": "maybe"}, tensor_bridge.InvalidOptionError),
        ({"on_error": "ignore"}, tensor_bridge.InvalidOptionError),
        ({"rank": 1}, tensor_bridge.InvalidOptionError),
        ({"rank": 2, "world_size": 2}, tensor_bridge.InvalidOptionError),
        ({"shard": "rows", "rank": 0, "world_size": 2}, tensor_bridge.InvalidOptionError),
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_refused(options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        TorchDataset(tf.data.Dataset.range(3), **options)


def test_what_is_no_dataset_is_refused() -> None:
    for value in (3, [1, 2], torch.zeros(3), None):
        with pytest.raises(tensor_bridge.UnsupportedTypeError, match=r"expected a tf\.data"):
            TorchDataset(value)
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="function to return"):
        TorchDataset(lambda epoch: [epoch])


def test_sparse_strings_are_refused_with_their_place() -> None:
    sparse = tf.SparseTensor([[0]], ["a"], [1])
    with pytest.raises(tensor_bridge.UnsupportedDtypeError, match=r"at \['s'\]: .*to_dense"):
        TorchDataset(tf.data.Dataset.from_tensors({"s": sparse}))
