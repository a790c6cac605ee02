"""TensorArray, Optional and ExtensionType in torch's natural forms."""

from __future__ import annotations

import copy
import pickle
import typing
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from refusals import assert_refused
from sharing import owners

import tensor_bridge
from tensor_bridge import Extension
from tensor_bridge.testing import shares_memory, tf_data_address


def ints(*values: int) -> tf.Tensor:
    return tf.constant(values) + 0


# ---- TensorArray ---------------------------------------------------------------------------------


def test_a_tensor_array_is_a_list_of_its_elements() -> None:
    array = tf.TensorArray(tf.int32, 3, infer_shape=False)
    elements = [ints(1, 2), tf.zeros([0], tf.int32), ints(3)]
    for i, element in enumerate(elements):
        array = array.write(i, element)
    with owners():
        x = tensor_bridge.to_torch(array)
        assert type(x) is list
        assert [part.tolist() for part in x] == [[1, 2], [], [3]]
        assert shares_memory(elements[0], x[0])
        assert shares_memory(elements[2], x[2])
        explanation = tensor_bridge.explain(array)
        assert (explanation.action, explanation.nbytes) == ("shared", 12)
        assert [name for name, _ in explanation.parts] == ["[0]", "[1]", "[2]"]
        for part in x:
            part.zero_()
        assert elements[0].numpy().tolist() == [1, 2]
        del x, part


def test_converting_a_tensor_array_reads_and_deletes_nothing() -> None:
    array = tf.TensorArray(tf.int32, 2, clear_after_read=True).unstack([[1], [2]])
    for _ in range(2):
        assert [x.tolist() for x in tensor_bridge.to_torch(array)] == [[1], [2]]
    assert array.read(0).numpy().tolist() == [1]
    assert_refused(
        tensor_bridge,
        array,
        tensor_bridge.UnsupportedTypeError,
        "element 0 .*clear_after_read=False",
    )
    kept = tf.TensorArray(tf.int32, 1, clear_after_read=False).unstack([[1]])
    kept.read(0)
    assert len(tensor_bridge.to_torch(kept)) == 1


def test_a_tensor_array_that_is_not_written_is_refused() -> None:
    array = tf.TensorArray(tf.int32, 2, element_shape=[1])
    assert_refused(tensor_bridge, array, tensor_bridge.UnsupportedTypeError, "never written")
    assert_refused(
        tensor_bridge, array.write(0, [1]), tensor_bridge.UnsupportedTypeError, "element 1"
    )
    assert tensor_bridge.to_torch(tf.TensorArray(tf.int32, 0)) == []


def test_keywords_and_errors_of_elements() -> None:
    array = tf.TensorArray(tf.int32, 2).unstack([[1], [2]])
    with owners():
        tensor_bridge.to_torch(array, copy=True)
    handles = tf.TensorArray(tf.resource, 1).write(0, tf.Variable(1.0).handle)
    assert_refused(tensor_bridge, handles, tensor_bridge.UnsupportedDtypeError, r"^\[0\]: ")
    x = tensor_bridge.to_torch({"a": array})
    assert [part.tolist() for part in x["a"]] == [[1], [2]]
    again = tensor_bridge.to_tf(x)["a"]
    assert type(again) is list
    assert tf.TensorArray(tf.int32, 2).unstack(again).stack().shape == (2, 1)


def test_a_tensor_array_of_a_graph_is_refused() -> None:
    @tf.function(autograph=False)
    def traced() -> None:
        array = tf.TensorArray(tf.float32, 1).write(0, [1.0])
        assert_refused(tensor_bridge, array, tensor_bridge.SymbolicTensorError, r"stack\(\)")

    traced()


# ---- Optional ------------------------------------------------------------------------------------


def test_an_optional_is_its_value_or_none() -> None:
    t = ints(1, 2)
    x = tensor_bridge.to_torch(tf.experimental.Optional.from_value(t))
    assert x.tolist() == [1, 2]
    x.zero_()
    assert t.numpy().tolist() == [1, 2]
    empty = tf.experimental.Optional.empty(tf.TensorSpec([2], tf.int32))
    assert tensor_bridge.to_torch(empty) is None
    assert tensor_bridge.explain(empty).nbytes == 0
    assert tensor_bridge.to_torch([empty, t])[0] is None


