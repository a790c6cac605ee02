"""Sparse values: tf.SparseTensor and torch's COO, CSRSparseMatrix and torch's CSR.

Both frameworks take indices on trust, and some of their kernels then read outside the values. Here
every index is checked, in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _explanation
from tensor_bridge.composite._registry import (
    Composite,
    Options,
    component_to_tf,
    explain_to_tf,
    explain_to_torch,
    part,
    structural,
    to_dense_torch,
)
from tensor_bridge.errors import (
    CopyRequiredError,
    InvalidOptionError,
    TensorFlowError,
    UnsupportedDtypeError,
    UnsupportedTypeError,
    ValueRangeError,
)

if TYPE_CHECKING:
    import torch

    from tensor_bridge._explanation import Explanation

__all__ = [
    "COMPOSITES",
    "assemble_coo",
    "check_range",
    "detached",
    "explain_values",
    "index_options",
    "is_ordered",
    "make_coo",
    "sizes",
    "values_to_torch",
]

_MAX_ELEMENTS = 2**63 - 1


# ---- indices -------------------------------------------------------------------------------------


def check_range(indices: torch.Tensor, shape: Sequence[int]) -> None:
    """Checks that each row of ``indices``, of shape (count, rank), lies within ``shape``.

    Raises:
      ValueRangeError: one does not.
    """
    if indices.numel() == 0:
        return
    # Not aminmax(dim=0): it starts torch's threads for a handful of numbers.
    low, high = indices.aminmax()
    if int(low) >= 0 and int(high) < min(shape):
        return
    for axis, size in enumerate(shape):
        for bad in (int(indices[:, axis].min()), int(indices[:, axis].max())):
            if not 0 <= bad < size:
                raise ValueRangeError(
                    f"expected indices from 0 to {size - 1} in dimension {axis}, got {bad}"
                )


def is_ordered(indices: torch.Tensor, shape: Sequence[int]) -> bool:
    """Whether the rows of ``indices`` ascend in lexicographic order, without a duplicate.

    They lie within ``shape``, whose elements 64 bits can number.
    """
    import torch

    count, rank = indices.shape
    if count < 2 or rank == 0:
        return bool(count < 2)
    numbers = torch.zeros_like(indices[:, 0])
    for axis, size in enumerate(shape):
        numbers.mul_(size).add_(indices[:, axis])
    return bool((numbers[1:] > numbers[:-1]).all())


def sizes(t: Any) -> tuple[int, ...]:
    """The numbers in a dense_shape tensor, checked.

    Raises:
      ValueRangeError: a size is negative, or torch could not number that many elements.
    """
    return _checked_sizes(to_dense_torch(t, {}))


def _checked_sizes(dense_shape: torch.Tensor) -> tuple[int, ...]:
    shape = tuple(int(size) for size in dense_shape.tolist())
    elements = 1
    for size in shape:
        if size < 0:
            raise ValueRangeError(f"expected sizes of at least 0, got the dense shape {shape}")
        elements *= size
    if elements > _MAX_ELEMENTS:
        raise ValueRangeError(
            f"the dense shape {shape} has more elements than torch can number (2**63 - 1); "
            "convert the indices and values instead"
        )
    return shape


def index_options(options: Options) -> dict[str, Any]:
    """The keywords for index tensors on the way to TensorFlow."""
    return {name: options[name] for name in ("copy", "device") if name in options}


def _check_values(t: Any, options: Options) -> None:
    if t.dtype.name == "string":
        raise UnsupportedDtypeError(
            "torch has no sparse tensors of strings; convert its parts one by one: .indices and "
            ".values, or tf.sparse.to_dense() of it"
        )
    if options.get("scale") is not None:
        raise UnsupportedDtypeError(
            "torch has no sparse tensors of quantized dtypes; use raw=True for the plain integers"
        )


def values_to_torch(t: Any, options: Options) -> torch.Tensor:
    """Converts the values of a sparse composite.

    Raises:
      UnsupportedDtypeError: torch has no sparse tensors of the dtype.
    """
    _check_values(t, options)
    with part("values"):
        values: torch.Tensor = to_dense_torch(t, options)
    return values


def explain_values(t: Any, options: Options) -> Explanation:
    """What `values_to_torch` would do; raises what stands in the way."""
    _check_values(t, options)
    with part("values"):
        return explain_to_torch(t, options)


def detached(x: torch.Tensor, options: Options) -> torch.Tensor:
    """``x`` without its autograd graph.

    Raises:
      InvalidOptionError: x requires grad, and the keyword grad is "raise".
    """
    if not x.requires_grad:
        return x
    if options.get("grad", "detach") == "raise":
        raise InvalidOptionError(
            'grad="raise" and the tensor requires grad: TensorFlow would get its values alone. '
            'detach() it, or use grad="detach"'
        )
    return x.detach()


# ---- COO -----------------------------------------------------------------------------------------


def make_coo(
    indices: torch.Tensor, values: torch.Tensor, shape: Sequence[int], *, coalesced: bool
) -> torch.Tensor:
    """A COO tensor over ``indices`` of shape (rank, count) and ``values``, both kept as they are.

    Their range must be checked already.
    """
    import torch

    return torch.sparse_coo_tensor(
        indices,
        values,
        tuple(shape),
        dtype=values.dtype,
        device=values.device,
        is_coalesced=coalesced,
        check_invariants=False,
    )


def _sparse_to_torch(sparse: Any, options: Options) -> torch.Tensor:
    values = values_to_torch(sparse.values, options)
    with part("indices"):
        indices: torch.Tensor = to_dense_torch(sparse.indices, structural(options))
    return _assemble(indices, values, sizes(sparse.dense_shape))


def _assemble(indices: torch.Tensor, values: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    check_range(indices, shape)
    return make_coo(indices.t(), values, shape, coalesced=is_ordered(indices, shape))


def assemble_coo(
    indices: torch.Tensor, values: torch.Tensor, dense_shape: torch.Tensor
) -> torch.Tensor:
    """The COO tensor of the converted parts of a tf.SparseTensor, which are checked."""
    return _assemble(indices, values, _checked_sizes(dense_shape))


def _explain_sparse(sparse: Any, options: Options) -> Explanation:
    values = explain_values(sparse.values, options)
    with part("indices"):
        indices = explain_to_torch(sparse.indices, structural(options))
    shape = sizes(sparse.dense_shape)
    check_range(to_dense_torch(sparse.indices, {}), shape)
    return _explanation.combined(
        "sparse COO tensor", [("values", values), ("indices", indices)], like=values, shape=shape
    )


def _coo_parts(x: torch.Tensor, options: Options) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Indices of shape (count, rank), values, and why they were copied, or ""."""
    x = detached(x, options)
    indices = x._indices().t()
    check_range(indices, x.shape)
    if is_ordered(indices, x.shape):
        return indices, x._values(), ""
    reason = (
        "the tensor is not coalesced, and TensorFlow's operations need indices in order without "
        "duplicates"
    )
    if options.get("copy") is False:
        raise CopyRequiredError(f"copy=False, but a copy is needed: {reason}. Use copy=None")
    try:
        # The flag may claim what is not so.
        x = make_coo(x._indices(), x._values(), x.shape, coalesced=False).coalesce()
    except RuntimeError as e:
        # Of old releases no NotImplementedError.
        if "implemented for" not in str(e):
            raise
        raise UnsupportedDtypeError(
            f"{reason}, but torch cannot coalesce {x.dtype}; convert it to another dtype first"
        ) from e
    return x._indices().t(), x._values(), reason


