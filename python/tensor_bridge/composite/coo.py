"""torch's COO tensors: tf.SparseTensor, and tf.IndexedSlices, which are sparse in one dimension.

Neither framework checks indices, and some of their kernels then read outside the values. Here every
index is checked, in both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
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
    structural,
    to_dense_torch,
)
from tensor_bridge.errors import (
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
    "check_values",
    "detached",
    "make_sparse",
    "parts_to_tf",
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
    # aminmax(dim=0) would start torch's threads for a handful of numbers.
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

    The rows must lie within ``shape``, whose number of elements fits in 64 bits.
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


def check_values(t: Any, options: Options) -> None:
    """Checks the values of a sparse composite.

    Raises:
      UnsupportedDtypeError: torch has no sparse tensors of the dtype.
    """
    if t.dtype.name == "string":
        raise UnsupportedDtypeError(
            "torch has no sparse tensors of strings; convert its parts one by one: .indices and "
            ".values, or tf.sparse.to_dense() of it"
        )
    if options.get("scale") is not None:
        raise UnsupportedDtypeError(
            "torch has no sparse tensors of quantized dtypes; use raw=True for the plain integers"
        )


def parts_to_tf(
    indices: torch.Tensor,
    values: torch.Tensor,
    options: Options,
    *,
    explained: Callable[[Explanation], Explanation] | None = None,
) -> tuple[Part, Part]:
    """The values and indices of a sparse tensor, to be converted; `explained` is the indices'."""
    kept = {name: options[name] for name in ("copy", "device") if name in options}
    return ("values", values, options, None), ("indices", indices, kept, explained)


def detached(x: torch.Tensor, options: Options) -> torch.Tensor:
    """``x`` without its autograd graph.

    Raises:
      InvalidOptionError: x requires grad, and the keyword grad is "raise".
    """
    if not x.requires_grad:
        return x
    if options.get("grad", "detach") == "raise":
        raise InvalidOptionError(
            'grad="raise" and the tensor requires grad: TensorFlow would get only its values. '
            'detach() it, or use grad="detach"'
        )
    return x.detach()


# ---- SparseTensor --------------------------------------------------------------------------------