def test_an_optional_of_a_structure() -> None:
    value = {"a": ints(1), "b": (ints(2), tf.ragged.constant([[1], [2, 3]]))}
    optional = tf.experimental.Optional.from_value(value)
    x = tensor_bridge.to_torch(optional)
    assert x["a"].tolist() == [1]
    assert x["b"][1].layout is torch.jagged
    explanation = tensor_bridge.explain(optional)
    assert explanation.action == "shared"
    assert len(explanation.parts) == 3
    assert tensor_bridge.explain(optional, copy=True).action == "copied"
    single = tf.experimental.Optional.from_value(tf.ragged.constant([[1], [2, 3]]))
    assert tensor_bridge.explain(single).kind == "nested tensor"


def test_the_next_element_of_an_iterator() -> None:
    iterator = iter(tf.data.Dataset.range(1).map(lambda i: (i, i + 1)))
    x = tensor_bridge.to_torch(iterator.get_next_as_optional())
    assert [part.item() for part in x] == [0, 1]
    assert tensor_bridge.to_torch(iterator.get_next_as_optional()) is None


def test_an_optional_of_a_graph_is_refused() -> None:
    @tf.function(autograph=False)
    def traced() -> None:
        assert_refused(
            tensor_bridge,
            tf.experimental.Optional.from_value(1),
            tensor_bridge.SymbolicTensorError,
            r"tf\.py_function",
        )

    traced()


# ---- ExtensionType -------------------------------------------------------------------------------


class Masked(tf.experimental.ExtensionType):
    __name__ = "tensor_bridge.tests.Masked"  # required for packing
    values: tf.Tensor
    mask: tf.Tensor

    def __validate__(self) -> None:
        assert self.values.shape == self.mask.shape


class Everything(tf.experimental.ExtensionType):
    # Not in alphabetical order, like the mapping.
    # TensorFlow 2.12 only accepts typing's names.
    name: str
    masked: Masked
    many: typing.Tuple[tf.Tensor, ...]  # noqa: UP006
    by_name: typing.Mapping[str, tf.Tensor]
    ragged: tf.RaggedTensor
    size: int
    dtype: tf.DType
    shape: tf.TensorShape
    nothing: None
    sizes: typing.Tuple[int, ...]  # noqa: UP006

    def __init__(self, seed: int) -> None:
        """A constructor that differs from the one that TensorFlow would generate."""
        self.name = "everything"
        self.masked = Masked(ints(seed), tf.constant([True]))
        self.many = (ints(1), ints(2, 3))
        self.by_name = {"z": ints(4), "a": ints(5, 6)}
        self.ragged = tf.ragged.constant([[1], [2, 3]])
        self.size = 2
        self.dtype = tf.float32
        self.shape = tf.TensorShape([1, None])
        self.nothing = None
        self.sizes = (1, 2)


def test_the_fields_of_an_extension_type() -> None:
    t = Masked(ints(1, 2), tf.constant([True, False]))
    with owners():
        x = tensor_bridge.to_torch(t)
        assert type(x) is Extension
        assert x.kind is Masked
        assert list(x.fields) == ["values", "mask"]
        assert x.values is x.fields["values"]
        assert x.mask.tolist() == [True, False]
        assert shares_memory(t.values, x.values)
        assert shares_memory(t.mask, x.mask)
        again = tensor_bridge.to_tf(x)
        assert type(again) is Masked
        assert tf_data_address(again.values) == tf_data_address(t.values)
        assert tf.type_spec_from_value(again) == tf.type_spec_from_value(t)
        x.values.zero_()
        x.mask.zero_()
        assert t.values.numpy().tolist() == [1, 2]
        assert t.mask.numpy().tolist() == [True, False]
        del x


