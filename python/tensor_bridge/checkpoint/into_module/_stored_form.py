"""How a module stores a tensor: directly, or as the parts from which a formula computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensor_bridge.checkpoint.into_module._layouts import MisfitError
from tensor_bridge.checkpoint.into_module._places import joined

if TYPE_CHECKING:
    import torch


def stored_form(module: Any, name: str, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors that a module stores for one of its tensors, by their names in the module.

    A tensor parametrized by ``torch.nn.utils.parametrize``, weight normalization for example, is
    stored as the originals that give it.

    Raises:
      MisfitError: They cannot be computed from the tensor.
    """
    parts = getattr(module, "parametrizations", {})
    if name not in parts:
        return _with_weight_norm(module, name, x)
    prefix = joined("parametrizations", name)
    shape = tuple(getattr(module, name).shape)
    if tuple(x.shape) != shape:
        raise MisfitError(f"expected {name!r} of {shape}, got {tuple(x.shape)}")
    value: Any = x
    try:
        for step in reversed(list(parts[name])):
            value = step.right_inverse(value)
    except (AttributeError, NotImplementedError, RuntimeError, ValueError) as e:
        raise MisfitError(
            f"{name!r} is parametrized by {type(step).__name__}, which cannot be inverted: {e}"
        ) from None
    if parts[name].is_tensor:
        return {f"{prefix}.original": value}
    return {f"{prefix}.original{i}": part for i, part in enumerate(value)}


def _with_weight_norm(module: Any, name: str, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """A tensor of a module with the older ``torch.nn.utils.weight_norm``."""
    import torch

    for hook in module._forward_pre_hooks.values():
        if type(hook).__name__ == "WeightNorm" and getattr(hook, "name", None) == name:
            norm = torch.norm_except_dim(x, 2, hook.dim)
            return {f"{name}_g": norm, f"{name}_v": x}
    return {name: x}
