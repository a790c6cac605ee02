"""SparseTensor and COO, CSRSparseMatrix and CSR: shared, with the right flags, checked."""

from __future__ import annotations

from collections.abc import Callable
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
from tensorflow.python.ops.linalg.sparse.sparse_csr_matrix_ops import CSRSparseMatrix
from tf_bytes import NUMERIC, random_bytes, tf_memory, tf_tensor, torch_memory

import tensor_bridge
from tensor_bridge import DtypeRow
from tensor_bridge.testing import (
    shares_memory,
    tf_data_address,
    torch_data_address,
)

assert_to_tf_refused = partial(refusals.assert_to_tf_refused, tensor_bridge)

# torch warns once per process when a test makes such a tensor without check_invariants=.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled"),
]


def sparse(
    indices: Any = ((0, 1), (1, 0), (2, 3)), values: Any = (1.0, 2.0, 3.0), shape: Any = (3, 4)
) -> tf.SparseTensor:
    return tf.SparseTensor(
        tf.constant(indices, tf.int64, shape=(len(indices), len(shape))) + 0,
        tf.constant(values, tf.float32) * 1,
        shape,
    )


def coo(indices: Any, values: Any, shape: Any, **options: Any) -> torch.Tensor:
    """A COO tensor, by default unchecked like torch's."""
    return torch.sparse_coo_tensor(
        torch.tensor(indices), torch.tensor(values), shape, check_invariants=False, **options
    )


def equal(left: tf.SparseTensor, right: tf.SparseTensor) -> bool:
    return (
        left.values.dtype == right.values.dtype
        and tf_memory(left.indices) == tf_memory(right.indices)
        and tf_memory(left.values) == tf_memory(right.values)
        and tf_memory(left.dense_shape) == tf_memory(right.dense_shape)
    )


# ---- COO -----------------------------------------------------------------------------------------


def test_a_coo_tensor_over_both_tensors() -> None:
    t = sparse()
    with owners() as added:
        x = tensor_bridge.to_torch(t)
        assert x.layout is torch.sparse_coo
        assert x.shape == (3, 4)
        assert x.is_coalesced()
        assert shares_memory(t.values, x.values())
        assert shares_memory(t.indices, x.indices())
        assert added() == 2
        again = tensor_bridge.to_tf(x)
        assert equal(t, again)
        assert tf_data_address(again.values) == tf_data_address(t.values)
        assert tf_data_address(again.indices) == tf_data_address(t.indices)
        assert x.to_dense().tolist() == tf.sparse.to_dense(t).numpy().tolist()
        del x


def test_writes_to_a_coo_tensor_never_reach_tensorflow() -> None:
    writes: dict[str, Callable[[torch.Tensor], Any]] = {
        "mul_": lambda x: x.mul_(2),
        "add_": lambda x: x.add_(x),
        "zero_": lambda x: x.zero_(),
        "values": lambda x: x.values().fill_(9),
        "indices": lambda x: x.indices().zero_(),
        "copy_": lambda x: x.copy_(torch.eye(3, 4).to_sparse()),
        "sqrt_": lambda x: x.sqrt_(),
    }
    for name, write in writes.items():
        t = sparse()
        x = tensor_bridge.to_torch(t)
        write(x)
        assert equal(t, sparse()), name


@pytest.mark.parametrize(
    ("shape", "indices"),
    [
        ((4,), [(0,), (3,)]),
        ((2, 3, 4), [(0, 2, 3), (1, 0, 0), (1, 0, 1)]),
        ((), [()]),
        ((2, 3), []),
        ((0, 3), []),
        ((1, 1, 1, 1, 1), [(0, 0, 0, 0, 0)]),
        ((2**31, 2**31), [(2**30, 5), (2**31 - 1, 2**31 - 1)]),
    ],
    ids=str,
)
def test_any_rank_and_count(shape: Any, indices: Any) -> None:
    t = sparse(indices, [float(i) for i in range(len(indices))], shape)
    x = tensor_bridge.to_torch(t)
    assert x.shape == shape
    assert x.is_coalesced()
    assert x.indices().t().tolist() == [list(i) for i in indices]
    assert equal(t, tensor_bridge.to_tf(x))
    assert tensor_bridge.explain(t).shape == shape


