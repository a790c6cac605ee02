"""Any value, both directions: what the extension does not take as one dense tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensor_bridge import _C

if TYPE_CHECKING:
    from tensor_bridge._explanation import Explanation

__all__ = ["convert_other", "convert_other_back", "explain"]


def convert_other(t: Any, **options: Any) -> Any:
    """Converts to torch what is not one dense tensor; called with the keywords as given."""
    from tensor_bridge import _classify, composite
    from tensor_bridge.composite import _registry

    found = composite.for_tensorflow(t)
    if found is not None and found.to_torch is not None:
        return found.to_torch(t, options)
    if _C.is_eager_tensor(t):
        return _registry.to_dense_torch(t, options)  # raises what stands in the way
    raise _classify.refusal(t)


def convert_other_back(x: Any, **options: Any) -> Any:
    """Converts to TensorFlow what is not one dense tensor; called with the keywords as given."""
    from tensor_bridge import _classify, composite
    from tensor_bridge.composite import _registry

    found = composite.for_torch(x)
    if found is not None and found.to_tf is not None:
        return found.to_tf(x, options)
    if _C.is_torch_tensor(x):
        return _registry.to_dense_tf(x, options)  # raises what stands in the way
    raise _classify.refusal_back(x)


def explain(
    t: Any,
    *,
    copy: bool | None = None,
    device: Any = None,
    on_write: str = "copy",
    raw: bool = False,
    scale: Any = None,
    zero_point: Any = None,
    axis: int | None = None,
) -> Explanation:
    """Tells what `convert_tf_to_pytorch` would do with the same arguments, and why.

    Changes nothing and never raises, whatever ``t`` and the values of the keywords are: a
    conversion that would fail is an `Explanation` with the action "refused".

    Example:
      >>> import tensorflow as tf, tensor_bridge
      >>> print(tensor_bridge.explain(tf.constant([1.0, 2.0])).action)
      shared
    """
    from tensor_bridge import _classify, _explanation, composite

    options = {
        "copy": copy,
        "device": device,
        "on_write": on_write,
        "raw": raw,
        "scale": scale,
        "zero_point": zero_point,
        "axis": axis,
    }
    try:
        found = composite.for_tensorflow(t)
        if found is not None and found.explain is not None:
            return found.explain(t, options)
        if _C.is_eager_tensor(t):
            return _explanation.from_native(_C.explain_tensor(t, **options))
        return _explanation.refused(_classify.refusal(t))
    except Exception as e:
        return _explanation.refused(e)
