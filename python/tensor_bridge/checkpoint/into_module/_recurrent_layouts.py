"""How the weights of LSTM, GRU and RNN are laid out in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensor_bridge.checkpoint.into_module._roles import MisfitError, by_role, need

if TYPE_CHECKING:
    from tensor_bridge.checkpoint.into_module._roles import Weights

__all__ = ["recurrent"]


def _gates(module: Any) -> tuple[int, tuple[int, ...]]:
    """How many gates there are, and which of Keras' is each of torch's."""
    from torch import nn

    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return 4, (0, 1, 2, 3)  # both: input, forget, cell, output
    if isinstance(module, (nn.GRU, nn.GRUCell)):
        return 3, (1, 0, 2)  # Keras: update, reset, new; torch: reset, update, new
    return 1, (0,)


def _one_direction(module: Any, weights: Weights, suffix: str) -> Weights:
    import torch

    found = by_role(weights, ("kernel", "recurrent_kernel", "bias"))
    count, order = _gates(module)
    kernel, recurrent = need(found, "kernel"), need(found, "recurrent_kernel")
    units = module.hidden_size
    if kernel.ndim != 2 or recurrent.ndim != 2 or kernel.shape[1] != count * units:
        raise MisfitError(
            f"expected a kernel for {count} gates of {units} units, got {tuple(kernel.shape)} and "
            f"{tuple(recurrent.shape)}"
        )
    bias = found.get("bias")
    cudnn = bias is not None and bias.ndim == 1 and bias.numel() == 2 * count * units
    inputs, states = kernel.split(units, 1), recurrent.split(units, 1)
    if cudnn:
        # CuDNNLSTM and CuDNNGRU keep each gate as cuDNN has it in memory: (units, in).
        size = kernel.shape[0]
        gates = [[x.reshape(units, size) for x in inputs], list(states)]
    else:
        gates = [[x.t() for x in inputs], [x.t() for x in states]]
    out = {
        f"weight_ih{suffix}": torch.cat([gates[0][i] for i in order]),
        f"weight_hh{suffix}": torch.cat([gates[1][i] for i in order]),
    }
    if bias is None:
        bias = torch.zeros(2, count * units, dtype=kernel.dtype, device="cpu")
    elif cudnn:
        bias = bias.view(2, -1)
    elif bias.ndim == 1:
        if count == 3:
            raise MisfitError("torch has no GRU with reset_after=False")
        bias = torch.stack((bias, torch.zeros_like(bias)))
    if tuple(bias.shape) != (2, count * units):
        raise MisfitError(
            f"expected a bias for {count} gates of {units} units, got {tuple(bias.shape)}"
        )
    if not module.bias:
        if torch.count_nonzero(bias):
            raise MisfitError("the layer has a bias, the module has none (bias=False)")
        return out
    for row, name in ((bias[0], "bias_ih"), (bias[1], "bias_hh")):
        parts = row.split(units)
        out[f"{name}{suffix}"] = torch.cat([parts[i] for i in order])
    return out


def recurrent(module: Any, weights: Weights) -> Weights:
    from torch import nn

    cell = isinstance(module, nn.RNNCellBase)
    parts: dict[str, Weights] = {}
    for name, x in weights.items():
        *where, role = name.split("/")
        suffix = "" if cell else "_l0"
        reverse = ""
        for word in where:
            if word[:1] == "l" and word[1:].isdigit() and not cell:
                suffix = f"_{word}"
            elif word in ("forward", "backward") and not cell:
                reverse = "_reverse" if word == "backward" else ""
            else:
                raise MisfitError(f"expected weights of one layer, got {name!r}")
        parts.setdefault(suffix + reverse, {})[role] = x
    out: Weights = {}
    for suffix, found in parts.items():
        out.update(_one_direction(module, found, suffix))
    return out
