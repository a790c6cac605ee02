"""Weights of a layer by role, "kernel" or "bias", whatever its library calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Weights = dict[str, torch.Tensor]

__all__ = ["MisfitError", "bias_of", "by_role", "need"]


class MisfitError(Exception):
    """Why weights cannot be those of a module; not for users, who get a report."""


_ALIASES = {
    "weights": "kernel",  # TF-Slim
    "biases": "bias",
    "embedding": "embeddings",
    "scale": "gamma",
    "offset": "beta",
}


def by_role(weights: Weights, roles: tuple[str, ...]) -> Weights:
    """Weights by the names of ``roles``; numbers, as in .weights.h5, count them."""
    found: Weights = {}
    for name, x in weights.items():
        role = name.lstrip("_")
        if role.isdigit():
            if int(role) >= len(roles):
                raise MisfitError(f"expected {len(roles)} weights ({', '.join(roles)}), got more")
            role = roles[int(role)]
        else:
            role = _ALIASES.get(role, role)
        if role not in roles or role in found:
            raise MisfitError(f"expected {', '.join(roles)}, got {name!r}")
        found[role] = x
    return found


def need(weights: Weights, role: str) -> torch.Tensor:
    if role not in weights:
        raise MisfitError(f"expected {role!r}, got {', '.join(weights) or 'nothing'}")
    return weights[role]


def bias_of(weights: Weights, has_bias: bool) -> Weights:
    """The bias of a layer: one that the other side leaves out is zero."""
    import torch

    bias = weights.get("bias")
    if bias is None:
        return {}
    if not has_bias:
        if torch.count_nonzero(bias):
            raise MisfitError("the layer has a bias, the module has none (bias=False)")
        return {}
    return {"bias": bias.reshape(-1)}
