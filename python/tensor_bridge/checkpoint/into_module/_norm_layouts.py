"""How the weights of norms are laid out in torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tensor_bridge.checkpoint.into_module._made_with import MadeWith
from tensor_bridge.checkpoint.into_module._roles import (
    MisfitError,
    by_role,
    need,
    reshaped,
)

if TYPE_CHECKING:
    from tensor_bridge.checkpoint.into_module._roles import Weights


def _norm(module: Any, weights: Weights, statistics: tuple[str, ...]) -> Weights:
    import torch

    affine = getattr(module, "weight", None) is not None
    numbered = any(name.lstrip("_").isdigit() for name in weights)
    roles = ("gamma", "beta", *statistics) if affine else statistics
    if statistics and len(weights) == len(statistics):
        roles = statistics  # scale=False and center=False
    if numbered and len(weights) != len(roles):
        raise MisfitError(
            f"expected {len(roles)} weights ({', '.join(roles)}), got {len(weights)} without "
            "names; a .keras or .h5 file says which they are"
        )
    found = by_role(weights, roles if numbered else ("gamma", "beta", *statistics))
    out: Weights = {}
    for role, name, neutral in (("gamma", "weight", 1.0), ("beta", "bias", 0.0)):
        target: Any = getattr(module, name, None)
        if role in found and target is None:
            if (found[role] != neutral).any():
                raise MisfitError(f"the layer has {role!r}, the module has no {name}")
        elif role in found:
            out[name] = reshaped(found[role], target.shape, role)
        elif target is not None:
            # scale=False and center=False leave out what would be 1 and 0.
            out[name] = torch.full(target.shape, neutral, dtype=target.dtype, device="cpu")
    for role, name in (("moving_mean", "running_mean"), ("moving_variance", "running_var")):
        if role in statistics:
            target = getattr(module, name, None)
            if target is None:
                raise MisfitError(f"the layer has {role!r}, the module keeps no statistics")
            out[name] = reshaped(need(found, role), target.shape, role)
    return out


def batch_norm(module: Any, weights: Weights, made_with: MadeWith) -> Weights:
    weights = _with_variance(weights, made_with.keras_version)
    return _norm(module, weights, ("moving_mean", "moving_variance"))


def _with_variance(weights: Weights, keras_version: str | None) -> Weights:
    """running_std of Keras 1, which holds the deviation or the variance, depending on the version.

    https://github.com/keras-team/keras/commits/1.0.6/keras/layers/normalization.py
    """
    old = next((name for name in weights if name.endswith("running_std")), None)
    if old is None:
        return weights
    version = [int(part) for part in re.findall(r"\d+", keras_version or "")]
    if not version:
        raise MisfitError(
            "running_std holds the deviation before Keras 1.0.6 and the variance since; say "
            "made_with={'keras_version': '1.2.2'}, or whichever it was"
        )
    if version < [1, 0, 6]:
        raise MisfitError(
            f"with Keras {keras_version} epsilon is added to the deviation, with torch to the "
            "variance"
        )
    return {"moving_variance" if name == old else name: x for name, x in weights.items()}


def plain_norm(module: Any, weights: Weights) -> Weights:
    return _norm(module, weights, ())


def rms_norm(module: Any, weights: Weights) -> Weights:
    found = by_role(weights, ("gamma",))
    return {"weight": reshaped(need(found, "gamma"), module.weight.shape, "gamma")}
