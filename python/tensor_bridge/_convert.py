"""Both directions for values that are not one dense tensor.

The extension walks lists, tuples, dicts and named tuples. This module handles composite values, the
other kinds of nodes, and everything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _explanation, _structures
from tensor_bridge._options import checks_keywords
from tensor_bridge.composite import _registry
from tensor_bridge.composite._registry import TO_TF, TO_TORCH
from tensor_bridge.errors import TensorBridgeError, UnsupportedTypeError

if TYPE_CHECKING:
    from tensor_bridge._explanation import Explanation, StructureExplanation
    from tensor_bridge.composite._registry import Direction


def _convert_top(value: Any, direction: Direction, options: dict[str, Any]) -> Any:
    conversion = direction.conversion(value)
    if conversion is not None:
        _registry.check_extras(options)
        return conversion.convert(value, options)
    if direction.is_tensor(value):
        # Raises the reason why it cannot be imported.
        return direction.convert_dense(value, **_registry.dense(options))
    if not isinstance(value, _structures.PLAIN) and _structures.is_node(value):
        result, converted = _convert_node(value, direction, options, "")
        if converted:
            return result
    raise direction.refusal(value)


def other_to_torch(t: Any, **options: Any) -> Any:
    """Converts a value that is not one dense tensor to torch; takes the keywords as given."""
    return _convert_top(t, TO_TORCH, options)


def other_to_tf(x: Any, **options: Any) -> Any:
    """Converts a value that is not one dense tensor to TensorFlow; takes the keywords as given."""
    return _convert_top(x, TO_TF, options)


def _convert_node(
    node: Any, direction: Direction, options: dict[str, Any], path: str
) -> tuple[Any, int]:
    entries, values, rebuild = _structures.children(node)
    converted = 0
    results = []
    for entry, value in zip(entries, values, strict=True):
        result, count = _C.convert_node(value, int(direction is TO_TF), options, path + entry)
        converted += count
        results.append(result)
    return rebuild(results), converted


def convert_unknown(value: Any, to_tf: int, options: dict[str, Any], path: str) -> tuple[Any, int]:
    """Converts a part of a structure that the extension does not know.

    Args:
      value: A composite, a registered node, a string tensor, or anything else.
      to_tf: 0 towards torch, 1 towards TensorFlow.
      options: The keywords of the call.
      path: Where the value is in the structure, for messages.

    Returns:
      The converted value, and how many leaves were converted in it.

    Raises:
      UnsupportedTypeError: the value is neither convertible nor plain data, and the keyword
        unknown is not "keep".
    """
    direction, other = (TO_TF, TO_TORCH) if to_tf else (TO_TORCH, TO_TF)
    if direction.conversion(value) is not None or direction.is_tensor(value):
        try:
            return _convert_top(value, direction, options), 1
        except TensorBridgeError as e:
            raise type(e)(f"at {path}: {e}") from e
    if other.conversion(value) is not None:
        return value, 0  # of the target framework already
    if _structures.is_node(value):
        return _convert_node(value, direction, options, path)
    if options.get("unknown") == "keep":
        return value, 0
    refusal = direction.refusal(value)
    raise type(refusal)(f"at {path}: {refusal}; unknown='keep' leaves such values as they are")


def _direction(value: Any) -> Direction | None:
    """The direction in which a tensor or a composite is converted; None for other values."""
    for direction in (TO_TORCH, TO_TF):
        if direction.is_tensor(value) or direction.conversion(value) is not None:
            return direction
    return None


def _is_value(value: Any) -> bool:
    return _direction(value) is not None


def _explain_leaf(value: Any, options: dict[str, Any]) -> Explanation:
    try:
        if _direction(value) is TO_TF:
            kept = {k: v for k, v in options.items() if k in ("copy", "device", "dtype", "grad")}
            return TO_TF.explain(value, kept)
        kept = {k: v for k, v in options.items() if k not in ("dtype", "grad")}
        if TO_TORCH.conversion(value) is not None:
            _registry.check_extras(kept)
        return TO_TORCH.explain(value, kept)
    except Exception as e:
        return _explanation.refused(e)


@checks_keywords
def explain(
    x: Any,
    *,
    copy: bool | None = None,
    device: Any = None,
    on_write: str = "copy",
    raw: bool = False,
    scale: Any = None,
    zero_point: Any = None,
    axis: int | None = None,
    strings: str = "tensor",
    unknown: str = "raise",
    live: bool = False,
    dtype: Any = None,
    grad: str = "detach",
) -> Explanation | StructureExplanation:
    """Tells what a conversion of ``x`` with the same keywords would do, and why.

    A TensorFlow value is explained on its way to torch, a torch value on its way to TensorFlow, a
    structure leaf by leaf. Changes nothing and never raises, whatever ``x`` and the values of the
    keywords are: a conversion that would fail is an `Explanation` with the action "refused".

    Example:
      >>> import tensorflow as tf, tensor_bridge
      >>> print(tensor_bridge.explain(tf.constant([1.0, 2.0])).action)
      shared
    """
    options = {
        "copy": copy,
        "device": device,
        "on_write": on_write,
        "raw": raw,
        "scale": scale,
        "zero_point": zero_point,
        "axis": axis,
        "strings": strings,
        "unknown": unknown,
        "live": live,
        "dtype": dtype,
        "grad": grad,
    }
    try:
        if _is_value(x) or isinstance(x, _structures.PLAIN) or not _structures.is_node(x):
            return _explain_leaf(x, options)
        leaves = tuple(
            (path, _explain_leaf(value, options))
            for path, value in _structures.leaves(x, _is_value)
            if not isinstance(value, _structures.PLAIN) and (unknown != "keep" or _is_value(value))
        )
        if not leaves:
            raise UnsupportedTypeError(
                "expected a structure with TensorFlow or torch values in it, got a "
                f"{type(x).__name__} without any"
            )
        return _explanation.StructureExplanation(leaves)
    except Exception as e:
        return _explanation.refused(e)
