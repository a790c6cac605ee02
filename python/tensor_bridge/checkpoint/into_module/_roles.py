"""Weights of a layer by role, "kernel" or "bias", from the names of any library."""

from __future__ import annotations

import re
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Weights = dict[str, torch.Tensor]


class MisfitError(Exception):
    """Why weights cannot be those of a module; not for users, who get a report."""


# Names of roles in TF-Slim, Sonnet 2 and 1, GPT-2, T5 and Keras 1. A name has the same layout in
# all libraries: "w" is (in, out). "weight", whose layout differs, is not a name of a kernel.
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

# State that only training needs: of Sonnet's and TensorFlow 1's moving averages, of batch
# renormalization, and of the spectral normalization of Keras and TensorFlow Addons, which store the
# kernel normalized.
_STATE = re.compile(
    r"(.*/)?("
    r"_?moving_(mean|variance)/(.*/)?(_?hidden|_?counter|biased|local_step)"
    r"|renorm_(mean|stddev)(_weight)?|moving_stddev|sn_u|vector_u)"
)


def is_state(role: str) -> bool:
    """Whether a role is that of state that only training needs."""
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
    """Weights by the names of ``roles``; a number, as in .weights.h5, is an index into them."""
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
    """``x`` in ``shape``; the two may differ only in axes of size 1."""
    if [n for n in x.shape if n != 1] != [n for n in shape if n != 1]:
        raise MisfitError(f"expected {role!r} of {tuple(shape)}, got {tuple(x.shape)}")
    return x.reshape(shape)


def bias_of(weights: Weights, has_bias: bool, size: int) -> Weights:
    """The bias of a layer; a bias that only the module has is zero.

    A bias of several axes, as of an EinsumDense, is flattened row by row.
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
