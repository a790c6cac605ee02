"""Weights of a layer by role, "kernel" or "bias", whatever its library calls them."""

from __future__ import annotations

import re
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Weights = dict[str, torch.Tensor]


class MisfitError(Exception):
    """Why weights cannot be those of a module; not for users, who get a report."""


# What libraries call a role: TF-Slim, Sonnet 2 and 1, GPT-2, T5, Keras 1. A name stands for one
# layout wherever it is used: "w" is (in, out) in all of them. "weight", which may be either, is
# none of a kernel.
_CALLED = {
    "kernel": ("weights", "w", "W"),
    "bias": ("biases", "b"),
    "depthwise_kernel": ("depthwise_weights", "w_dw"),
    "pointwise_kernel": ("pointwise_weights", "w_pw"),
    "embeddings": ("embedding", "weight", "W"),
    "gamma": ("scale", "g"),
    "beta": ("offset", "bias", "b"),
    "moving_mean": ("moving_mean/average", "running_mean"),
    "moving_variance": ("moving_variance/average",),
    "alpha": ("alphas",),
}
_NUMBERED_BY_KERAS_1 = re.compile(r".+_(W|b|gamma|beta|running_mean|alphas)")

# What training keeps beside the weights of a layer, by Sonnet's and TensorFlow 1's moving averages,
# batch renormalization, and the spectral normalization of Keras and TensorFlow Addons, which store
# the kernel normalized.
_STATE = re.compile(
    r"(.*/)?("
    r"_?moving_(mean|variance)/(.*/)?(_?hidden|_?counter|biased|local_step)"
    r"|renorm_(mean|stddev)(_weight)?|moving_stddev|sn_u|vector_u)"
)


def is_state(role: str) -> bool:
    """Whether a role is of what only training needs."""
    return _STATE.fullmatch(role) is not None


def _role_of(name: str, roles: tuple[str, ...]) -> str | None:
    """Which of ``roles`` a name of a library is."""
    if name in roles:
        return name
    for role in roles:
        if name in _CALLED.get(role, ()):
            return role
    # Keras 1 puts the layer's name before it: dense_1_W.
    keras_1 = _NUMBERED_BY_KERAS_1.fullmatch(name)
    return _role_of(keras_1[1], roles) if keras_1 else None


def by_role(weights: Weights, roles: tuple[str, ...]) -> Weights:
    """Weights by the names of ``roles``; numbers, as in .weights.h5, count them."""
    found: Weights = {}
    for name, x in weights.items():
        plain = "/".join(part.lstrip("_") for part in name.split("/"))
        if re.fullmatch(r"[0-9]{1,6}", plain):
            if int(plain) >= len(roles):
                raise MisfitError(f"expected {len(roles)} weights ({', '.join(roles)}), got more")
            role: str | None = roles[int(plain)]
        else:
            role = _role_of(plain, roles)
        if role is None:
            raise MisfitError(f"expected {', '.join(roles)}, got {name!r}")
        if role in found:
            raise MisfitError(f"expected one {role!r}, got two: {', '.join(weights)}")
        found[role] = x
    return found


def need(weights: Weights, role: str) -> torch.Tensor:
    """The weight of a role that cannot be left out."""
    if role not in weights:
        raise MisfitError(f"expected {role!r}, got {', '.join(weights) or 'nothing'}")
    return weights[role]


def reshaped(x: torch.Tensor, shape: tuple[int, ...], role: str) -> torch.Tensor:
    """``x`` as ``shape``, from which it may only differ in axes of size 1."""
    if [n for n in x.shape if n != 1] != [n for n in shape if n != 1]:
        raise MisfitError(f"expected {role!r} of {tuple(shape)}, got {tuple(x.shape)}")
    return x.reshape(shape)


def bias_of(weights: Weights, has_bias: bool, size: int) -> Weights:
    """The bias of a layer: one that the other side leaves out is zero.

    Several axes, which an EinsumDense may have, are taken row by row.
    """
    import torch

    bias = weights.get("bias")
    if bias is None:
        return {}
    if not has_bias:
        if torch.count_nonzero(bias):
            raise MisfitError("the layer has a bias, the module has none (bias=False)")
        return {}
    if bias.ndim > 1 and prod(bias.shape) != size:
        raise MisfitError(f"expected a bias of {size}, got {tuple(bias.shape)}")
    return {"bias": bias.reshape(-1)}
