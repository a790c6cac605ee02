"""How kernels are laid out in torch: dense, convolutions of all kinds, embeddings."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from tensor_bridge.checkpoint.into_module._roles import MisfitError, bias_of, by_role, need

if TYPE_CHECKING:
    from torch import nn

    from tensor_bridge.checkpoint.into_module._roles import Weights

__all__ = ["conv", "conv_transpose", "embedding", "linear", "prelu", "separable"]


def linear(module: nn.Linear, weights: Weights) -> Weights:
    found = by_role(weights, ("kernel", "bias"))
    kernel = need(found, "kernel")
    if kernel.ndim > 2 and kernel.numel() == module.in_features * module.out_features:
        # EinsumDense: several axes in or out, row by row.
        kernel = kernel.reshape(module.in_features, module.out_features)
    if kernel.ndim != 2:
        raise MisfitError(f"expected a kernel of 2 dimensions, got {tuple(kernel.shape)}")
    return {"weight": kernel.t(), **bias_of(found, module.bias is not None)}


def conv(module: Any, weights: Weights) -> Weights:
    roles = ("depthwise_kernel", "bias") if "depthwise_kernel" in weights else ("kernel", "bias")
    found = by_role(weights, roles)
    kernel = need(found, roles[0])
    ndim = len(module.kernel_size)
    if kernel.ndim != ndim + 2:
        raise MisfitError(f"expected a kernel of {ndim + 2} dimensions, got {tuple(kernel.shape)}")
    spatial = tuple(range(ndim))
    depthwise = module.groups > 1 and kernel.shape[-2] == module.in_channels == module.groups
    if depthwise or roles[0] == "depthwise_kernel":
        # (*, in, multiplier): torch counts the channels of one group together, as Keras does.
        kernel = kernel.permute(ndim, ndim + 1, *spatial)
        kernel = kernel.reshape(-1, 1, *kernel.shape[2:])
    else:
        kernel = kernel.permute(ndim + 1, ndim, *spatial)
    return {"weight": kernel, **bias_of(found, module.bias is not None)}


def conv_transpose(module: Any, weights: Weights) -> Weights:
    found = by_role(weights, ("kernel", "bias"))
    kernel = need(found, "kernel")
    ndim = len(module.kernel_size)
    if kernel.ndim != ndim + 2:
        raise MisfitError(f"expected a kernel of {ndim + 2} dimensions, got {tuple(kernel.shape)}")
    # Keras has (*, out, in), torch (in, out, *); neither turns the kernel.
    kernel = kernel.permute(ndim + 1, ndim, *range(ndim))
    return {"weight": kernel, **bias_of(found, module.bias is not None)}


def separable(module: nn.Sequential, weights: Weights) -> Weights:
    found = by_role(weights, ("depthwise_kernel", "pointwise_kernel", "bias"))
    depthwise = conv(module[0], {"depthwise_kernel": need(found, "depthwise_kernel")})
    last: Weights = {"kernel": need(found, "pointwise_kernel")}
    if "bias" in found:
        last["bias"] = found["bias"]
    pointwise = conv(module[1], last)
    return {
        **{f"0.{name}": x for name, x in depthwise.items()},
        **{f"1.{name}": x for name, x in pointwise.items()},
    }


def embedding(module: Any, weights: Weights) -> Weights:
    found = by_role(weights, ("embeddings",))
    return {"weight": need(found, "embeddings")}


def prelu(module: Any, weights: Weights) -> Weights:
    found = by_role(weights, ("alpha",))
    alpha = need(found, "alpha")
    if prod(alpha.shape[:-1]) != 1:
        raise MisfitError(f"torch shares alpha over all but the channels, got {tuple(alpha.shape)}")
    return {"weight": alpha.reshape(-1)}