def _make_coo(
    indices: torch.Tensor, values: torch.Tensor, shape: Sequence[int], *, coalesced: bool
) -> torch.Tensor:
    """A COO tensor over ``indices`` of shape (rank, count) and ``values``, without a copy.

    The caller has checked the range of the indices.
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


def _sparse_to_torch(sparse: Any, options: Options) -> Assembly:
    check_values(sparse.values, options)
    shape = _sizes(sparse.dense_shape)

    def kind() -> tuple[str, tuple[int, ...]]:
        check_range(to_dense_torch(sparse.indices, {}), shape)
        return "sparse COO tensor", shape

    parts = (
        ("values", sparse.values, options, None),
        ("indices", sparse.indices, structural(options), None),
    )
    return kind, parts, lambda made: _assemble(made[1], made[0], shape)


def _assemble(indices: torch.Tensor, values: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    check_range(indices, shape)
    return _make_coo(indices.t(), values, shape, coalesced=_is_ordered(indices, shape))


def assemble_coo(
    indices: torch.Tensor, values: torch.Tensor, dense_shape: torch.Tensor
) -> torch.Tensor:
    """The COO tensor of the converted parts of a tf.SparseTensor, which are checked."""
    return _assemble(indices, values, _checked_sizes(dense_shape))


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
    _refusals.require_copy_allowed(options.get("copy"), reason)
    try:
        # The flag is_coalesced may be wrong.
        x = _make_coo(x._indices(), x._values(), x.shape, coalesced=False).coalesce()
    except RuntimeError as e:
        # Old releases of torch raise RuntimeError, not NotImplementedError.
        if "implemented for" not in str(e):
            raise
        raise UnsupportedDtypeError(
            f"{reason}, but torch cannot coalesce {x.dtype}; convert it to another dtype first"
        ) from e
    return x._indices().t(), x._values(), reason


def _coo_to_tf(x: torch.Tensor, options: Options) -> Assembly:
    if x.dense_dim() > 0:
        return _coo_to_slices(x, options)
    indices, values, reason = _coo_parts(x, options)
    parts: Sequence[Part] = parts_to_tf(indices, values, options)
    if reason:
        copied = partial(_explanation.copied, reason=reason)
        parts = [(*part[:3], copied) for part in parts]

    def kind() -> tuple[str, tuple[int, ...]]:
        return "SparseTensor", tuple(x.shape)

    return kind, parts, partial(make_sparse, x.shape)


def make_sparse(shape: Sequence[int], parts: Sequence[Any]) -> Any:
    """A tf.SparseTensor of converted values and indices."""
    import tensorflow as tf

    values, indices = parts
    return tf.SparseTensor(indices, values, tf.constant(list(shape), tf.int64))


def _parts_of_coo(x: torch.Tensor) -> Parts:
    def make(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        indices, values = parts
        return _make_coo(indices, values, x.shape, coalesced=x.is_coalesced())

    return (x._indices(), x._values()), make


# ---- IndexedSlices -------------------------------------------------------------------------------


def _tensor(value: Any) -> Any:
    """``value`` as a tensor: tf.IndexedSlices hold whatever they were given, even lists."""
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
    _refusals.require_copy_allowed(
        options.get("copy"),
        f"the indices are {indices.dtype.name}, and torch's COO tensors need int64",
    )
    return True


def _as_int64(indices: Explanation) -> Explanation:
    return replace(
        _explanation.copied(indices, "torch's COO tensors need int64 indices"),
        torch_dtype="torch.int64",
        nbytes=2 * (indices.nbytes or 0),
    )


def _slices_to_torch(slices: Any, options: Options) -> Assembly:
    values, indices = _tensor(slices.values), _tensor(slices.indices)
    check_values(values, options)
    cast = _needs_cast(indices, options)
    shape = _dense_shape(slices)

    def kind() -> tuple[str, tuple[int, ...]]:
        check_range(to_dense_torch(indices, {}).unsqueeze(1), shape[:1])
        return "sparse COO tensor", shape

    def make(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        values, indices = parts
        if cast:
            indices = indices.long()
        check_range(indices.unsqueeze(1), shape[:1])
        # The order does not matter: gradients are summed, and nobody relies on the flag.
        return _make_coo(indices.unsqueeze(0), values, shape, coalesced=False)

    parts = (
        ("values", values, options, None),
        ("indices", indices, structural(options), _as_int64 if cast else None),
    )
    return kind, parts, make


def _coo_to_slices(x: torch.Tensor, options: Options) -> Assembly:
    """A COO tensor with dense dimensions as tf.IndexedSlices, in its own order."""
    if x.sparse_dim() != 1:
        raise UnsupportedTypeError(
            "expected a COO tensor with dense values only if it has one sparse dimension, as "
            f"tf.IndexedSlices have, got {x.sparse_dim()} sparse and {x.dense_dim()} dense "
            "dimensions; make all of them sparse first: x.to_dense().to_sparse()"
        )
    x = detached(x, options)
    indices = x._indices()[0]
    check_range(indices.unsqueeze(1), tuple(x.shape[:1]))

    def make(parts: Sequence[Any]) -> Any:
        import tensorflow as tf

        return tf.IndexedSlices(*parts, tf.constant(list(x.shape), tf.int64))

    def kind() -> tuple[str, tuple[int, ...]]:
        return "IndexedSlices", tuple(x.shape)

    return kind, parts_to_tf(indices, x._values(), options), make


COMPOSITES = (
    Composite(
        name="sparse",
        tf_keys=("tensorflow.python.framework.sparse_tensor.SparseTensor",),
        torch_keys=("torch.sparse_coo",),
        to_torch=of_parts(TO_TORCH, _sparse_to_torch),
        to_tf=of_parts(TO_TF, _coo_to_tf),
        parts=_parts_of_coo,
    ),
    Composite(
        name="indexed slices",
        tf_keys=("tensorflow.python.framework.indexed_slices.IndexedSlices",),
        to_torch=of_parts(TO_TORCH, _slices_to_torch),
    ),
)