@pytest.mark.parametrize(
    ("indices", "coalesced"),
    [
        ([(0, 0), (0, 1), (2, 0)], True),
        ([(0, 1), (0, 0), (2, 0)], False),
        ([(2, 0), (0, 1)], False),
        ([(1, 2), (1, 2)], False),
        ([(0, 3), (1, 0)], True),
        ([(1, 0), (0, 3)], False),
        ([(2, 3)], True),
    ],
    ids=str,
)
def test_the_coalesced_flag_is_true_only_where_it_is_so(indices: Any, coalesced: bool) -> None:
    t = sparse(indices, [float(i + 1) for i in range(len(indices))])
    x = tensor_bridge.to_torch(t)
    assert x.is_coalesced() is coalesced
    assert shares_memory(t.indices, x._indices())
    # torch's own check accepts the flag.
    with torch.sparse.check_sparse_tensor_invariants():
        torch.sparse_coo_tensor(x._indices(), x._values(), x.shape, is_coalesced=coalesced)
    assert x.coalesce().values().sum() == sum(range(1, len(indices) + 1))


@pytest.mark.parametrize(
    ("shape", "index", "message"),
    [
        ((3, 4), (0, 4), "from 0 to 3 in dimension 1, got 4"),
        ((3, 4), (3, 0), "from 0 to 2 in dimension 0, got 3"),
        ((3, 4), (-1, 0), "in dimension 0, got -1"),
        ((0, 4), (0, 0), "in dimension 0, got 0"),
        ((3, 4), (2**62, 0), f"got {2**62}"),
    ],
    ids=str,
)
def test_an_index_outside_is_refused_in_both_directions(
    shape: Any, index: Any, message: str
) -> None:
    out = tensor_bridge.ValueRangeError
    assert_refused(tensor_bridge, sparse([(0, 0), index], [1.0, 2.0], shape), out, message)
    for coalesced in (None, True):
        x = coo([[0, index[0]], [0, index[1]]], [1.0, 2.0], shape, is_coalesced=coalesced)
        assert_to_tf_refused(x, out, message)


def test_a_shape_that_torch_cannot_number_is_refused() -> None:
    out = tensor_bridge.ValueRangeError
    assert_refused(tensor_bridge, sparse([(0, 0)], [1.0], (2**40, 2**40)), out, r"2\*\*63")


@pytest.mark.parametrize("row", NUMERIC, ids=lambda row: row.name)
def test_values_of_every_dtype(row: DtypeRow) -> None:
    data = random_bytes(row, 2)
    t = tf.SparseTensor(tf.constant([[0], [2]], tf.int64), tf_tensor(row, (2,), data), [3])
    options: dict[str, Any] = {"raw": True} if row.kind == "quantized" else {}
    x = tensor_bridge.to_torch(t, **options)
    explanation = tensor_bridge.explain(t, **options)
    assert explanation.torch_dtype == str(x.dtype)
    if row.kind == "converted":
        assert explanation.action == "copied"
    else:
        assert explanation.action == "shared"
        assert torch_memory(x.values()) == data
        assert shares_memory(t.values, x.values())
    again = tensor_bridge.to_tf(x, **({} if row.kind == "shared" else {"dtype": row.name}))
    assert again.values.dtype == t.values.dtype
    assert tf_memory(again.values) == data


def test_dtypes_without_a_sparse_form_are_refused() -> None:
    strings = tf.SparseTensor([[0]], ["a"], [2])
    quantized = tf.SparseTensor([[0]], tf.bitcast(tf.constant([1], tf.int8), tf.qint8), [2])
    unsupported = tensor_bridge.UnsupportedDtypeError
    assert_refused(tensor_bridge, strings, unsupported, r"\.indices and \.values")
    assert_refused(tensor_bridge, quantized, unsupported, "^values: .*raw=True")
    assert_refused(tensor_bridge, quantized, unsupported, "raw=True", scale=0.5, zero_point=0)


def test_keywords_reach_both_parts() -> None:
    t = sparse()
    with owners():
        tensor_bridge.to_torch(t, copy=True)
        explanation = tensor_bridge.explain(t, copy=True)
        assert [part.action for _, part in explanation.parts] == ["copied", "copied"]
        x = tensor_bridge.to_torch(t, copy=False, on_write="raise", device="cpu")
        for part in (x.values(), x.indices()):
            with needs.forbidden_write():
                part.zero_()
        with pytest.raises(TypeError, match="nonsense"):
            tensor_bridge.to_torch(t, nonsense=1)
        alias = tensor_bridge.to_torch(t, on_write="alias")
        alias.indices().zero_()
        assert equal(t, sparse()), "a write went through to the indices"
        alias.values().fill_(5)
        assert t.values.numpy().tolist() == [5.0] * 3
        del x, part, alias