def test_every_kind_of_field() -> None:
    t = Everything(7)
    x = tensor_bridge.to_torch(t)
    assert (x.name, x.size, x.dtype, x.nothing, x.sizes) == (
        "everything",
        2,
        tf.float32,
        None,
        (1, 2),
    )
    assert x.shape == tf.TensorShape([1, None])
    assert type(x.masked) is Extension
    assert x.masked.values.tolist() == [7]
    assert [part.tolist() for part in x.many] == [[1], [2, 3]]
    assert {k: v.tolist() for k, v in x.by_name.items()} == {"z": [4], "a": [5, 6]}
    assert x.ragged.layout is torch.jagged
    again = tensor_bridge.to_tf(x)
    assert type(again) is Everything
    assert tf.type_spec_from_value(again) == tf.type_spec_from_value(t)
    assert bool(again == t)
    explanation = tensor_bridge.explain(t)
    assert explanation.action == "shared"
    assert [name for name, _ in explanation.parts] == [
        "masked",
        "many[0]",
        "many[1]",
        "by_name['z']",
        "by_name['a']",
        "ragged",
    ]
    # In a structure, and as the argument of a function.
    assert tensor_bridge.to_torch([t])[0].size == 2
    assert bool(tf.function(lambda e: e.size == 2, autograph=False)(tensor_bridge.to_tf([x])[0]))


def test_an_extension_is_read_only() -> None:
    x = tensor_bridge.to_torch(Masked(ints(1), tf.constant([True])))
    with pytest.raises(AttributeError, match="replace"):
        x.values = torch.zeros(1)
    with pytest.raises(AttributeError, match="read-only"):
        del x.values
    with pytest.raises(AttributeError, match="no field 'other'"):
        _ = x.other
    with pytest.raises(TypeError):
        x.fields["values"] = None
    assert repr(x).startswith("Extension(Masked: values=tensor([1], dtype=torch.int32), mask=")
    assert copy.copy(x).values is x.values
    again = pickle.loads(pickle.dumps(x))
    assert again.values.tolist() == [1]
    assert bool(tensor_bridge.to_tf(again) == tensor_bridge.to_tf(x))


def test_replaced_fields_go_to_tf() -> None:
    t = Masked(ints(1, 2), tf.constant([True, False]))
    x = tensor_bridge.to_torch(t)
    y = x.replace(values=torch.tensor([5, 6], dtype=torch.int32))
    assert x.values.tolist() == [1, 2]
    assert tensor_bridge.to_tf(y).values.numpy().tolist() == [5, 6]
    longer = y.replace(values=torch.ones(3, dtype=torch.int32), mask=torch.ones(3) > 0)
    assert tensor_bridge.to_tf(longer).values.shape == (3,)
    with pytest.raises(AssertionError):  # the class's own rule
        tensor_bridge.to_tf(y.replace(mask=torch.tensor([True])))
    mismatch = tensor_bridge.MismatchError
    with pytest.raises(mismatch, match="no field 'other'; expected one of values, mask"):
        y.replace(other=1)
    e = tensor_bridge.to_torch(Everything(1))
    for wrong, field in (
        (y.replace(values=torch.zeros(2)), "'values' of Masked"),
        (y.replace(values=None), "'values' of Masked"),
        (e.replace(size=3), "'size' of Everything"),
        (e.replace(size=torch.tensor(3)), "'size'"),
        (e.replace(many=e.many[:1]), "'many'"),
        (e.replace(masked=torch.tensor([7])), "'masked'"),
        (e.replace(ragged=e.many[0]), "'ragged'"),
    ):
        with pytest.raises(mismatch, match=f"field {field}") as caught:
            tensor_bridge.to_tf(wrong)
        assert type(caught.value) is mismatch
        explanation = tensor_bridge.explain(wrong)
        assert (explanation.action, explanation.error) == ("refused", mismatch)
        assert explanation.reason == str(caught.value)
    assert tensor_bridge.explain(y).action == needs.SHARED_TO_TF
    assert tensor_bridge.explain(e).action == "shared"  # all of it is TensorFlow's memory


