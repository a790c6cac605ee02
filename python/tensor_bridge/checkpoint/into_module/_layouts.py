"""How the weights of a Keras layer are laid out in the torch module of the same kind.

A layout takes a module and weights by role ("kernel", "forward/bias") and gives the module's own
tensors. Not for: names of layers (_load_into.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tensor_bridge.checkpoint.into_module._attention_layout import attention
from tensor_bridge.checkpoint.into_module._conv_layouts import conv, conv_transpose, separable
from tensor_bridge.checkpoint.into_module._kernel_layouts import (
    conv1d_of_gpt2,
    embedding,
    is_conv1d_of_gpt2,
    linear,
    prelu,
)
from tensor_bridge.checkpoint.into_module._made_with import MadeWith
from tensor_bridge.checkpoint.into_module._norm_layouts import batch_norm, plain_norm, rms_norm
from tensor_bridge.checkpoint.into_module._recurrent_layouts import recurrent
from tensor_bridge.checkpoint.into_module._roles import MisfitError, is_state

if TYPE_CHECKING:
    from torch import nn

    from tensor_bridge.checkpoint.into_module._roles import Weights

    Layout = Callable[[Any, Weights], Weights]

__all__ = ["MisfitError", "has_parts", "is_state", "layout_of"]


def has_parts(module: nn.Module) -> bool:
    """Whether roles of this kind of module have several parts, "forward/kernel"."""
    from torch import nn

    return isinstance(module, (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention))


def layout_of(module: nn.Module, made_with: MadeWith | None = None) -> Layout | None:
    """The layout for a module, or None for one whose tensors are taken as they are."""
    from torch import nn

    options = made_with or MadeWith()
    table: list[tuple[Any, Any]] = [
        (nn.Linear, linear),
        (
            (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
            partial(conv_transpose, made_with=options),
        ),
        ((nn.Conv1d, nn.Conv2d, nn.Conv3d), partial(conv, made_with=options)),
        (
            (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
            partial(batch_norm, made_with=options),
        ),
        (
            (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
            plain_norm,
        ),
        (nn.RMSNorm, rms_norm),
        ((nn.Embedding, nn.EmbeddingBag), embedding),
        (nn.PReLU, prelu),
        ((nn.RNNBase, nn.RNNCellBase), partial(recurrent, made_with=options)),
        (nn.MultiheadAttention, attention),
    ]
    # A lazy norm is not an instance of the norm's class before its first input.
    kind = getattr(module, "cls_to_become", None) or type(module)
    for classes, layout in table:
        if issubclass(kind, classes):
            found: Layout = layout
            return found
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    if (
        isinstance(module, nn.Sequential)
        and len(module) == 2
        and all(isinstance(part, convolutions) for part in module)
    ):
        return partial(separable, made_with=options)
    if is_conv1d_of_gpt2(module):
        return conv1d_of_gpt2
    return None
