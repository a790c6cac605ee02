"""tf.TensorArray: a list of torch tensors, one for each element."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _explanation
from tensor_bridge.composite._registry import (
    Composite,
    Options,
    component_to_torch,
    explain_to_torch,
    part,
)
from tensor_bridge.errors import SymbolicTensorError, UnsupportedTypeError

if TYPE_CHECKING:
    from tensor_bridge._explanation import Explanation

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
                "read and deleted then (clear_after_read=False keeps elements)"
            )
    return list(elements)


def _to_torch(array: Any, options: Options) -> list[Any]:
    results = []
    for i, element in enumerate(_elements(array)):
        with part(f"[{i}]"):
            results.append(component_to_torch(element, options))
    return results


def _explain(array: Any, options: Options) -> Explanation:
    parts = []
    for i, element in enumerate(_elements(array)):
        with part(f"[{i}]"):
            parts.append((f"[{i}]", explain_to_torch(element, options)))
    return _explanation.combined("list", parts)


# What TensorArray.write() and its like return: a proxy that wants to be used.


def _proxy_to_torch(proxy: Any, options: Options) -> Any:
    return _C.convert_tf_to_pytorch(proxy._tf_should_use_wrapped_value, **options)


def _explain_proxy(proxy: Any, options: Options) -> Explanation:
    return explain_to_torch(proxy._tf_should_use_wrapped_value, options)


COMPOSITES = (
    Composite(
        name="tensor array",
        tf_keys=("tensorflow.python.ops.tensor_array_ops.TensorArray",),
        to_torch=_to_torch,
        explain=_explain,
    ),
    Composite(
        name="proxy",
        tf_keys=("tensorflow.python.util.tf_should_use.ShouldUseWrapper",),
        to_torch=_proxy_to_torch,
        explain=_explain_proxy,
    ),
)
