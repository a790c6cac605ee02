"""One dense tensor onto a device of TensorFlow's: what the extension leaves to Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensor_bridge import _C

if TYPE_CHECKING:
    import torch

__all__ = ["convert_back_to_device"]


def convert_back_to_device(
    x: torch.Tensor, *, device: Any, copy: bool | None = None, **options: Any
) -> Any:
    """Converts to a tf.Tensor on ``device``."""
    import tensorflow as tf

    from tensor_bridge._options import tf_device_name
    from tensor_bridge.errors import CopyRequiredError

    name = tf_device_name(device)
    result = _C.convert_tensor_back(x, copy=copy, **options)
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