def _coo_to_tf(x: torch.Tensor, options: Options) -> Any:
    if x.dense_dim() > 0:
        from tensor_bridge.composite import indexed_slices

        return indexed_slices.coo_to_tf(x, options)
    indices, values, _ = _coo_parts(x, options)
    with part("values"):
        tf_values = component_to_tf(values, options)
    with part("indices"):
        tf_indices = component_to_tf(indices, index_options(options))
    import tensorflow as tf

    return tf.SparseTensor(tf_indices, tf_values, tf.constant(list(x.shape), tf.int64))


def _explain_coo(x: torch.Tensor, options: Options) -> Explanation:
    if x.dense_dim() > 0:
        from tensor_bridge.composite import indexed_slices

        return indexed_slices.explain_coo(x, options)
    indices, values, reason = _coo_parts(x, options)
    with part("values"):
        explained = explain_to_tf(values, options)
    with part("indices"):
        parts = [
            ("values", explained),
            ("indices", explain_to_tf(indices, index_options(options))),
        ]
    if reason:
        parts = [(name, _explanation.copied(e, reason)) for name, e in parts]
        explained = parts[0][1]
    return _explanation.combined("SparseTensor", parts, like=explained, shape=tuple(x.shape))


# ---- CSR -----------------------------------------------------------------------------------------


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
    from tensor_bridge.composite.ragged import check_splits

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
    with part("values"):
        tf_values = component_to_tf(values, options)
    with part("indices"):
        tf_indices = component_to_tf(indices, index_options(options))
    import tensorflow as tf
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


# ---- other layouts -------------------------------------------------------------------------------


def _refuse_layout(x: torch.Tensor, options: Options) -> Any:
    raise UnsupportedTypeError(
        f"TensorFlow has sparse values in COO and CSR form only, got layout {x.layout}; convert "
        "it first: x.to_sparse_csr(), or x.to_sparse()"
    )


COMPOSITES = (
    Composite(
        name="sparse",
        tf_keys=("tensorflow.python.framework.sparse_tensor.SparseTensor",),
        torch_keys=("torch.sparse_coo",),
        to_torch=_sparse_to_torch,
        explain=_explain_sparse,
        to_tf=_coo_to_tf,
        explain_back=_explain_coo,
    ),
    Composite(
        name="sparse csr",
        tf_keys=("tensorflow.python.ops.linalg.sparse.sparse_csr_matrix_ops.CSRSparseMatrix",),
        torch_keys=("torch.sparse_csr",),
        to_torch=_csr_to_torch,
        explain=_explain_csr,
        to_tf=_csr_to_tf,
        explain_back=_explain_csr_back,
    ),
    Composite(
        name="sparse layout that TensorFlow lacks",
        torch_keys=("torch.sparse_csc", "torch.sparse_bsr", "torch.sparse_bsc"),
        to_tf=_refuse_layout,
        explain_back=_refuse_layout,
    ),
)
