"""torch's CSR tensors and TensorFlow's CSRSparseMatrix; the layouts that TensorFlow lacks.

Every index is checked, in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _explanation, _refusals
from tensor_bridge.composite._registry import (
    TO_TF,
    TO_TORCH,
    Assembly,
    Composite,
    Options,
    Part,
    Parts,
    of_parts,
    part,
    structural,
    to_dense_torch,
)
from tensor_bridge.composite.coo import (
    check_range,
    check_values,
    detached,
    make_sparse,
    parts_to_tf,
)
from tensor_bridge.composite.ragged import check_splits
from tensor_bridge.errors import (
    TensorFlowError,
    UnsupportedDtypeError,
    UnsupportedTypeError,
    ValueRangeError,
)

if TYPE_CHECKING:
    import torch

    from tensor_bridge._explanation import Explanation

__all__ = ["COMPOSITES"]


def _csr_components(matrix: Any) -> list[tuple[Any, Any, Any]]:
    """(row pointers, column indices, values) of each matrix of a CSRSparseMatrix."""
    import tensorflow as tf

    if not _C.is_eager_tensor(matrix._matrix):
        to_dense_torch(matrix._matrix, {})  # raises that it is symbolic
    batches = 1 if matrix.shape.rank == 2 else int(matrix.shape[0])
    try:
        return [
            tuple(
                tf.raw_ops.CSRSparseMatrixComponents(
                    csr_sparse_matrix=matrix._matrix, index=i, type=matrix.dtype
                )
            )
            for i in range(batches)
        ]
    except tf.errors.OpError as e:
        raise TensorFlowError(f"could not read the components of a CSRSparseMatrix: {e}") from e


def _check_csr(rows: torch.Tensor, columns: torch.Tensor, shape: Sequence[int]) -> None:
    """Checks one matrix: row pointers, range of the columns, and their order in each row."""
    with part("row pointers"):
        check_splits(rows, int(columns.shape[0]))
    with part("column indices"):
        check_range(columns.unsqueeze(1), shape[-1:])
        ascends = columns.diff() > 0
        starts = rows[1:-1] - 1  # from one row to the next the column may decrease
        starts = starts[(starts >= 0) & (starts < ascends.shape[0])]
        ascends[starts.long()] = True
        if not bool(ascends.all()):
            raise ValueRangeError(
                "expected ascending column indices without duplicates in each row; sort them "
                "first: sorted_indices() of a CSRSparseMatrix, coalesce() of a COO tensor"
            )


def _csr_to_torch(matrix: Any, options: Options) -> Assembly:
    shape = tuple(int(size) for size in matrix.shape)
    batches = _csr_components(matrix)
    stacked = None
    if len(shape) == 3:
        _check_batches(batches, options)
        stacked = partial(_explanation.copied, reason="the matrices of the batch are stacked")
    parts: list[Part] = []
    where = structural(options)
    for rows, columns, values in batches:
        check_values(values, options)
        parts += [
            ("values", values, options, stacked),
            ("row pointers", rows, where, stacked),
            ("column indices", columns, where, stacked),
        ]

    def kind() -> tuple[str, tuple[int, ...]]:
        for rows, columns, _ in batches:
            _check_csr(to_dense_torch(rows, {}), to_dense_torch(columns, {}), shape)
        return "sparse CSR tensor", shape

    def make(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        import torch

        values, rows, columns = parts[::3], parts[1::3], parts[2::3]
        for i in range(len(values)):
            _check_csr(rows[i], columns[i], shape)
        col, crow, x = (
            tensors[0] if stacked is None else torch.stack(tuple(tensors))
            for tensors in (columns, rows, values)
        )
        return torch.sparse_csr_tensor(
            crow, col, x, shape, dtype=x.dtype, device=x.device, check_invariants=False
        )

    return kind, parts, make


def _check_batches(batches: Sequence[tuple[Any, Any, Any]], options: Options) -> None:
    counts = sorted({int(values.shape[0]) for _, _, values in batches})
    if len(counts) != 1:
        raise UnsupportedTypeError(
            "torch's batches of CSR matrices need the same number of values in each matrix, got "
            f"a CSRSparseMatrix with {counts}; convert the matrices one by one, or "
            "to_sparse_tensor() of it"
        )
    _refusals.require_copy_allowed(
        options.get("copy"),
        "torch keeps a batch of CSR matrices in tensors that TensorFlow's are stacked into",
    )


_CSR_DTYPES = ("torch.float32", "torch.float64", "torch.complex64", "torch.complex128")


def _csr_as_coo(x: torch.Tensor, options: Options) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of shape (count, rank) and values of a CSR tensor, checked."""
    import torch

    x = detached(x, options)
    if x.dense_dim() > 0 or x.dim() > 3:
        raise UnsupportedTypeError(
            "expected a CSR matrix or one batch of them, which is what a CSRSparseMatrix holds, "
            f"got shape {tuple(x.shape)} with {x.dense_dim()} dense dimensions"
        )
    if str(x.dtype) not in _CSR_DTYPES:
        raise UnsupportedDtypeError(
            f"TensorFlow has CSR matrices only of {', '.join(_CSR_DTYPES)}, got {x.dtype}; convert "
            "x.to_sparse() to a SparseTensor instead"
        )
    _refusals.require_copy_allowed(
        options.get("copy"), "TensorFlow makes the row pointers of a CSRSparseMatrix itself"
    )
    crow, col, values = x.crow_indices(), x.col_indices(), x.values()
    batched = x.dim() == 3
    if not batched:
        crow, col, values = crow.unsqueeze(0), col.unsqueeze(0), values.unsqueeze(0)
    indices = []
    for i in range(crow.shape[0]):
        _check_csr(crow[i], col[i], x.shape)
        row = torch.arange(crow.shape[1] - 1, device=x.device).repeat_interleave(crow[i].diff())
        columns = [row, col[i].long()]
        if batched:
            columns.insert(0, torch.full_like(row, i))
        indices.append(torch.stack(columns, dim=1))
    return torch.cat(indices), values.reshape(-1)