def test_explain_tells_the_parts() -> None:
    explanation = tensor_bridge.explain(sparse())
    assert (explanation.kind, explanation.action) == ("sparse COO tensor", "shared")
    assert [name for name, _ in explanation.parts] == ["values", "indices"]
    assert explanation.nbytes == 3 * 4 + 6 * 8
    assert explanation.on_write == "copy"
    again = tensor_bridge.explain(tensor_bridge.to_torch(sparse()))
    assert (again.kind, again.action, again.shape) == ("SparseTensor", "shared", (3, 4))


# ---- COO tensors made by torch -------------------------------------------------------------------


def test_a_coo_tensor_of_torch_shares_its_values() -> None:
    x = torch.tensor([[0.0, 1.0], [2.0, 0.0]]).to_sparse()
    t = tensor_bridge.to_tf(x)
    assert tf.sparse.to_dense(t).numpy().tolist() == [[0.0, 1.0], [2.0, 0.0]]
    same = tf_data_address(t.values) == torch_data_address(x.values())
    assert same == needs.SHARES_TO_TF
    explanation = tensor_bridge.explain(x)
    assert dict(explanation.parts)["values"].action == needs.SHARED_TO_TF
    assert dict(explanation.parts)["indices"].action == "copied", "torch keeps them transposed"
    assert_to_tf_refused(x, tensor_bridge.CopyRequiredError, "^(values|indices): ", copy=False)
    x.mul_(3)
    assert t.values.numpy().tolist() == [1.0, 2.0]
    del t


@pytest.mark.parametrize("coalesced", [None, True], ids=["unflagged", "flagged wrongly"])
def test_what_is_not_coalesced_is_coalesced(coalesced: bool | None) -> None:
    cases = [
        ([[2, 0]], [1.0, 2.0], [[0], [2]], [2.0, 1.0]),
        ([[1, 1]], [1.0, 2.0], [[1]], [3.0]),
    ]
    for indices, values, expected_indices, expected_values in cases:
        x = coo(indices, values, (3,), is_coalesced=coalesced)
        t = tensor_bridge.to_tf(x)
        assert t.indices.numpy().tolist() == expected_indices
        assert t.values.numpy().tolist() == expected_values
        assert tf.sparse.to_dense(t).shape == (3,), "TensorFlow accepts the order"
        assert x._indices().tolist() == indices
        explanation = tensor_bridge.explain(x)
        assert explanation.action == "copied"
        assert "not coalesced" in explanation.parts[0][1].reason
        assert_to_tf_refused(x, tensor_bridge.CopyRequiredError, "not coalesced", copy=False)


def test_a_dtype_that_torch_cannot_coalesce_is_refused() -> None:
    x = torch.sparse_coo_tensor(torch.tensor([[1, 1]]), torch.zeros(2).to(torch.float8_e5m2), (3,))
    assert_to_tf_refused(x, tensor_bridge.UnsupportedDtypeError, "cannot coalesce")


def test_a_coo_tensor_that_requires_grad_goes_without_its_graph() -> None:
    x = torch.eye(2).to_sparse().requires_grad_()
    for y in (x, x * 2):
        assert tensor_bridge.to_tf(y).values.shape == (2,)
        assert_to_tf_refused(y, tensor_bridge.InvalidOptionError, "detach", grad="raise")


def test_other_sparse_layouts_are_refused() -> None:
    dense = torch.eye(4)
    for x in (dense.to_sparse_csc(), dense.to_sparse_bsr(2), dense.to_sparse_bsc(2)):
        assert_to_tf_refused(x, tensor_bridge.UnsupportedTypeError, r"x\.to_sparse\(\)")
        assert tensor_bridge.to_tf(x.to_sparse()).shape == (4, 4)
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match=r"^at \[0\]: TensorFlow has"):
        tensor_bridge.to_tf([dense.to_sparse_csc()])


def test_hybrid_tensors_with_more_than_one_sparse_dimension_are_refused() -> None:
    x = torch.ones(2, 2, 2).to_sparse(2)
    assert_to_tf_refused(x, tensor_bridge.UnsupportedTypeError, "one sparse dimension")


