"""How dense kernels, embeddings and PReLU are laid out in torch."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from tensor_bridge.checkpoint.into_module._roles import MisfitError, bias_of, by_role, need
from tensor_bridge.checkpoint.into_module._weight_norm import folded

if TYPE_CHECKING:
    from torch import nn

    from tensor_bridge.checkpoint.into_module._roles import Weights


def linear(module: nn.Linear, weights: Weights) -> Weights:
    found = by_role(folded(weights, (-1,)), ("kernel", "bias"))
    kernel = need(found, "kernel")
    size, out = module.in_features, module.out_features
    inputs = [prod(kernel.shape[:i]) for i in range(1, kernel.ndim)]
    if kernel.ndim > 2 and size in inputs and kernel.numel() == size * out:
        # EinsumDense: several axes in or out, row by row.
        kernel = kernel.reshape(size, out)
    if kernel.ndim != 2:
        raise MisfitError(
            f"expected a kernel of 2 dimensions, or of inputs before outputs, ({size}, {out}), got "
            f"{tuple(kernel.shape)}"
        )
    if size != out and tuple(kernel.shape) == (out, size):
        raise MisfitError(
            f"expected a kernel of {(size, out)}, got {(out, size)}, which is torch's layout; a "
            "rule with the layout 'as_is' takes it for the weight"
        )
    return {"weight": kernel.t(), **bias_of(found, module.bias is not None, module.out_features)}


def is_conv1d_of_gpt2(module: nn.Module) -> bool:
    """Whether a module is transformers' Conv1D, a Linear whose weight is (in, out).

    Its class and attributes tell, without an import of transformers:
    https://github.com/huggingface/transformers/blob/main/src/transformers/pytorch_utils.py
    """
    weight: Any = getattr(module, "weight", None)
    return (
        any(kind.__name__ == "Conv1D" for kind in type(module).__mro__)
        and hasattr(module, "nf")
        and getattr(weight, "ndim", 0) == 2
        and weight.shape[1] == module.nf
    )


def conv1d_of_gpt2(module: Any, weights: Weights) -> Weights:
    found = by_role(weights, ("kernel", "bias"))
    kernel = need(found, "kernel")
    if kernel.ndim == 3 and kernel.shape[0] == 1:
        kernel = kernel[0]  # GPT-2 keeps it as a convolution's, (1, in, out).
    return {"weight": kernel, **bias_of(found, True, module.nf)}


def embedding(module: Any, weights: Weights) -> Weights:
    found = by_role(weights, ("embeddings",))
    return {"weight": need(found, "embeddings")}


def prelu(module: Any, weights: Weights) -> Weights:
    found = by_role(weights, ("alpha",))
    alpha = need(found, "alpha")
    if prod(alpha.shape[:-1]) != 1:
        raise MisfitError(f"torch shares alpha over all but the channels, got {tuple(alpha.shape)}")
    return {"weight": alpha.reshape(-1)}
