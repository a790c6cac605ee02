"""tf.TensorArray: a list of torch tensors, one for each element."""

from __future__ import annotations

from typing import Any

from tensor_bridge.composite._registry import (
    TO_TORCH,
    Assembly,
    Composite,
    Options,
    instead,
    of_parts,
)
from tensor_bridge.errors import SymbolicTensorError, UnsupportedTypeError

__all__ = ["COMPOSITES"]


def _elements(array: Any) -> list[Any]:
    """The elements, without reading them: read() may delete what it returns."""
    elements = getattr(array._implementation, "_tensor_array", None)
    if elements is None:
        raise SymbolicTensorError(
            "expected a tf.TensorArray outside a graph, got one of a tf.function, whose elements "
            "have no value yet; return stack() of it from the function"
        )
    for i, element in enumerate(elements):
        if element is None:
            raise UnsupportedTypeError(
                f"element {i} of the tf.TensorArray has no value: it was never written, or it was "
                "deleted when it was read (clear_after_read=False keeps elements)"
            )
    return list(elements)


def _to_torch(array: Any, options: Options) -> Assembly:
    parts = [(f"[{i}]", element, options, None) for i, element in enumerate(_elements(array))]
    return "list", parts, list


# TensorArray.write() and similar methods return a proxy that warns if it is not used.
def _wrapped(proxy: Any, options: Options) -> tuple[Any, Options]:
    return proxy._tf_should_use_wrapped_value, options


COMPOSITES = (
    Composite(
        name="tensor array",
        tf_keys=("tensorflow.python.ops.tensor_array_ops.TensorArray",),
        to_torch=of_parts(TO_TORCH, _to_torch),
    ),
    Composite(
        name="proxy",
        tf_keys=("tensorflow.python.util.tf_should_use.ShouldUseWrapper",),
        to_torch=instead(TO_TORCH, _wrapped),
    ),
)