def test_sparse_tensors_in_a_structure() -> None:
    x = tensor_bridge.to_torch({"s": [sparse()], "t": tf.constant(1)})
    assert x["s"][0].layout is torch.sparse_coo
    again = tensor_bridge.to_tf(x)
    assert equal(again["s"][0], sparse())


def test_a_sparse_tensor_of_a_graph_is_refused() -> None:
    @tf.function(autograph=False)
    def traced(t: tf.SparseTensor) -> None:
        assert_refused(tensor_bridge, t, tensor_bridge.SymbolicTensorError, r"tf\.py_function")

    traced(sparse())


@st.composite
def sparse_tensors(draw: st.DrawFn) -> tf.SparseTensor:
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    index = st.tuples(*(st.integers(0, size - 1) for size in shape))
    indices = draw(st.lists(index, max_size=6))
    return sparse(indices, [float(i) for i in range(len(indices))], shape)


@settings(max_examples=60, deadline=None)
@given(t=sparse_tensors())
def test_any_sparse_tensor(t: tf.SparseTensor) -> None:
    with owners():
        x = tensor_bridge.to_torch(t)
        indices = [tuple(i) for i in t.indices.numpy().tolist()]
        assert x.is_coalesced() is (indices == sorted(set(indices)))
        dense = torch.zeros(t.dense_shape.numpy().tolist())
        for i, value in zip(indices, t.values.numpy().tolist(), strict=True):
            dense[i] += value
        assert torch.equal(x.to_dense(), dense)
        again = tensor_bridge.to_tf(x)
        assert torch.equal(tensor_bridge.to_torch(tf.sparse.to_dense(again)), dense)
        if x.is_coalesced():
            assert equal(t, again)
        del x, again


# ---- CSR -----------------------------------------------------------------------------------------


def components(matrix: Any, index: int = 0) -> tuple[Any, Any, Any]:
    return tuple(
        tf.raw_ops.CSRSparseMatrixComponents(
            csr_sparse_matrix=matrix._matrix, index=index, type=matrix.dtype
        )
    )


DENSE = [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [2.0, 0.0, 3.0]]


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64, tf.complex64, tf.complex128])
def test_a_csr_tensor_over_all_three_tensors(dtype: tf.DType) -> None:
    matrix = CSRSparseMatrix(tf.cast(tf.constant(DENSE), dtype))
    with owners() as added:
        x = tensor_bridge.to_torch(matrix)
        assert x.layout is torch.sparse_csr
        assert x.shape == (3, 3)
        assert x.to_dense().tolist() == DENSE
        parts = (x.crow_indices(), x.col_indices(), x.values())
        for t, part in zip(components(matrix), parts, strict=True):
            assert shares_memory(t, part)
        assert added() == 3
        torch.sparse_csr_tensor(*(part.clone() for part in parts), x.shape, check_invariants=True)
        assert (x @ torch.ones(3, 1, dtype=x.dtype)).flatten().tolist() == [1.0, 0.0, 5.0]
        x.values().zero_()
        x.crow_indices().zero_()
        assert tensor_bridge.to_torch(matrix.to_dense()).tolist() == DENSE
        del x, parts, part


def test_a_csr_tensor_goes_to_tf() -> None:
    matrix = CSRSparseMatrix(tf.constant(DENSE))
    x = tensor_bridge.to_torch(matrix)
    again = tensor_bridge.to_tf(x)
    assert type(again) is CSRSparseMatrix
    for t, u in zip(components(matrix), components(again), strict=True):
        assert t.dtype == u.dtype
        assert t.numpy().tolist() == u.numpy().tolist()
    assert tf_data_address(components(matrix)[2]) == tf_data_address(components(again)[2])
    explanation = tensor_bridge.explain(x)
    assert explanation.action == "copied"
    assert dict(explanation.parts)["values"].action == "shared"
    assert_to_tf_refused(x, tensor_bridge.CopyRequiredError, "row pointers", copy=False)


