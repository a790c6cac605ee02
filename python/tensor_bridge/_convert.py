"""One value: what is not an eager tensor, and what a conversion would do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensor_bridge import _C

if TYPE_CHECKING:
    import torch

    from tensor_bridge._explanation import Explanation

__all__ = ["convert_other", "explain"]


def convert_other(t: Any, **options: Any) -> torch.Tensor:
    """Converts what is not an eager tensor; the extension calls it with the keywords as given."""
    from tensor_bridge import _classify

    if _classify.is_resource_variable(t):
        return _C.convert_variable(*_classify.variable_source(t), **options)
    raise _classify.refusal(t)


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
    from tensor_bridge import _classify, _explanation

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
        if _C.is_eager_tensor(t):
            return _explanation.from_native(_C.explain_tensor(t, **options))
        if _classify.is_resource_variable(t):
            source = _classify.variable_source(t)
            return _explanation.from_native(_C.explain_variable(*source, **options))
        return _explanation.refused(_classify.refusal(t))
    except Exception as e:
        return _explanation.refused(e)
