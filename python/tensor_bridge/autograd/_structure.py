"""Arguments and results that are structures: taken apart into leaves, and built again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tensor_bridge import _C, _classify, _nodes, composite

__all__ = ["Rebuild", "build", "flatten", "is_tf_leaf", "is_torch_leaf", "name_after"]

# None for a leaf, else how a node is made of its children, and theirs.
Rebuild = tuple[Callable[[list[Any]], Any], list[Any]] | None


def is_tf_leaf(value: Any) -> bool:
    """Whether a value is one of TensorFlow's, symbolic ones included."""
    return (
        _C.is_eager_tensor(value)
        or composite.for_tensorflow(value) is not None
        or _classify.is_tensorflow_value(value)
    )


def is_torch_leaf(value: Any) -> bool:
    """Whether a value is one of torch's."""
    return _C.is_torch_tensor(value) or composite.for_torch(value) is not None


def flatten(
    value: Any,
    is_tensor: Callable[[Any], bool],
    is_leaf: Callable[[Any], bool],
    leaves: list[Any],
) -> Rebuild:
    """Appends the leaves of a structure to ``leaves``; returns how to build it again.

    Args:
      value: Any nesting of dict, list, tuple, named tuple, dataclass, what optree knows, ...
      is_tensor: Whether a value is a tensor: what most leaves are, and quickly told.
      is_leaf: Whether another value is a leaf although it could be taken apart.
      leaves: Where the leaves go.
    """
    if is_tensor(value):
        leaves.append(value)
        return None
    kind = type(value)
    if kind is tuple or kind is list:
        return kind, [flatten(child, is_tensor, is_leaf, leaves) for child in value]
    if kind is dict:
        keys = list(value)
        specs = [flatten(child, is_tensor, is_leaf, leaves) for child in value.values()]
        return lambda children: dict(zip(keys, children, strict=True)), specs
    if isinstance(value, _nodes.PLAIN) or is_leaf(value) or not _nodes.is_node(value):
        leaves.append(value)
        return None
    _, children, rebuild = _nodes.children(value)
    return rebuild, [flatten(child, is_tensor, is_leaf, leaves) for child in children]


def build(spec: Rebuild, leaves: Iterator[Any]) -> Any:
    """The structure again, with other leaves."""
    if spec is None:
        return next(leaves)
    make, specs = spec
    return make([build(child, leaves) for child in specs])


def name_after(wrapper: Any, fn: Any) -> None:
    """Gives a wrapper the name and documentation of what it wraps.

    Not ``__wrapped__``, which `tf.function` and `inspect` would look through.
    """
    wrapper.__name__ = getattr(fn, "__name__", type(fn).__name__)
    wrapper.__doc__ = getattr(fn, "__doc__", None)
