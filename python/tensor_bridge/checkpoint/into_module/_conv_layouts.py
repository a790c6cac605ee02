"""How the kernels of convolutions are laid out in torch."""

from __future__ import annotations

import re
from math import prod
from typing import TYPE_CHECKING, Any

from tensor_bridge.checkpoint.into_module._made_with import MadeWith
from tensor_bridge.checkpoint.into_module._roles import MisfitError, bias_of, by_role, need
from tensor_bridge.checkpoint.into_module._weight_norm import folded

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tensor_bridge.checkpoint.into_module._roles import Weights


def conv(module: Any, weights: Weights, made_with: MadeWith) -> Weights:
    weights = folded(weights, (-1,))
    named = any("depthwise" in name or name == "w_dw" for name in weights)
    role = "depthwise_kernel" if named else "kernel"
    found = by_role(weights, (role, "bias"))
    kernel = need(found, role)
    kernel = _as_tensorflow(module, weights, kernel, made_with)
    ndim = len(module.kernel_size)
    spatial = tuple(range(ndim))
    depthwise = module.groups > 1 and kernel.shape[-2] == module.in_channels == module.groups
    if depthwise or named:
        if made_with.backend == "theano" and prod(module.kernel_size) > 1:
            raise MisfitError("which way round Theano has depthwise kernels is not known")
        # (*, in, multiplier): torch counts the channels of one group together, as Keras does.
        kernel = kernel.permute(ndim, ndim + 1, *spatial)
        kernel = kernel.reshape(-1, 1, *kernel.shape[2:])
    else:
        kernel = kernel.permute(ndim + 1, ndim, *spatial)
    return {"weight": kernel, **bias_of(found, module.bias is not None, module.out_channels)}


def conv_transpose(module: Any, weights: Weights, made_with: MadeWith) -> Weights:
    # g has one value per input (the last axis) in Addons, one per output in the paper's code.
    weights = folded(weights, (-1, -2))
    found = by_role(weights, ("kernel", "bias"))
    kernel = need(found, "kernel")
    ndim = len(module.kernel_size)
    if kernel.ndim == ndim + 3 and kernel.shape[0] == 1:
        kernel = kernel[0]  # Sonnet 1 stores it as a two-dimensional kernel of height 1.
    kernel = _as_tensorflow(module, weights, kernel, made_with)
    # Keras has (*, out, in), torch (in, out, *); neither flips the kernel.
    kernel = kernel.permute(ndim + 1, ndim, *range(ndim))
    return {"weight": kernel, **bias_of(found, module.bias is not None, module.out_channels)}


def separable(module: nn.Sequential, weights: Weights, made_with: MadeWith) -> Weights:
    found = by_role(weights, ("depthwise_kernel", "pointwise_kernel", "bias"))
    first = {"depthwise_kernel": need(found, "depthwise_kernel")}
    depthwise = conv(module[0], first, made_with)
    last: Weights = {"kernel": need(found, "pointwise_kernel")}
    if "bias" in found:
        last["bias"] = found["bias"]
    pointwise = conv(module[1], last, made_with)
    return {
        **{f"0.{name}": x for name, x in depthwise.items()},
        **{f"1.{name}": x for name, x in pointwise.items()},
    }


def _as_tensorflow(
    module: Any, weights: Weights, kernel: torch.Tensor, made_with: MadeWith
) -> torch.Tensor:
    """A kernel as TensorFlow has it, (*, in, out) or, to transpose, (*, out, in).

    Theano computes a convolution, TensorFlow and torch a correlation, so Theano's kernels are
    flipped:
    https://github.com/keras-team/keras/blob/2.2.4/keras/utils/conv_utils.py, ``convert_kernel``.
    """
    ndim = len(module.kernel_size)
    backend = made_with.backend
    if any(re.fullmatch(r"(.+_)?W", name.rpartition("/")[2]) for name in weights):
        kernel = _of_keras_1(module, kernel, made_with.dim_ordering)
        if backend is None and prod(module.kernel_size) > 1:
            raise MisfitError(
                "Theano has kernels of convolutions the other way round than TensorFlow, and which "
                "of them Keras 1 ran on the file does not say; say "
                "made_with={'backend': 'tensorflow'} or 'theano'"
            )
    if kernel.ndim != ndim + 2:
        raise MisfitError(f"expected a kernel of {ndim + 2} dimensions, got {tuple(kernel.shape)}")
    return kernel.flip(tuple(range(ndim))) if backend == "theano" else kernel


def _of_keras_1(module: Any, kernel: torch.Tensor, dim_ordering: str | None) -> torch.Tensor:
    """A kernel of Keras 1, (*, in, out) by the order "tf", (out, in, *) by "th".

    https://github.com/keras-team/keras/blob/1.2.2/keras/layers/convolutional.py; of one dimension
    it was (out, in, length, 1) before Keras 1.1 and (length, 1, in, out) since.
    """
    ndim = len(module.kernel_size)
    flat = ndim == 1 and kernel.ndim == 4
    sizes = (*module.kernel_size, 1) if flat else module.kernel_size
    shapes = {
        "tf": (*sizes, module.in_channels, module.out_channels),
        "th": (module.out_channels, module.in_channels, *sizes),
    }
    fitting = [order for order, shape in shapes.items() if shape == tuple(kernel.shape)]
    order = dim_ordering if dim_ordering in fitting else fitting[0] if len(fitting) == 1 else None
    if order is None and len(fitting) > 1:
        raise MisfitError(
            f"a kernel of {tuple(kernel.shape)} may be of both orders that Keras 1 had; say "
            "made_with={'dim_ordering': 'tf'} or 'th'"
        )
    if order is None or (dim_ordering is not None and not flat and order != dim_ordering):
        wanted = [shapes[dim_ordering]] if dim_ordering else list(shapes.values())
        raise MisfitError(
            f"expected a kernel of {' or '.join(map(str, wanted))}, got {tuple(kernel.shape)}"
        )
    if order == "th":
        kernel = kernel.permute(*range(2, kernel.ndim), 1, 0)
    kernel = kernel[:, 0] if flat else kernel
    return kernel.transpose(-1, -2) if module.transposed else kernel
