"""Composite values that users register, with flatten and unflatten functions as in optree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tensor_bridge._options import checks_keywords
from tensor_bridge.composite import _registry
from tensor_bridge.composite._registry import (
    TO_TF,
    TO_TORCH,
    Assembly,
    Composite,
    Options,
    Parts,
    of_parts,
)

__all__ = ["register_composite", "unregister_composite"]

Flatten = Callable[[Any], "tuple[Any, ...]"]
Unflatten = Callable[[Any, Sequence[Any]], Any]


def _key(kind: type | str) -> str:
    if isinstance(kind, str):
        return kind
    if not isinstance(kind, type):
        raise TypeError(f"expected a class or the full name of one, got {kind!r}")
    return f"{kind.__module__}.{kind.__qualname__}"


def _components(flatten: Flatten, value: Any) -> tuple[list[Any], Any, list[str]]:
    flat = tuple(flatten(value))
    if len(flat) not in (2, 3):
        raise TypeError(
            "expected the flatten function to return (components, static) or (components, static, "
            f"names), got {len(flat)} values"
        )
    components = list(flat[0])
    names = [f"[{i}]" for i in range(len(components))] if len(flat) == 2 else list(flat[2])
    if len(names) != len(components):
        raise TypeError(f"got {len(components)} components and {len(names)} names")
    return components, flat[1], names


def _taker_apart(
    name: str, flatten: Flatten, unflatten: Unflatten
) -> Callable[[Any, Options], Assembly]:
    def take_apart(value: Any, options: Options) -> Assembly:
        components, static, names = _components(flatten, value)
        parts = [(*each, options, None) for each in zip(names, components, strict=True)]
        return name, parts, lambda converted: unflatten(static, converted)

    return take_apart


def _parts_of(take_apart: Callable[[Any, Options], Assembly]) -> Callable[[Any], Parts]:
    def parts(value: Any) -> Parts:
        _, found, make = take_apart(value, {})
        return [component for _, component, *_ in found], make

    return parts


@checks_keywords
def register_composite(
    name: str,
    tf_type: type | str,
    torch_type: type | str,
    *,
    tf_flatten: Flatten | None = None,
    torch_unflatten: Unflatten | None = None,
    torch_flatten: Flatten | None = None,
    tf_unflatten: Unflatten | None = None,
) -> None:
    """Registers a class of TensorFlow values and its counterpart class of torch values.

    A value is flattened into components (tensors or other convertible values) and a static rest.
    The components are converted with the keywords of the call, and the counterpart is made from
    them. As in optree, a flatten function returns ``(components, static)`` or ``(components,
    static, names)``, and an unflatten function takes ``(static, components)``. Subclasses are
    converted too. There are no namespaces, because a conversion has no keyword to choose one.

    Args:
      name: Name of the composite, unique, shown by `explain` and taken by `unregister_composite`.
      tf_type: The class of TensorFlow values, or its full name ("package.module.Class"), which
        makes importing it unnecessary.
      torch_type: The class of torch values, or its full name. It must not be a subclass of
        torch.Tensor, because those convert as tensors.
      tf_flatten: Takes a ``tf_type`` apart. Needed with ``torch_unflatten`` for `to_torch`.
      torch_unflatten: Makes a ``torch_type``.
      torch_flatten: Takes a ``torch_type`` apart. Needed with ``tf_unflatten`` for `to_tf`.
      tf_unflatten: Makes a ``tf_type``.

    Raises:
      ValueError: The name or one of the types is registered already.
      TypeError: A type is not a class, one class is derived from the other, a function is given
        without its partner, or no function is given.

    Example:
      >>> import tensorflow as tf, tensor_bridge
      >>> class Scaled:
      ...     def __init__(self, values, scale):
      ...         self.values, self.scale = values, scale
      >>> class TorchScaled:
      ...     def __init__(self, values, scale):
      ...         self.values, self.scale = values, scale
      >>> tensor_bridge.register_composite(
      ...     "scaled",
      ...     Scaled,
      ...     TorchScaled,
      ...     tf_flatten=lambda x: ([x.values], x.scale, ["values"]),
      ...     torch_unflatten=lambda scale, values: TorchScaled(values[0], scale),
      ... )
      >>> tensor_bridge.to_torch(Scaled(tf.constant([1, 2]), 0.5)).values
      tensor([1, 2], dtype=torch.int32)
      >>> tensor_bridge.unregister_composite("scaled")
    """
    for first, second, names in (
        (tf_flatten, torch_unflatten, "tf_flatten and torch_unflatten"),
        (torch_flatten, tf_unflatten, "torch_flatten and tf_unflatten"),
    ):
        if (first is None) != (second is None):
            raise TypeError(f"{names} belong together, one of them is missing")
    if tf_flatten is None and torch_flatten is None:
        raise TypeError("expected the functions of at least one direction, got none")
    if (
        isinstance(tf_type, type)
        and isinstance(torch_type, type)
        and (issubclass(tf_type, torch_type) or issubclass(torch_type, tf_type))
    ):
        raise TypeError(
            "expected a class for each side, neither derived from the other, got "
            f"{tf_type!r} and {torch_type!r}; register a container of either framework's tensors "
            "as a node of structures instead: optree.register_pytree_node(..., namespace="
            '"tensor_bridge")'
        )
    for base in torch_type.__mro__ if isinstance(torch_type, type) else ():
        if f"{base.__module__}.{base.__qualname__}" == "torch.Tensor":
            raise TypeError(
                "expected a class that is no torch.Tensor, because those convert as tensors, got "
                f"{torch_type!r}"
            )
    to_torch = to_tf = parts = None
    if tf_flatten is not None and torch_unflatten is not None:
        to_torch = of_parts(TO_TORCH, _taker_apart(name, tf_flatten, torch_unflatten))
    if torch_flatten is not None and tf_unflatten is not None:
        to_tf = of_parts(TO_TF, _taker_apart(name, torch_flatten, tf_unflatten))
    if torch_flatten is not None and torch_unflatten is not None:
        parts = _parts_of(_taker_apart(name, torch_flatten, torch_unflatten))
    _registry.register(
        Composite(
            name=name,
            tf_keys=(_key(tf_type),),
            torch_keys=(_key(torch_type),),
            to_torch=to_torch,
            to_tf=to_tf,
            parts=parts,
            of_user=True,
        )
    )


def unregister_composite(name: str) -> None:
    """Undoes a `register_composite`.

    Raises:
      ValueError: No composite of that name was registered with it.
    """
    _registry.unregister(name, of_user=True)
