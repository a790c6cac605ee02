"""Torch modules with one option changed, such that their weights still fit."""

from __future__ import annotations

from random import Random
from typing import Any

from torch import nn

CONVS = (nn.Conv1d, nn.Conv2d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def change_one(rng: Random, twin: nn.Module) -> str | None:
    """Changes an option of one module; None if there is none that can be changed."""
    changeable = [
        (path, module)
        for path, module in twin.named_modules()
        if type(module) in (*CONVS, *TRANSPOSED, *NORMS, nn.RNN, nn.MultiheadAttention)
    ]
    if not changeable:
        return None
    path, module = rng.choice(changeable)
    option = _change(rng, module)
    return None if option is None else f"{path}.{option}"


def _change(rng: Random, module: Any) -> str | None:
    if isinstance(module, nn.RNN):
        module.nonlinearity = "relu" if module.nonlinearity == "tanh" else "tanh"
        module.mode = f"RNN_{module.nonlinearity.upper()}"
        return "nonlinearity"
    if isinstance(module, nn.MultiheadAttention):
        others = [n for n in range(1, 7) if module.embed_dim % n == 0 and n != module.num_heads]
        if not others:
            return None
        module.num_heads = rng.choice(others)
        module.head_dim = module.embed_dim // module.num_heads
        return "num_heads"
    if isinstance(module, nn.GroupNorm) and rng.random() < 0.5:
        others = [n for n in range(1, 7) if module.num_channels % n == 0 and n != module.num_groups]
        if not others:
            return None
        module.num_groups = rng.choice(others)
        return "num_groups"
    if isinstance(module, NORMS):
        module.eps *= 100
        return "eps"
    option = rng.choice(("stride", "padding", "dilation"))
    value = getattr(module, option)
    if isinstance(value, str):
        option, value = "stride", module.stride
    setattr(module, option, tuple(n + 1 for n in value))
    return option