def test_a_field_may_be_sparse_rows() -> None:
    class Sliced(tf.experimental.ExtensionType):
        rows: tf.IndexedSlices

    t = Sliced(tf.IndexedSlices(tf.ones((1, 2)), tf.constant([0], tf.int64), tf.constant([3, 2])))
    x = tensor_bridge.to_torch(t)
    assert tensor_bridge.explain(x).action == "shared"
    assert tensor_bridge.to_tf(x).rows.values.numpy().tolist() == [[1, 1]]
    other = x.replace(rows=x.rows.to(torch.float64))
    assert tensor_bridge.explain(other).error is tensor_bridge.MismatchError
    with pytest.raises(tensor_bridge.MismatchError, match="field 'rows' of Sliced"):
        tensor_bridge.to_tf(other)


def test_keywords_and_errors_of_fields() -> None:
    t = Masked(ints(1), tf.constant([True]))
    with owners():
        x = tensor_bridge.to_torch(t, copy=True)
    assert tensor_bridge.explain(t, copy=True).action == "copied"
    assert tensor_bridge.explain(x).action == needs.SHARED_TO_TF
    assert tensor_bridge.explain(x, copy=True).action == "copied"

    class Handle(tf.experimental.ExtensionType):
        handle: tf.Tensor

    h = Handle(tf.Variable(1.0).handle)
    assert_refused(tensor_bridge, h, tensor_bridge.UnsupportedDtypeError, "^handle: ")


def test_an_extension_type_of_a_graph_is_refused() -> None:
    @tf.function(autograph=False)
    def traced(t: Masked) -> None:
        assert_refused(tensor_bridge, t, tensor_bridge.SymbolicTensorError, r"^values: .*tf\.py_")

    traced(Masked(ints(1), tf.constant([True])))


def test_an_extension_type_from_a_dataset() -> None:
    class Pair(tf.experimental.BatchableExtensionType):
        a: tf.Tensor
        b: tf.Tensor

    dataset = tf.data.Dataset.from_tensor_slices(Pair(ints(1, 2), ints(3, 4))).batch(2)
    x = tensor_bridge.to_torch(next(iter(dataset)))
    assert (x.a.tolist(), x.b.tolist()) == ([1, 2], [3, 4])
    assert bool(tensor_bridge.to_tf(x) == Pair(ints(1, 2), ints(3, 4)))


def test_a_packed_extension_type() -> None:
    from tensorflow.python.framework import extension_type

    t = extension_type.pack(Masked(ints(1), tf.constant([True])))
    x = tensor_bridge.to_torch(t)
    assert x.values.tolist() == [1]
    assert bool(tensor_bridge.to_tf(x) == Masked(ints(1), tf.constant([True])))
    assert tensor_bridge.explain(t).action == "shared"


# ---- parameters of lazy modules ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weight", "bias", "running_mean"])
def test_a_parameter_without_a_value_is_refused_until_it_has_one(name: str, interface: Any) -> None:
    """It looks like an empty tensor, which would be converted to a wrong value."""
    lazy = torch.nn.LazyBatchNorm1d()
    x = getattr(lazy, name)
    with owners():
        with pytest.raises(tensor_bridge.UnsupportedTypeError, match="Call the module once"):
            interface.to_tf(x)
        if interface is tensor_bridge:
            explained = tensor_bridge.explain(x)
            assert explained.action == "refused"
            assert explained.error is tensor_bridge.UnsupportedTypeError
            with pytest.raises(tensor_bridge.UnsupportedTypeError, match=r"^at \['a'\]\[1\]: "):
                tensor_bridge.to_tf({"a": [torch.ones(2), x]})
            # to_torch() keeps it, because it is already torch's.
            passed = tensor_bridge.to_torch([ints(1), x])
            assert passed[1] is x
            del passed
    lazy(torch.ones(3, 4))
    t = interface.to_tf(getattr(lazy, name))
    assert t.shape == (4,)
    assert shares_memory(t, getattr(lazy, name)) == needs.SHARES_TO_TF
