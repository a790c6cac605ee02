"""One dense tensor: what the extension leaves to Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _explanation, _options

if TYPE_CHECKING:
    import torch

    from tensor_bridge._explanation import Explanation


def to_tf_on_device(
    x: torch.Tensor, *, device: Any, copy: bool | None = None, **options: Any
) -> Any:
    """Converts to a tf.Tensor on ``device``."""
    return _options.place(_C.tensor_to_tf(x, copy=copy, **options), device, copy)


def explain_to_tf(
    x: torch.Tensor, *, device: Any = None, copy: bool | None = None, **options: Any
) -> Explanation:
    """What `convert_pytorch_to_tf` would do with a torch.Tensor."""
    explanation = _explanation.from_native(_C.explain_to_tf(x, copy=copy, **options), "to_tf")
    return explanation if device is None else _options.explain_place(explanation, device, copy)


def torch_address(x: torch.Tensor) -> int:
    """Address of the elements, read through a const pointer, which does not end a sharing."""
    if hasattr(x, "const_data_ptr"):  # torch 2.13 and newer
        return int(x.const_data_ptr())
    import torch

    # This address is the storage's.
    return int(torch._C._data_address(x) + x.storage_offset() * x.element_size())
