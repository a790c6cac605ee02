"""torch's COO tensors: tf.SparseTensor, and tf.IndexedSlices, which are sparse in one dimension.

Both frameworks take indices on trust, and some of their kernels then read outside the values. Here
every index is checked, in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _explanation, _refusals
from tensor_bridge.composite._registry import (
    Composite,
    Options,
    Parts,
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
    MismatchError,
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
    "components_to_tf",
    "detached",
    "explain_values",
    "index_options",
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


def _is_ordered(indices: torch.Tensor, shape: Sequence[int]) -> bool:
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


def _sizes(t: Any) -> tuple[int, ...]:
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


def components_to_tf(
    indices: torch.Tensor, values: torch.Tensor, options: Options
) -> tuple[Any, Any]:
    """The indices and values of a sparse tensor, converted; the values go first."""
    with part("values"):
        tf_values = component_to_tf(values, options)
    with part("indices"):
        return component_to_tf(indices, index_options(options)), tf_values


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


# ---- SparseTensor --------------------------------------------------------------------------------


def _make_coo(
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
    return _assemble(indices, values, _sizes(sparse.dense_shape))


def _assemble(indices: torch.Tensor, values: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    check_range(indices, shape)
    return _make_coo(indices.t(), values, shape, coalesced=_is_ordered(indices, shape))


def assemble_coo(
    indices: torch.Tensor, values: torch.Tensor, dense_shape: torch.Tensor
) -> torch.Tensor:
    """The COO tensor of the converted parts of a tf.SparseTensor, which are checked."""
    return _assemble(indices, values, _checked_sizes(dense_shape))


def _explain_sparse(sparse: Any, options: Options) -> Explanation:
    values = explain_values(sparse.values, options)
    with part("indices"):
        indices = explain_to_torch(sparse.indices, structural(options))
    shape = _sizes(sparse.dense_shape)
    check_range(to_dense_torch(sparse.indices, {}), shape)
    return _explanation.combined(
        "sparse COO tensor", [("values", values), ("indices", indices)], like=values, shape=shape
    )


def _coo_parts(x: torch.Tensor, options: Options) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Indices of shape (count, rank), values, and why they were copied, or ""."""
    x = detached(x, options)
    indices = x._indices().t()
    check_range(indices, x.shape)
    if _is_ordered(indices, x.shape):
        return indices, x._values(), ""
    reason = (
        "the tensor is not coalesced, and TensorFlow's operations need indices in order without "
        "duplicates"
    )
    if options.get("copy") is False:
        raise CopyRequiredError(f"copy=False, but a copy is needed: {reason}. Use copy=None")
    try:
        # The flag may claim what is not so.
        x = _make_coo(x._indices(), x._values(), x.shape, coalesced=False).coalesce()
    except RuntimeError as e:
        # Old releases raise no NotImplementedError.
        if "implemented for" not in str(e):
            raise
        raise UnsupportedDtypeError(
            f"{reason}, but torch cannot coalesce {x.dtype}; convert it to another dtype first"
        ) from e
    return x._indices().t(), x._values(), reason


def _coo_to_tf(x: torch.Tensor, options: Options) -> Any:
    if x.dense_dim() > 0:
        return _coo_to_slices(x, options)
    indices, values, _ = _coo_parts(x, options)
    tf_indices, tf_values = components_to_tf(indices, values, options)
    import tensorflow as tf

    return tf.SparseTensor(tf_indices, tf_values, tf.constant(list(x.shape), tf.int64))


def _explain_coo(x: torch.Tensor, options: Options) -> Explanation:
    if x.dense_dim() > 0:
        return _explain_coo_as_slices(x, options)
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


