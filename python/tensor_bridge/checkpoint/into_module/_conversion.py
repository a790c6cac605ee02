"""Weights by role into the tensors of one module."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from tensor_bridge.checkpoint.into_module._layouts import MisfitError, has_parts, layout_of
from tensor_bridge.checkpoint.into_module._made_with import MadeWith
from tensor_bridge.checkpoint.into_module._origins import with_origins

if TYPE_CHECKING:
    import torch
    from torch import nn

    Weights = dict[str, torch.Tensor]


def converted(
    module: nn.Module,
    weights: Weights,
    flattened: tuple[int, ...] | None,
    made_with: MadeWith | None = None,
) -> tuple[Weights, dict[str, tuple[str, ...]]]:
    """The module's own tensors, and the roles that each comes from.

    Raises:
      MisfitError: They are not weights of this module.
    """
    layout = layout_of(module, made_with)
    if layout is None:
        return weights, {name: (name,) for name in weights}
    called = {role: role for role in weights}
    if not has_parts(module) and len({role.rpartition("/")[0] for role in weights}) == 1:
        # TimeDistributed and other wrappers: "wrapper/dense/kernel" is the wrapper's own here.
        called = {role.rpartition("/")[2]: role for role in weights}
    own = {short: weights[role] for short, role in called.items()}
    if flattened is not None:
        own = {role: _turned(module, x, flattened) for role, x in own.items()}
    made, origins = with_origins(layout, module, own)
    return made, {name: tuple(called[role] for role in roles) for name, roles in origins.items()}


def refuse_either_way(module: nn.Module, weights: Weights) -> None:
    """Refuses kernels of a TensorFlow Lite model whose sizes do not tell the order of their axes.

    Its converter transposes most of them, to (out, in) and (out, height, width, in), but not all:
    https://www.tensorflow.org/mlir/tfl_ops, fully_connected and batch_matmul.

    Raises:
      MisfitError: All sizes of a kernel are the same.
    """
    from torch import nn

    if not isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return
    for role, x in weights.items():
        if x.ndim > 1 and len(set(x.shape)) == 1 and x.shape[0] > 1:
            raise MisfitError(
                f"{role!r} of {tuple(x.shape)} fits either way round, and TensorFlow Lite has some "
                "kernels outputs first, others inputs first; a rule with the layout 'as_is' "
                "(outputs first) or 'transposed' says which"
            )


def laid_out(
    module: nn.Module, x: torch.Tensor, layout: str, flattened: tuple[int, ...] | None
) -> torch.Tensor:
    """A value in the layout that a rule demands.

    Raises:
      MisfitError: The value cannot have that layout.
    """
    if layout == "transposed" and x.ndim != 2:
        raise MisfitError(
            f"expected two dimensions to be transposed, got the shape {tuple(x.shape)}"
        )
    if flattened is None:
        return x if layout == "as_is" else x.t()
    if layout == "as_is" and x.ndim == 2:
        return _turned(module, x.t(), flattened).t()
    x = _turned(module, x, flattened)
    return x if layout == "as_is" else x.t()


def _turned(module: nn.Module, x: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    """A weight whose first axis counts a flattened picture, from channels last to first."""
    # A Linear's bias belongs to its outputs and stays; the weights of a norm belong to the picture.
    if x.ndim != 2 and not (x.ndim == 1 and "Linear" not in type(module).__name__):
        return x
    if prod(sizes) != x.shape[0]:
        raise MisfitError(f"flattened: {sizes} are not the {x.shape[0]} inputs of the kernel")
    channels, *spatial = sizes
    picture = x.reshape(*spatial, channels, -1)
    return picture.movedim(-2, 0).reshape(x.shape)
