"""How the kernels of convolutions are laid out in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensor_bridge.checkpoint.into_module._roles import MisfitError, bias_of, by_role, need

if TYPE_CHECKING:
    from torch import nn

    from tensor_bridge.checkpoint.into_module._roles import Weights

__all__ = ["conv", "conv_transpose", "separable"]


def conv(module: Any, weights: Weights) -> Weights:
    named = any("depthwise" in name or name == "w_dw" for name in weights)
    role = "depthwise_kernel" if named else "kernel"
    found = by_role(weights, (role, "bias"))
    kernel = need(found, role)
    ndim = len(module.kernel_size)
    if kernel.ndim != ndim + 2:
        raise MisfitError(f"expected a kernel of {ndim + 2} dimensions, got {tuple(kernel.shape)}")
    spatial = tuple(range(ndim))
    depthwise = module.groups > 1 and kernel.shape[-2] == module.in_channels == module.groups
    if depthwise or named:
        # (*, in, multiplier): torch counts the channels of one group together, as Keras does.
        kernel = kernel.permute(ndim, ndim + 1, *spatial)
        kernel = kernel.reshape(-1, 1, *kernel.shape[2:])
    else:
        kernel = kernel.permute(ndim + 1, ndim, *spatial)
    return {"weight": kernel, **bias_of(found, module.bias is not None, module.out_channels)}


def conv_transpose(module: Any, weights: Weights) -> Weights:
    found = by_role(weights, ("kernel", "bias"))
    kernel = need(found, "kernel")
    ndim = len(module.kernel_size)
    if kernel.ndim != ndim + 2:
        raise MisfitError(f"expected a kernel of {ndim + 2} dimensions, got {tuple(kernel.shape)}")
    # Keras has (*, out, in), torch (in, out, *); neither turns the kernel.
    kernel = kernel.permute(ndim + 1, ndim, *range(ndim))
    return {"weight": kernel, **bias_of(found, module.bias is not None, module.out_channels)}


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