def test_a_csr_tensor_of_torch() -> None:
    for index_dtype in (torch.int32, torch.int64):
        dense = torch.tensor(DENSE)
        x = dense.to_sparse_csr()
        x = torch.sparse_csr_tensor(
            x.crow_indices().to(index_dtype), x.col_indices().to(index_dtype), x.values(), (3, 3)
        )
        t = tensor_bridge.to_tf(x)
        assert t.shape.as_list() == [3, 3]
        x.values().zero_()
        assert t.to_dense().numpy().tolist() == DENSE
        del t
    empty = torch.zeros(2, 3).to_sparse_csr()
    assert tensor_bridge.to_tf(empty).to_dense().numpy().tolist() == [[0.0] * 3] * 2
    none = CSRSparseMatrix(tf.zeros([2, 3]))
    assert tensor_bridge.to_torch(none).to_dense().tolist() == [[0.0] * 3] * 2


def test_batches_of_csr_matrices() -> None:
    dense = tf.constant([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 4.0], [0.0, 0.0]]])
    matrix = CSRSparseMatrix(dense)
    x = tensor_bridge.to_torch(matrix)
    assert x.to_dense().tolist() == dense.numpy().tolist()
    explanation = tensor_bridge.explain(matrix)
    assert (explanation.action, explanation.shape) == ("copied", (2, 2, 2))
    again = tensor_bridge.to_tf(x)
    assert again.to_dense().numpy().tolist() == dense.numpy().tolist()
    assert_refused(tensor_bridge, matrix, tensor_bridge.CopyRequiredError, "copy=None", copy=False)
    uneven = CSRSparseMatrix(tf.constant([[[1.0]], [[0.0]]]))
    assert_refused(
        tensor_bridge, uneven, tensor_bridge.UnsupportedTypeError, r"\[0, 1\].*to_sparse_tensor"
    )


def csr(crow: Any, col: Any, shape: Any = (2, 2), dtype: Any = torch.float32) -> torch.Tensor:
    return torch.sparse_csr_tensor(
        torch.tensor(crow),
        torch.tensor(col),
        torch.ones(len(col), dtype=dtype),
        shape,
        check_invariants=False,
    )


@pytest.mark.parametrize(
    ("crow", "col", "message"),
    [
        ([0, 1, 9], [0, 1], "^row pointers: "),
        ([0, 2, 1], [0], "^row pointers: "),
        ([1, 1, 2], [0, 1], "^row pointers: "),
        ([0, 1, 2], [0, 2], "^column indices: .*got 2"),
        ([0, 1, 2], [-1, 0], "^column indices: .*got -1"),
        ([0, 2, 2], [1, 0], "^column indices: .*ascending"),
        ([0, 2, 2], [1, 1], "^column indices: .*ascending"),
        ([0, 0, 2], [1, 0], "^column indices: .*ascending"),
    ],
    ids=str,
)
def test_a_broken_csr_tensor_is_refused(crow: Any, col: Any, message: str) -> None:
    assert_to_tf_refused(csr(crow, col), tensor_bridge.ValueRangeError, message)


def test_columns_may_go_down_from_row_to_row() -> None:
    for crow, col in (([0, 1, 2], [1, 0]), ([0, 0, 2], [0, 1]), ([0, 2, 2], [0, 1])):
        x = csr(crow, col)
        t = tensor_bridge.to_tf(x)
        assert t.to_dense().numpy().tolist() == x.to_dense().tolist()


def test_other_csr_tensors_are_refused() -> None:
    assert_to_tf_refused(
        csr([0, 1, 2], [0, 1], dtype=torch.int32),
        tensor_bridge.UnsupportedDtypeError,
        r"x\.to_sparse\(\)",
    )
    hybrid = torch.ones(2, 2, 2).to_sparse_csr(dense_dim=1)
    assert_to_tf_refused(hybrid, tensor_bridge.UnsupportedTypeError, "one batch")
    deep = torch.ones(2, 2, 2, 2).to_sparse_csr()
    assert_to_tf_refused(deep, tensor_bridge.UnsupportedTypeError, "one batch")
    graph = csr([0, 1, 2], [0, 1]).requires_grad_()
    assert_to_tf_refused(graph, tensor_bridge.InvalidOptionError, "detach", grad="raise")
    assert type(tensor_bridge.to_tf(graph)) is CSRSparseMatrix


def test_a_csr_matrix_of_a_graph_is_refused() -> None:
    @tf.function(autograph=False)
    def traced() -> None:
        assert_refused(
            tensor_bridge,
            CSRSparseMatrix(tf.constant(DENSE)),
            tensor_bridge.SymbolicTensorError,
            r"tf\.py_function",
        )

    traced()