def _parts_of_coo(x: torch.Tensor) -> Parts:
    def make(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        indices, values = parts
        return _make_coo(indices, values, x.shape, coalesced=x.is_coalesced())

    return (x._indices(), x._values()), make


# ---- IndexedSlices -------------------------------------------------------------------------------


def _tensor(value: Any) -> Any:
    """``value`` as a tensor: tf.IndexedSlices keep what they were given, lists too."""
    if _C.is_eager_tensor(value) or _refusals.is_tensorflow_value(value):
        return value
    import tensorflow as tf

    return tf.convert_to_tensor(value)


def _dense_shape(slices: Any) -> tuple[int, ...]:
    if slices.dense_shape is None:
        raise UnsupportedTypeError(
            "expected tf.IndexedSlices with a dense_shape, got None: torch's sparse tensors have a "
            "size. Give one: tf.IndexedSlices(s.values, s.indices, dense_shape)"
        )
    shape = _sizes(_tensor(slices.dense_shape))
    got = tuple(_tensor(slices.values).shape)
    if shape[1:] != got[1:]:
        expected = ", ".join(["count", *(str(size) for size in shape[1:])])
        raise MismatchError(
            f"expected values of shape ({expected}) for the dense shape {shape}, got {got}"
        )
    return shape


def _needs_cast(indices: Any, options: Options) -> bool:
    """Whether the indices are int32, which torch's COO tensors do not take."""
    if indices.dtype.name == "int64":
        return False
    if options.get("copy") is False:
        raise CopyRequiredError(
            f"copy=False, but a copy is needed: the indices are {indices.dtype.name}, and "
            "torch's COO tensors need int64. Use copy=None"
        )
    return True


def _slices_to_torch(slices: Any, options: Options) -> torch.Tensor:
    values = values_to_torch(_tensor(slices.values), options)
    where = _tensor(slices.indices)
    cast = _needs_cast(where, options)
    with part("indices"):
        indices = to_dense_torch(where, structural(options))
    shape = _dense_shape(slices)
    if cast:
        indices = indices.long()
    check_range(indices.unsqueeze(1), shape[:1])
    # Whatever the order is: a gradient is summed, and nobody relies on its flag.
    return _make_coo(indices.unsqueeze(0), values, shape, coalesced=False)


def _explain_slices(slices: Any, options: Options) -> Explanation:
    values = explain_values(_tensor(slices.values), options)
    where = _tensor(slices.indices)
    cast = _needs_cast(where, options)
    with part("indices"):
        indices = explain_to_torch(where, structural(options))
    if cast:
        indices = replace(
            _explanation.copied(indices, "torch's COO tensors need int64 indices"),
            torch_dtype="torch.int64",
            nbytes=2 * (indices.nbytes or 0),
        )
    shape = _dense_shape(slices)
    check_range(to_dense_torch(where, {}).unsqueeze(1), shape[:1])
    return _explanation.combined(
        "sparse COO tensor", [("values", values), ("indices", indices)], like=values, shape=shape
    )


def _slices_parts(x: torch.Tensor, options: Options) -> tuple[torch.Tensor, torch.Tensor]:
    if x.sparse_dim() != 1:
        raise UnsupportedTypeError(
            "expected a COO tensor with dense values only if it has one sparse dimension, as "
            f"tf.IndexedSlices have, got {x.sparse_dim()} sparse and {x.dense_dim()} dense "
            "dimensions; make all of them sparse first: x.to_dense().to_sparse()"
        )
    x = detached(x, options)
    indices = x._indices()[0]
    check_range(indices.unsqueeze(1), tuple(x.shape[:1]))
    return indices, x._values()


def _coo_to_slices(x: torch.Tensor, options: Options) -> Any:
    """Converts a COO tensor with dense dimensions to tf.IndexedSlices, in the order it has."""
    indices, values = _slices_parts(x, options)
    tf_indices, tf_values = components_to_tf(indices, values, options)
    import tensorflow as tf

    return tf.IndexedSlices(tf_values, tf_indices, tf.constant(list(x.shape), tf.int64))


def _explain_coo_as_slices(x: torch.Tensor, options: Options) -> Explanation:
    """What `_coo_to_slices` would do."""
    indices, values = _slices_parts(x, options)
    with part("values"):
        explained = explain_to_tf(values, options)
    with part("indices"):
        where = explain_to_tf(indices, index_options(options))
    return _explanation.combined(
        "IndexedSlices",
        [("values", explained), ("indices", where)],
        like=explained,
        shape=tuple(x.shape),
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
        parts=_parts_of_coo,
    ),
    Composite(
        name="indexed slices",
        tf_keys=("tensorflow.python.framework.indexed_slices.IndexedSlices",),
        to_torch=_slices_to_torch,
        explain=_explain_slices,
    ),
)
