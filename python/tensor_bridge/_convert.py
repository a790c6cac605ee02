"""One dense tensor onto a device of TensorFlow's: what the extension leaves to Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _options

if TYPE_CHECKING:
    import torch

__all__ = ["convert_back_to_device"]


def convert_back_to_device(
    x: torch.Tensor, *, device: Any, copy: bool | None = None, **options: Any
) -> Any:
    """Converts to a tf.Tensor on ``device``."""
    return _options.place(_C.convert_tensor_back(x, copy=copy, **options), device, copy)
