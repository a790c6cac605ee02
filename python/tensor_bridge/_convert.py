"""Any value, both directions: what the extension does not take as one dense tensor.

Lists, tuples, dicts and named tuples are walked by the extension; here are composite values, the
other kinds of nodes, and what is neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _explanation, _refusals, _structures, composite
from tensor_bridge._dense import explain_back
from tensor_bridge.composite import _registry
from tensor_bridge.errors import TensorBridgeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tensor_bridge._explanation import Explanation, StructureExplanation
    from tensor_bridge.composite import Composite

__all__ = ["convert_other", "convert_other_back", "convert_unknown", "explain"]


def _find(value: Any, back: bool) -> Composite | None:
    found = composite.for_torch(value) if back else composite.for_tensorflow(value)
    if found is None or (found.to_tf if back else found.to_torch) is None:
        return None
    return found


def _convert(found: Composite, value: Any, back: bool, options: dict[str, Any]) -> Any:
    convert = found.to_tf if back else found.to_torch
    assert convert is not None
    return convert(value, options)


def _convert_top(value: Any, back: bool, options: dict[str, Any]) -> Any:
    found = _find(value, back)
    if found is not None:
        _registry.check_extras(options)
        return _convert(found, value, back, options)
    if _C.is_torch_tensor(value) if back else _C.is_eager_tensor(value):
        # Raises what stands in the way.
        strict = _C.convert_tensor_back if back else _C.convert_tensor
        return strict(value, **_registry.dense(options))
    if not isinstance(value, _structures.PLAIN) and _structures.is_node(value):
        result, converted = _convert_node(value, back, options, "")
        if converted:
            return result
    raise _refusals.refusal_back(value) if back else _refusals.refusal(value)


def convert_other(t: Any, **options: Any) -> Any:
    """Converts to torch what is not one dense tensor; called with the keywords as given."""
    return _convert_top(t, False, options)


def convert_other_back(x: Any, **options: Any) -> Any:
    """Converts to TensorFlow what is not one dense tensor; called with the keywords as given."""
    return _convert_top(x, True, options)


def _convert_node(node: Any, back: bool, options: dict[str, Any], path: str) -> tuple[Any, int]:
    entries, values, rebuild = _structures.children(node)
    converted = 0
    results = []
    for entry, value in zip(entries, values, strict=True):
        result, count = _C.convert_node(value, int(back), options, path + entry)
        converted += count
        results.append(result)
    return rebuild(results), converted


def convert_unknown(value: Any, back: int, options: dict[str, Any], path: str) -> tuple[Any, int]:
    """Converts a part of a structure that the extension does not know.

    Args:
      value: A composite, a registered node, a string tensor, or anything else.
      back: 0 towards torch, 1 towards TensorFlow.
      options: The keywords of the call.
      path: Where the value is in the structure, for messages.

    Returns:
      The converted value, and how many leaves were converted in it.

    Raises:
      UnsupportedTypeError: the value is neither convertible nor plain data, and the keyword
        unknown is not "keep".
    """
    to_tf = bool(back)
    found = _find(value, to_tf)
    dense = _C.is_torch_tensor(value) if to_tf else _C.is_eager_tensor(value)
    if found is not None or dense:
        try:
            return _convert_top(value, to_tf, options), 1
        except TensorBridgeError as e:
            raise type(e)(f"at {path}: {e}") from e
    if _find(value, not to_tf) is not None:
        return value, 0  # of the target framework already
    if _structures.is_node(value):
        return _convert_node(value, to_tf, options, path)
    if options.get("unknown") == "keep":
        return value, 0
    refusal = _refusals.refusal_back(value) if to_tf else _refusals.refusal(value)
    raise type(refusal)(f"at {path}: {refusal}; unknown='keep' leaves such values as they are")


def _is_value(value: Any) -> bool:
    """Whether the value is a tensor or a composite of either framework."""
    if _C.is_eager_tensor(value) or _C.is_torch_tensor(value):
        return True
    return _find(value, False) is not None or _find(value, True) is not None


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every leaf with its path; plain data and unknown values are leaves."""
    if _is_value(value) or isinstance(value, _structures.PLAIN) or not _structures.is_node(value):
        yield path, value
        return
    entries, values, _ = _structures.children(value)
    for entry, child in zip(entries, values, strict=True):
        yield from _leaves(child, path + entry)


def _explain_leaf(value: Any, options: dict[str, Any]) -> Explanation:
    back = {k: v for k, v in options.items() if k in ("copy", "device", "dtype", "grad")}
    forward = {k: v for k, v in options.items() if k not in ("dtype", "grad")}
    try:
        found = _find(value, False)
        if found is not None and found.explain is not None:
            _registry.check_extras(forward)
            return found.explain(value, forward)
        if _C.is_eager_tensor(value):
            return _explanation.from_native(_C.explain_tensor(value, **_registry.dense(forward)))
        found = _find(value, True)
        if found is not None and found.explain_back is not None:
            return found.explain_back(value, back)
        if _C.is_torch_tensor(value):
            return explain_back(value, **back)
        return _explanation.refused(_refusals.refusal(value))
    except Exception as e:
        return _explanation.refused(e)


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
        return _explanation.StructureExplanation(
            tuple(
                (path, _explain_leaf(value, options))
                for path, value in _leaves(x, "")
                if not isinstance(value, _structures.PLAIN)
                and (unknown != "keep" or _is_value(value))
            )
        )
    except Exception as e:
        return _explanation.refused(e)
