"""One value: what is not an eager tensor, and what a conversion would do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensor_bridge import _C

if TYPE_CHECKING:
    import torch

    from tensor_bridge._explanation import Explanation

__all__ = ["convert_back_to_device", "convert_other", "convert_other_back", "explain"]


def convert_other(t: Any, **options: Any) -> torch.Tensor:
    """Converts what is not an eager tensor; the extension calls it with the keywords as given."""
    from tensor_bridge import _classify

    if _classify.is_resource_variable(t):
        return _C.convert_variable(*_classify.variable_source(t), **options)
    raise _classify.refusal(t)


def convert_other_back(x: Any, **options: Any) -> Any:
    """Converts to TensorFlow what is not a torch tensor; called with the keywords as given."""
    from tensor_bridge import _classify

    raise _classify.refusal_back(x)


def convert_back_to_device(
    x: torch.Tensor, *, device: Any, copy: bool | None = None, **options: Any
) -> Any:
    """Converts to a tf.Tensor on ``device``."""
    import tensorflow as tf

    from tensor_bridge._options import tf_device_name
    from tensor_bridge.errors import CopyRequiredError

    name = tf_device_name(device)
    result = _C.convert_pytorch_to_tf(x, copy=copy, **options)
    if (
        tf.DeviceSpec.from_string(result.backing_device)
        .to_string()
        .endswith(name.rsplit("/device:", 1)[-1])
    ):
        return result
    if copy is False:
        raise CopyRequiredError(
            f"copy=False, but a copy is needed: device={device!r} moves the tensor from "
            f"{result.backing_device}. Leave device= out, or allow the copy"
        )
    with tf.device(name):
        return tf.identity(result)


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
