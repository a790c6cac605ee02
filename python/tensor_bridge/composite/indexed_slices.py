"""tf.IndexedSlices, TensorFlow's sparse gradients, and torch's: COO with one sparse dimension."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _classify, _explanation
from tensor_bridge.composite import sparse
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
from tensor_bridge.errors import CopyRequiredError, MismatchError, UnsupportedTypeError

if TYPE_CHECKING:
    import torch

    from tensor_bridge._explanation import Explanation

__all__ = ["COMPOSITES", "coo_to_tf", "explain_coo"]


def _tensor(value: Any) -> Any:
    """``value`` as a tensor: tf.IndexedSlices keep what they were given, lists too."""
    if _C.is_eager_tensor(value) or _classify.is_tensorflow_value(value):
        return value
    import tensorflow as tf

    return tf.convert_to_tensor(value)


def _dense_shape(slices: Any) -> tuple[int, ...]:
    if slices.dense_shape is None:
        raise UnsupportedTypeError(
            "expected tf.IndexedSlices with a dense_shape, got None: torch's sparse tensors have a "
            "size. Give one: tf.IndexedSlices(s.values, s.indices, dense_shape)"
        )
    shape = sparse.sizes(_tensor(slices.dense_shape))
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


def _to_torch(slices: Any, options: Options) -> torch.Tensor:
    values = sparse.values_to_torch(_tensor(slices.values), options)
    where = _tensor(slices.indices)
    cast = _needs_cast(where, options)
    with part("indices"):
        indices = to_dense_torch(where, structural(options))
    shape = _dense_shape(slices)
    if cast:
        indices = indices.long()
    sparse.check_range(indices.unsqueeze(1), shape[:1])
    # Whatever the order is: a gradient is summed, and nobody relies on its flag.
    return sparse.make_coo(indices.unsqueeze(0), values, shape, coalesced=False)


def _explain(slices: Any, options: Options) -> Explanation:
    values = sparse.explain_values(_tensor(slices.values), options)
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
    sparse.check_range(to_dense_torch(where, {}).unsqueeze(1), shape[:1])
    return _explanation.combined(
        "sparse COO tensor", [("values", values), ("indices", indices)], like=values, shape=shape
    )


def _coo_parts(x: torch.Tensor, options: Options) -> tuple[torch.Tensor, torch.Tensor]:
    if x.sparse_dim() != 1:
        raise UnsupportedTypeError(
            "expected a COO tensor with dense values only if it has one sparse dimension, as "
            f"tf.IndexedSlices have, got {x.sparse_dim()} sparse and {x.dense_dim()} dense "
            "dimensions; make all of them sparse first: x.to_dense().to_sparse()"
        )
    x = sparse.detached(x, options)
    indices = x._indices()[0]
    sparse.check_range(indices.unsqueeze(1), tuple(x.shape[:1]))
    return indices, x._values()


def coo_to_tf(x: torch.Tensor, options: Options) -> Any:
    """Converts a COO tensor with dense dimensions to tf.IndexedSlices, in the order it has."""
    indices, values = _coo_parts(x, options)
    with part("values"):
        tf_values = component_to_tf(values, options)
    with part("indices"):
        tf_indices = component_to_tf(indices, sparse.index_options(options))
    import tensorflow as tf

    return tf.IndexedSlices(tf_values, tf_indices, tf.constant(list(x.shape), tf.int64))


def explain_coo(x: torch.Tensor, options: Options) -> Explanation:
    """What `coo_to_tf` would do."""
    indices, values = _coo_parts(x, options)
    with part("values"):
        explained = explain_to_tf(values, options)
    with part("indices"):
        where = explain_to_tf(indices, sparse.index_options(options))
    return _explanation.combined(
        "IndexedSlices",
        [("values", explained), ("indices", where)],
        like=explained,
        shape=tuple(x.shape),
    )


COMPOSITES = (
    Composite(
        name="indexed slices",
        tf_keys=("tensorflow.python.framework.indexed_slices.IndexedSlices",),
        to_torch=_to_torch,
        explain=_explain,
    ),
)
