"""Ragged tensors become nested tensors if these can hold everything, else Ragged, and back."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import needs
import pytest
import refusals
import tensorflow as tf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import assert_refused
from sharing import owners
from tf_bytes import NUMERIC, random_bytes, tf_memory, tf_tensor, torch_memory

import tensor_bridge
from tensor_bridge import DtypeRow, Ragged
from tensor_bridge.testing import (
    shares_memory,
    tf_data_address,
    torch_data_address,
)

assert_to_tf_refused = partial(refusals.assert_to_tf_refused, tensor_bridge)

SPLITS = [0, 2, 2, 5]


def one_ragged_dimension(
    inner: tuple[int, ...] = (), splits_dtype: tf.DType = tf.int64
) -> tf.RaggedTensor:
    count = 5
    for size in inner:
        count *= size
    values = tf.reshape(tf.cast(tf.range(count) + 0, tf.float32), (5, *inner))
    return tf.RaggedTensor.from_row_splits(values, tf.constant(SPLITS, splits_dtype))


def two_ragged_dimensions(splits_dtype: tf.DType = tf.int64) -> tf.RaggedTensor:
    return tf.RaggedTensor.from_row_splits(
        one_ragged_dimension((), splits_dtype), tf.constant([0, 1, 3], splits_dtype)
    )


def same(left: tf.RaggedTensor, right: tf.RaggedTensor) -> bool:
    """Whether two ragged tensors are equal in everything, including partitions."""
    if not (isinstance(left, tf.RaggedTensor) and isinstance(right, tf.RaggedTensor)):
        return (
            not isinstance(left, tf.RaggedTensor)
            and left.dtype == right.dtype
            and left.shape == right.shape
            and bool(tf.reduce_all(left == right))
        )
    uniform = [
        None if t.uniform_row_length is None else int(t.uniform_row_length) for t in (left, right)
    ]
    return (
        left.row_splits.dtype == right.row_splits.dtype
        and uniform[0] == uniform[1]
        and bool(tf.reduce_all(left.row_splits == right.row_splits))
        and same(left.values, right.values)
    )


# ---- one ragged dimension: a nested tensor -------------------------------------------------------


@pytest.mark.parametrize("inner", [(), (2,), (2, 3), (0,)], ids=str)
@pytest.mark.parametrize("splits_dtype", [tf.int32, tf.int64], ids=["int32", "int64"])
def test_a_nested_tensor_over_both_tensors(inner: tuple[int, ...], splits_dtype: tf.DType) -> None:
    ragged = one_ragged_dimension(inner, splits_dtype)
    with owners() as added:
        x = tensor_bridge.to_torch(ragged)
        assert x.layout is torch.jagged
        assert (x.size(0), *x.shape[2:]) == (3, *inner)
        assert x.offsets().dtype is {tf.int32: torch.int32, tf.int64: torch.int64}[splits_dtype]
        if 0 not in inner:
            assert shares_memory(ragged.flat_values, x.values())
        assert shares_memory(ragged.row_splits, x.offsets())
        assert added() == 2
        for row, part in zip(ragged, x.unbind(), strict=True):
            assert part.tolist() == row.numpy().tolist()
        again = tensor_bridge.to_tf(x)
        assert same(ragged, again)
        if 0 not in inner:
            assert tf_data_address(again.flat_values) == tf_data_address(ragged.flat_values)
        assert tf_data_address(again.row_splits) == tf_data_address(ragged.row_splits)
        del x, part


def test_writes_to_a_nested_tensor_never_reach_tensorflow() -> None:
    writes = {
        "mul_": lambda x: x.mul_(2),
        "values": lambda x: x.values().zero_(),
        "a row": lambda x: x.unbind()[0].fill_(9),
        "offsets": lambda x: x.offsets().zero_(),
        "copy_": lambda x: x.copy_(x * 2),
    }
    for name, write in writes.items():
        ragged = one_ragged_dimension((2,))
        values, splits = tf_memory(ragged.flat_values), tf_memory(ragged.row_splits)
        x = tensor_bridge.to_torch(ragged)
        write(x)
        assert tf_memory(ragged.flat_values) == values, name
        assert tf_memory(ragged.row_splits) == splits, name
        assert not (
            shares_memory(ragged.flat_values, x.values())
            and shares_memory(ragged.row_splits, x.offsets())
        ), name


def test_torch_computes_over_shared_memory() -> None:
    ragged = one_ragged_dimension((2,))
    x = tensor_bridge.to_torch(ragged)
    assert not x.requires_grad
    assert x.is_leaf
    assert torch.equal((x * 2).values(), x.values() * 2)
    assert x.to_padded_tensor(0.0).shape == (3, 3, 2)
    assert shares_memory(ragged.flat_values, x.values())
    assert shares_memory(ragged.row_splits, x.offsets())
    assert copy.deepcopy(x).values().tolist() == x.values().tolist()


@needs.torch_since(7, "its nested tensors have no gradient of a product")
def test_torch_differentiates_over_shared_memory() -> None:
    ragged = one_ragged_dimension((2,))
    x = tensor_bridge.to_torch(ragged)
    w = torch.ones(2, 2, requires_grad=True)
    (x @ w).values().sum().backward()
    expected = x.values().sum(0)[:, None].expand(2, 2)
    assert torch.equal(w.grad, expected)
    assert shares_memory(ragged.flat_values, x.values())


def test_no_rows_and_empty_rows() -> None:
    for splits in ([0], [0, 0], [0, 0, 0]):
        ragged = tf.RaggedTensor.from_row_splits(tf.zeros([0, 2]), splits)
        x = tensor_bridge.to_torch(ragged)
        assert x.size(0) == len(splits) - 1
        assert [tuple(row.shape) for row in x.unbind()] == [(0, 2)] * (len(splits) - 1)
        assert same(ragged, tensor_bridge.to_tf(x))


@pytest.mark.parametrize("row", NUMERIC, ids=lambda row: row.name)
@pytest.mark.parametrize("deep", [False, True], ids=["nested", "Ragged"])
def test_values_of_every_dtype(row: DtypeRow, deep: bool) -> None:
    data = random_bytes(row, 5)
    ragged = tf.RaggedTensor.from_row_splits(tf_tensor(row, (5,), data), SPLITS)
    if deep:
        ragged = tf.RaggedTensor.from_row_splits(ragged, [0, 1, 3])
    options: dict[str, Any] = {"raw": True} if row.kind == "quantized" else {}
    x = tensor_bridge.to_torch(ragged, **options)
    values = x.values if deep else x.values()
    if row.kind == "converted":
        assert tensor_bridge.explain(ragged, **options).action == "copied"
    else:
        assert torch_memory(values) == data
        assert shares_memory(ragged.flat_values, values)
        assert tensor_bridge.explain(ragged, **options).action == "shared"
    again = tensor_bridge.to_tf(x, **({} if row.kind == "shared" else {"dtype": row.name}))
    assert again.dtype == ragged.dtype
    assert tf_memory(again.flat_values) == data
    assert again.row_splits.dtype == tf.int64, "dtype= is for the values"


def test_quantized_values() -> None:
    values = tf.bitcast(tf.constant([1, 2, 3, 4, 5], tf.int8), tf.qint8)
    ragged = tf.RaggedTensor.from_row_splits(values, SPLITS)
    assert_refused(
        tensor_bridge, ragged, tensor_bridge.UnsupportedDtypeError, r"^values: .*raw=True"
    )
    x = tensor_bridge.to_torch(ragged, scale=0.5, zero_point=1)
    assert x.values().dequantize().tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]


# ---- everything else: Ragged ---------------------------------------------------------------------


@pytest.mark.parametrize("splits_dtype", [tf.int32, tf.int64], ids=["int32", "int64"])
def test_two_ragged_dimensions(splits_dtype: tf.DType) -> None:
    ragged = two_ragged_dimensions(splits_dtype)
    with owners() as added:
        x = tensor_bridge.to_torch(ragged)
        assert type(x) is Ragged
        assert x.ragged_rank == 2
        assert x.shape == (2, None, None)
        assert x.uniform_row_lengths == (None, None)
        assert x.to_list() == ragged.to_list()
        assert shares_memory(ragged.flat_values, x.values)
        for t, splits in zip(ragged.nested_row_splits, x.row_splits, strict=True):
            assert shares_memory(t, splits)
        assert added() == 3
        again = tensor_bridge.to_tf(x)
        assert same(ragged, again)
        for t, u in zip(ragged.nested_row_splits, again.nested_row_splits, strict=True):
            assert tf_data_address(t) == tf_data_address(u)
        x.values.zero_()
        x.row_splits[0].zero_()
        assert same(ragged, two_ragged_dimensions(splits_dtype))
        del x, splits


def test_uniform_row_lengths_come_back() -> None:
    inner = tf.RaggedTensor.from_row_splits(tf.range(3) + 0, [0, 1, 1, 3, 3])
    outer = tf.RaggedTensor.from_uniform_row_length(inner, 2)
    x = tensor_bridge.to_torch(outer)
    assert type(x) is Ragged
    assert x.shape == (2, 2, None)
    assert x.uniform_row_lengths == (2, None)
    assert x.to_list() == outer.to_list()
    again = tensor_bridge.to_tf(x)
    assert same(outer, again)
    assert again.shape.as_list() == [2, 2, None]
    only = tf.RaggedTensor.from_uniform_row_length(tf.ones([6, 2]), tf.constant(3, tf.int32))
    x = tensor_bridge.to_torch(only)
    assert type(x) is Ragged, "a nested tensor does not keep that the length is uniform"
    assert x.shape == (2, 3, 2)
    assert same(only, tensor_bridge.to_tf(x))
    none = tf.RaggedTensor.from_uniform_row_length(tf.ones([0, 2]), 0, nrows=4)
    assert same(none, tensor_bridge.to_tf(tensor_bridge.to_torch(none)))


def test_strings() -> None:
    pytest.importorskip("tensor_bridge.composite.string")
    ragged = tf.ragged.constant([["a", "bc"], [], ["", "d\xe9"]])
    x = tensor_bridge.to_torch(ragged)
    assert type(x) is Ragged
    assert x.to_list() == [[b"a", b"bc"], [], [b"", "d\xe9".encode()]]
    assert x.shape == (3, None)
    assert same(ragged, tensor_bridge.to_tf(x))
    assert tensor_bridge.to_torch(ragged, strings="list") == x.to_list()
    deep = tf.ragged.constant([[["a"], []], [["b", "c"]]])
    assert tensor_bridge.to_torch(deep, strings="list") == [[[b"a"], []], [[b"b", b"c"]]]
    assert tensor_bridge.explain(ragged).action == "copied"
    assert_refused(tensor_bridge, ragged, tensor_bridge.CopyRequiredError, "values", copy=False)


def test_ragged_is_frozen_and_checks_its_arguments() -> None:
    x = tensor_bridge.to_torch(two_ragged_dimensions())
    with pytest.raises(AttributeError):
        x.values = torch.zeros(5)
    assert x != tensor_bridge.to_torch(two_ragged_dimensions())
    again = pickle.loads(pickle.dumps(x))
    assert again.to_list() == x.to_list()
    assert again.uniform_row_lengths == x.uniform_row_lengths
    for splits, lengths in (((), ()), ((torch.tensor([0, 1]),), (None, None))):
        with pytest.raises(tensor_bridge.MismatchError, match="at least one"):
            Ragged(torch.zeros(1), splits, lengths)


def test_a_ragged_made_by_hand() -> None:
    x = Ragged(torch.arange(5), [torch.tensor(SPLITS)])
    t = tensor_bridge.to_tf(x)
    assert t.to_list() == x.to_list() == [[0, 1], [], [2, 3, 4]]
    same = tf_data_address(t.flat_values) == torch_data_address(x.values)
    assert same == needs.SHARES_TO_TF
    explanation = tensor_bridge.explain(x)
    assert (explanation.action, explanation.shape) == (needs.SHARED_TO_TF, (3, None))
    x.values.zero_()
    x.row_splits[0].zero_()
    assert t.to_list() == [[0, 1], [], [2, 3, 4]]


def test_a_ragged_stays_in_a_structure_on_its_way_to_torch() -> None:
    x = Ragged(torch.arange(5), [torch.tensor(SPLITS)])
    assert tensor_bridge.to_torch({"x": x, "t": tf.constant(1)})["x"] is x
    again = tensor_bridge.to_tf({"x": [x], "t": tf.constant(1)})
    assert isinstance(again["x"][0], tf.RaggedTensor)


# ---- keywords ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [one_ragged_dimension, two_ragged_dimensions])
def test_keywords_reach_every_part(make: Any) -> None:
    ragged = make()
    with owners():
        x = tensor_bridge.to_torch(ragged, copy=True)
    explanation = tensor_bridge.explain(ragged, copy=True)
    assert explanation.action == "copied"
    assert {part.action for _, part in explanation.parts} == {"copied"}
    x = tensor_bridge.to_torch(ragged, copy=False, device="cpu", on_write="raise")
    parts = [x.values, *x.row_splits] if isinstance(x, Ragged) else [x.values(), x.offsets()]
    for part in parts:
        with needs.forbidden_write():
            part.zero_()
    with pytest.raises(TypeError, match="nonsense"):
        tensor_bridge.to_torch(ragged, nonsense=1)
    for name in ("strings", "unknown", "live"):
        assert_refused(
            tensor_bridge, ragged, tensor_bridge.InvalidOptionError, name, **{name: "nonsense"}
        )
    assert_refused(
        tensor_bridge, ragged, tensor_bridge.InvalidOptionError, "on_write", on_write="both"
    )


def test_alias_writes_through_to_the_values_but_not_to_the_partitions() -> None:
    ragged = one_ragged_dimension()
    x = tensor_bridge.to_torch(ragged, on_write="alias")
    x.values().fill_(7)
    assert tf.reduce_all(ragged.flat_values == 7)
    x.offsets().zero_()
    assert ragged.row_splits.numpy().tolist() == SPLITS


def test_explain_tells_the_parts() -> None:
    explanation = tensor_bridge.explain(two_ragged_dimensions())
    assert (explanation.kind, explanation.shape) == ("Ragged", (2, None, None))
    assert [name for name, _ in explanation.parts] == ["values", "row_splits[0]", "row_splits[1]"]
    assert explanation.nbytes == 5 * 4 + 3 * 8 + 4 * 8
    assert (explanation.tf_dtype, explanation.torch_dtype) == ("float32", "torch.float32")
    assert str(explanation).splitlines()[0].startswith("shared: Ragged, float32 -> torch.float32")
    nested = tensor_bridge.explain(one_ragged_dimension((2,)))
    assert (nested.kind, nested.shape) == ("nested tensor", (3, None, 2))
    again = tensor_bridge.explain(tensor_bridge.to_torch(one_ragged_dimension((2,))))
    assert (again.action, again.kind, again.shape) == ("shared", "RaggedTensor", (3, None, 2))


# ---- partitions that point outside ---------------------------------------------------------------

BAD_SPLITS = [[1, 2, 5], [0, 2, 4], [0, 3, 2, 5], [0, 2, 9], [0, -1, 5], [-1, 5], [0, 6, 5]]


@pytest.mark.parametrize("splits", BAD_SPLITS, ids=str)
def test_bad_partitions_are_refused_in_both_directions(splits: list[int]) -> None:
    values = tf.range(5) + 0
    ragged = tf.RaggedTensor.from_row_splits(values, splits, validate=False)
    out = tensor_bridge.ValueRangeError
    assert_refused(tensor_bridge, ragged, out, r"^row_splits\[0\]: expected row splits")
    outer = tf.RaggedTensor.from_row_splits(ragged, [0, len(splits) - 1])
    assert_refused(tensor_bridge, outer, out, r"^row_splits\[1\]: expected row splits")
    x = torch.arange(5)
    assert_to_tf_refused(Ragged(x, [torch.tensor(splits)]), out, r"^row_splits\[0\]")
    nested = torch.nested.nested_tensor_from_jagged(x, torch.tensor(splits))
    assert_to_tf_refused(nested, out, r"^row_splits\[0\]")


def test_other_bad_partitions_are_refused() -> None:
    values = torch.arange(5)
    good = torch.tensor(SPLITS)
    mismatch, dtype = tensor_bridge.MismatchError, tensor_bridge.UnsupportedDtypeError
    assert_to_tf_refused(Ragged(values, [torch.tensor([], dtype=torch.int64)]), mismatch, "shape")
    assert_to_tf_refused(Ragged(values, [good[None]]), mismatch, "shape")
    assert_to_tf_refused(Ragged(values, [good.float()]), dtype, "int32 or torch.int64")
    assert_to_tf_refused(Ragged(values, [good.short()]), dtype, "int32 or torch.int64")
    assert_to_tf_refused(
        Ragged(values, [torch.tensor([0, 3], dtype=torch.int32), good]), mismatch, "one dtype"
    )
    assert_to_tf_refused(
        Ragged(values, [good], [2]), tensor_bridge.ValueRangeError, "uniform length 2"
    )
    assert_to_tf_refused(Ragged([1, 2], [good]), tensor_bridge.UnsupportedTypeError, "values")


# ---- nested tensors made by torch ----------------------------------------------------------------


def rows(*lengths: int) -> list[torch.Tensor]:
    return [torch.arange(float(n * 2)).reshape(n, 2) for n in lengths]


def test_a_nested_tensor_of_torch_is_shared() -> None:
    x = torch.nested.nested_tensor(rows(2, 0, 3), layout=torch.jagged)
    t = tensor_bridge.to_tf(x)
    assert t.to_list() == [row.tolist() for row in x.unbind()]
    assert t.row_splits.dtype == tf.int64
    same = tf_data_address(t.flat_values) == torch_data_address(x.values())
    assert same == needs.SHARES_TO_TF
    assert tensor_bridge.explain(x).parts[0][1].action == needs.SHARED_TO_TF
    before = t.to_list()
    x.mul_(2)
    x.offsets().zero_()
    assert t.to_list() == before
    del t


def test_a_nested_tensor_that_requires_grad_goes_without_its_graph() -> None:
    x = torch.nested.nested_tensor(rows(2, 3), layout=torch.jagged, requires_grad=True)
    assert tensor_bridge.to_tf(x).to_list() == [row.tolist() for row in rows(2, 3)]
    assert tensor_bridge.to_tf(x * 2).to_list() == [(row * 2).tolist() for row in rows(2, 3)]
    assert "detached" in tensor_bridge.explain(x).parts[0][1].reason
    assert_to_tf_refused(x, tensor_bridge.InvalidOptionError, r"^values: .*detach", grad="raise")


def test_holes_between_the_rows_are_closed_by_a_copy() -> None:
    values = torch.arange(6.0)
    x = torch.nested.nested_tensor_from_jagged(
        values, torch.tensor([0, 2, 3, 6]), lengths=torch.tensor([1, 1, 2])
    )
    assert tensor_bridge.to_tf(x).to_list() == [[0.0], [2.0], [3.0, 4.0]]
    assert_to_tf_refused(x, tensor_bridge.CopyRequiredError, "holes", copy=False)


def test_other_ragged_dimensions_and_layouts_are_refused() -> None:
    x = torch.nested.nested_tensor(rows(2, 3), layout=torch.jagged)
    wrong = tensor_bridge.UnsupportedTypeError
    assert_to_tf_refused(x.transpose(1, 2), wrong, r"x\.transpose\(1, 2\)")
    assert tensor_bridge.to_tf(x.transpose(1, 2).transpose(1, 2)).shape.as_list() == [2, None, 2]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_strided_nested_tensor_is_refused_with_advice_that_works() -> None:
    x = torch.nested.nested_tensor(rows(2, 3))
    assert_to_tf_refused(x, tensor_bridge.UnsupportedTypeError, "layout=torch.jagged")
    y = torch.nested.as_nested_tensor(list(x.unbind()), layout=torch.jagged)
    assert tensor_bridge.to_tf(y).shape.as_list() == [2, None, 2]


def test_a_nested_tensor_in_a_structure() -> None:
    x = torch.nested.nested_tensor(rows(2, 3), layout=torch.jagged)
    assert isinstance(tensor_bridge.to_tf([x, (x,)])[1][0], tf.RaggedTensor)


# ---- graphs --------------------------------------------------------------------------------------


def test_a_ragged_tensor_of_a_graph_is_refused() -> None:
    @tf.function(autograph=False)
    def traced(ragged: tf.RaggedTensor) -> None:
        assert_refused(tensor_bridge, ragged, tensor_bridge.SymbolicTensorError, r"tf\.py_function")

    traced(one_ragged_dimension())
    traced(two_ragged_dimensions())


# ---- any partitions ------------------------------------------------------------------------------


@st.composite
def ragged_tensors(draw: st.DrawFn) -> tf.RaggedTensor:
    splits_dtype = draw(st.sampled_from([tf.int32, tf.int64]))
    count = draw(st.integers(0, 4))
    partitions = []
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            length = draw(st.integers(0, 3))
            partitions.append((length, [length] * count))
        else:
            lengths = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
            partitions.append((None, lengths))
        count = sum(partitions[-1][1])
    inner = draw(st.lists(st.integers(1, 2), max_size=2))
    values: Any = tf.reshape(
        tf.range(count * tf.reduce_prod(tf.constant(inner, tf.int32)) + 0), [count, *inner]
    )
    for uniform, lengths in reversed(partitions):
        if uniform is None:
            values = tf.RaggedTensor.from_row_lengths(values, tf.constant(lengths, splits_dtype))
        else:
            values = tf.RaggedTensor.from_uniform_row_length(
                values,
                tf.constant(uniform, splits_dtype),
                nrows=tf.constant(len(lengths), splits_dtype),
            )
    return values


@settings(max_examples=60, deadline=None)
@given(ragged=ragged_tensors())
def test_any_ragged_tensor_makes_the_round_trip(ragged: tf.RaggedTensor) -> None:
    with owners():
        x = tensor_bridge.to_torch(ragged)
        as_list = x.to_list() if isinstance(x, Ragged) else [row.tolist() for row in x.unbind()]
        assert as_list == ragged.to_list()
        assert same(ragged, tensor_bridge.to_tf(x))
        assert tensor_bridge.explain(ragged).action in ("shared", "copied")
        del x
