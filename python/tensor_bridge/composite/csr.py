"""torch's CSR tensors and TensorFlow's CSRSparseMatrix; the layouts that TensorFlow lacks.

Every index is checked, in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _explanation
from tensor_bridge.composite._registry import (
    Composite,
    Options,
    Parts,
    explain_to_tf,
    explain_to_torch,
    part,
    structural,
    to_dense_torch,
)
from tensor_bridge.composite.coo import (
    check_range,
    components_to_tf,
    detached,
    explain_values,
    index_options,
    values_to_torch,
)
from tensor_bridge.composite.ragged import check_splits
from tensor_bridge.errors import (
    CopyRequiredError,
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
        starts = rows[1:-1] - 1  # the steps from one row into the next may go down
        starts = starts[(starts >= 0) & (starts < ascends.shape[0])]
        ascends[starts.long()] = True
        if not bool(ascends.all()):
            raise ValueRangeError(
                "expected ascending column indices without duplicates in each row; sort them "
                "first: sorted_indices() of a CSRSparseMatrix, coalesce() of a COO tensor"
            )


def _csr_to_torch(matrix: Any, options: Options) -> torch.Tensor:
    import torch

    shape = tuple(int(size) for size in matrix.shape)
    batches = []
    for rows, columns, values in _csr_components(matrix):
        x = values_to_torch(values, options)
        with part("indices"):
            crow = to_dense_torch(rows, structural(options))
            col = to_dense_torch(columns, structural(options))
        _check_csr(crow, col, shape)
        batches.append((crow, col, x))
    if len(shape) == 2:
        crow, col, x = batches[0]
    else:
        _check_batches(batches, options)
        crow, col, x = (torch.stack(tensors) for tensors in zip(*batches, strict=True))
    return torch.sparse_csr_tensor(
        crow, col, x, shape, dtype=x.dtype, device=x.device, check_invariants=False
    )


def _check_batches(batches: Sequence[tuple[Any, Any, Any]], options: Options) -> None:
    counts = sorted({int(values.shape[0]) for _, _, values in batches})
    if len(counts) != 1:
        raise UnsupportedTypeError(
            "torch's batches of CSR matrices need the same number of values in each matrix, got "
            f"a CSRSparseMatrix with {counts}; convert the matrices one by one, or "
            "to_sparse_tensor() of it"
        )
    if options.get("copy") is False:
        raise CopyRequiredError(
            "copy=False, but a copy is needed: torch keeps a batch of CSR matrices in tensors "
            "that TensorFlow's are stacked into. Use copy=None"
        )


def _explain_csr(matrix: Any, options: Options) -> Explanation:
    shape = tuple(int(size) for size in matrix.shape)
    components = _csr_components(matrix)
    parts: list[tuple[str, Explanation]] = []
    for rows, columns, values in components:
        parts.append(("values", explain_values(values, options)))
        for name, indices in (("row pointers", rows), ("column indices", columns)):
            with part("indices"):
                parts.append((name, explain_to_torch(indices, structural(options))))
        _check_csr(to_dense_torch(rows, {}), to_dense_torch(columns, {}), shape)
    if len(shape) == 3:
        _check_batches(components, options)
        reason = "the matrices of the batch are stacked"
        parts = [(name, _explanation.copied(e, reason)) for name, e in parts]
    like = parts[0][1] if parts else None
    return _explanation.combined("sparse CSR tensor", parts, like=like, shape=shape)


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
            f"TensorFlow has CSR matrices of {', '.join(_CSR_DTYPES)} only, got {x.dtype}; convert "
            "x.to_sparse() to a SparseTensor instead"
        )
    if options.get("copy") is False:
        raise CopyRequiredError(
            "copy=False, but a copy is needed: TensorFlow makes the row pointers of a "
            "CSRSparseMatrix itself. Use copy=None"
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


def _csr_to_tf(x: torch.Tensor, options: Options) -> Any:
    indices, values = _csr_as_coo(x, options)
    tf_indices, tf_values = components_to_tf(indices, values, options)
    import tensorflow as tf

    # The class has no public name (TensorFlow 2.12 to 2.21).
    from tensorflow.python.ops.linalg.sparse import sparse_csr_matrix_ops

    sparse = tf.SparseTensor(tf_indices, tf_values, tf.constant(list(x.shape), tf.int64))
    try:
        return sparse_csr_matrix_ops.CSRSparseMatrix(sparse)
    except tf.errors.OpError as e:
        raise TensorFlowError(f"could not make a CSRSparseMatrix: {e}") from e


def _explain_csr_back(x: torch.Tensor, options: Options) -> Explanation:
    indices, values = _csr_as_coo(x, options)
    with part("values"):
        explained = explain_to_tf(values, options)
    with part("indices"):
        made = _explanation.copied(
            explain_to_tf(indices, index_options(options)), "TensorFlow makes the row pointers"
        )
    return _explanation.combined(
        "CSRSparseMatrix",
        [("values", explained), ("indices", made)],
        like=explained,
        shape=tuple(x.shape),
    )


def _parts_of_compressed(x: torch.Tensor) -> Parts:
    """Of CSR, and of the layouts like it that TensorFlow lacks."""
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
        to_torch=_csr_to_torch,
        explain=_explain_csr,
        to_tf=_csr_to_tf,
        explain_back=_explain_csr_back,
        parts=_parts_of_compressed,
    ),
    Composite(
        name="sparse layout that TensorFlow lacks",
        torch_keys=("torch.sparse_csc", "torch.sparse_bsr", "torch.sparse_bsc"),
        to_tf=_refuse_layout,
        explain_back=_refuse_layout,
        parts=_parts_of_compressed,
    ),
)