def _rows_made(indices: Explanation) -> Explanation:
    return _explanation.copied(indices, "TensorFlow makes the row pointers")


def _csr_to_tf(x: torch.Tensor, options: Options) -> Assembly:
    indices, values = _csr_as_coo(x, options)

    def make(parts: Sequence[Any]) -> Any:
        import tensorflow as tf

        # The class has no public name (TensorFlow 2.12 to 2.21).
        from tensorflow.python.ops.linalg.sparse import sparse_csr_matrix_ops

        try:
            return sparse_csr_matrix_ops.CSRSparseMatrix(make_sparse(x.shape, parts))
        except tf.errors.OpError as e:
            raise TensorFlowError(f"could not make a CSRSparseMatrix: {e}") from e

    def kind() -> tuple[str, tuple[int, ...]]:
        return "CSRSparseMatrix", tuple(x.shape)

    return kind, parts_to_tf(indices, values, options, explained=_rows_made), make


def _parts_of_compressed(x: torch.Tensor) -> Parts:
    """The parts of a CSR tensor, or of a similar layout that TensorFlow lacks."""
    import torch

    by_rows = x.layout in (torch.sparse_csr, torch.sparse_bsr)
    outer = x.crow_indices() if by_rows else x.ccol_indices()
    inner = x.col_indices() if by_rows else x.row_indices()

    def make(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        values = parts[2]
        return torch.sparse_compressed_tensor(
            *parts,
            x.shape,
            dtype=values.dtype,
            layout=x.layout,
            device=values.device,
            check_invariants=False,
        )

    return (outer, inner, x.values()), make


def _refuse_layout(x: torch.Tensor, options: Options) -> Any:
    raise UnsupportedTypeError(
        f"TensorFlow has sparse values in COO and CSR form only, got layout {x.layout}; convert "
        "it first: x.to_sparse_csr(), or x.to_sparse()"
    )


COMPOSITES = (
    Composite(
        name="sparse csr",
        tf_keys=("tensorflow.python.ops.linalg.sparse.sparse_csr_matrix_ops.CSRSparseMatrix",),
        torch_keys=("torch.sparse_csr",),
        to_torch=of_parts(TO_TORCH, _csr_to_torch),
        to_tf=of_parts(TO_TF, _csr_to_tf),
        parts=_parts_of_compressed,
    ),
    Composite(
        name="sparse layout that TensorFlow lacks",
        torch_keys=("torch.sparse_csc", "torch.sparse_bsr", "torch.sparse_bsc"),
        to_tf=of_parts(TO_TF, _refuse_layout),
        parts=_parts_of_compressed,
    ),
)
