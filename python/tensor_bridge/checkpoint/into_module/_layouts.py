"""How the weights of a Keras layer are laid out in the torch module of the same kind.

A layout takes a module and weights by role ("kernel", "forward/bias") and gives the module's own
tensors. Not for: names of layers (_load_into.py).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    Weights = dict[str, torch.Tensor]
    Layout = Callable[[Any, Weights], Weights]

__all__ = ["MisfitError", "has_parts", "layout_of"]


class MisfitError(Exception):
    """Why weights cannot be those of a module; not for users, who get a report."""


_ALIASES = {
    "weights": "kernel",  # TF-Slim
    "biases": "bias",
    "embedding": "embeddings",
    "scale": "gamma",
    "offset": "beta",
}


def _by_role(weights: Weights, roles: tuple[str, ...]) -> Weights:
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


def _need(weights: Weights, role: str) -> torch.Tensor:
    if role not in weights:
        raise MisfitError(f"expected {role!r}, got {', '.join(weights) or 'nothing'}")
    return weights[role]


def _bias(weights: Weights, has_bias: bool) -> Weights:
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


def _linear(module: nn.Linear, weights: Weights) -> Weights:
    found = _by_role(weights, ("kernel", "bias"))
    kernel = _need(found, "kernel")
    if kernel.ndim > 2 and kernel.numel() == module.in_features * module.out_features:
        # EinsumDense: several axes in or out, row by row.
        kernel = kernel.reshape(module.in_features, module.out_features)
    if kernel.ndim != 2:
        raise MisfitError(f"expected a kernel of 2 dimensions, got {tuple(kernel.shape)}")
    return {"weight": kernel.t(), **_bias(found, module.bias is not None)}


def _conv(module: Any, weights: Weights) -> Weights:
    roles = ("depthwise_kernel", "bias") if "depthwise_kernel" in weights else ("kernel", "bias")
    found = _by_role(weights, roles)
    kernel = _need(found, roles[0])
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
    return {"weight": kernel, **_bias(found, module.bias is not None)}


def _conv_transpose(module: Any, weights: Weights) -> Weights:
    found = _by_role(weights, ("kernel", "bias"))
    kernel = _need(found, "kernel")
    ndim = len(module.kernel_size)
    if kernel.ndim != ndim + 2:
        raise MisfitError(f"expected a kernel of {ndim + 2} dimensions, got {tuple(kernel.shape)}")
    # Keras has (*, out, in), torch (in, out, *); neither turns the kernel.
    kernel = kernel.permute(ndim + 1, ndim, *range(ndim))
    return {"weight": kernel, **_bias(found, module.bias is not None)}


def _separable(module: nn.Sequential, weights: Weights) -> Weights:
    found = _by_role(weights, ("depthwise_kernel", "pointwise_kernel", "bias"))
    depthwise = _conv(module[0], {"depthwise_kernel": _need(found, "depthwise_kernel")})
    last: Weights = {"kernel": _need(found, "pointwise_kernel")}
    if "bias" in found:
        last["bias"] = found["bias"]
    pointwise = _conv(module[1], last)
    return {
        **{f"0.{name}": x for name, x in depthwise.items()},
        **{f"1.{name}": x for name, x in pointwise.items()},
    }


def _norm(module: Any, weights: Weights, statistics: tuple[str, ...]) -> Weights:
    import torch

    affine = getattr(module, "weight", None) is not None
    numbered = any(name.lstrip("_").isdigit() for name in weights)
    roles = ("gamma", "beta", *statistics) if affine else statistics
    if numbered and len(weights) != len(roles):
        raise MisfitError(
            f"expected {len(roles)} weights ({', '.join(roles)}), got {len(weights)} without names"
        )
    found = _by_role(weights, roles if numbered else ("gamma", "beta", *statistics))
    out: Weights = {}
    for role, name, neutral in (("gamma", "weight", 1.0), ("beta", "bias", 0.0)):
        target = getattr(module, name, None)
        if role in found and target is None:
            if (found[role] != neutral).any():
                raise MisfitError(f"the layer has {role!r}, the module has no {name}")
        elif target is not None:
            # scale=False and center=False leave out what would be 1 and 0.
            out[name] = found.get(role, torch.full(target.shape, neutral, device="cpu"))
            out[name] = out[name].reshape(target.shape) if role in found else out[name]
    for role, name in (("moving_mean", "running_mean"), ("moving_variance", "running_var")):
        if role in statistics:
            if getattr(module, name, None) is None:
                raise MisfitError(f"the layer has {role!r}, the module keeps no statistics")
            out[name] = _need(found, role)
    return out


def _batch_norm(module: Any, weights: Weights) -> Weights:
    return _norm(module, weights, ("moving_mean", "moving_variance"))


def _plain_norm(module: Any, weights: Weights) -> Weights:
    target = module.weight
    for name, x in weights.items():
        if target is not None and x.numel() != target.numel():
            raise MisfitError(f"expected {tuple(target.shape)}, got {name!r} of {tuple(x.shape)}")
    return _norm(module, weights, ())


def _rms_norm(module: Any, weights: Weights) -> Weights:
    found = _by_role(weights, ("gamma",))
    return {"weight": _need(found, "gamma")}


def _embedding(module: Any, weights: Weights) -> Weights:
    found = _by_role(weights, ("embeddings",))
    return {"weight": _need(found, "embeddings")}


def _prelu(module: Any, weights: Weights) -> Weights:
    found = _by_role(weights, ("alpha",))
    alpha = _need(found, "alpha")
    if prod(alpha.shape[:-1]) != 1:
        raise MisfitError(f"torch shares alpha over all but the channels, got {tuple(alpha.shape)}")
    return {"weight": alpha.reshape(-1)}


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

    found = _by_role(weights, ("kernel", "recurrent_kernel", "bias"))
    count, order = _gates(module)
    kernel, recurrent = _need(found, "kernel"), _need(found, "recurrent_kernel")
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


def _recurrent(module: Any, weights: Weights) -> Weights:
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


def _attention(module: nn.MultiheadAttention, weights: Weights) -> Weights:
    import torch

    parts: dict[str, Weights] = {}
    for name, x in weights.items():
        place, _, role = name.rpartition("/")
        place = place.removesuffix("_dense").lstrip("_").replace("attention_output", "output")
        if place not in ("query", "key", "value", "output"):
            raise MisfitError(f"expected query, key, value and attention_output, got {name!r}")
        parts.setdefault(place, {})[role] = x
    found = {place: _by_role(part, ("kernel", "bias")) for place, part in parts.items()}
    missing = {"query", "key", "value", "output"} - set(found)
    if missing:
        raise MisfitError(f"expected weights of {', '.join(sorted(missing))} too")
    size = module.embed_dim
    # (in, heads, depth): torch takes the heads one behind the other.
    ins = [_need(found[p], "kernel") for p in ("query", "key", "value")]
    if any(prod(k.shape[1:]) != size for k in ins):
        raise MisfitError(
            f"torch's heads make up its embed_dim {size}, got kernels "
            f"{', '.join(str(tuple(k.shape)) for k in ins)}"
        )
    ins = [k.reshape(k.shape[0], size).t() for k in ins]
    last = _need(found["output"], "kernel")
    out = {"out_proj.weight": last.reshape(-1, last.shape[-1]).t()}
    if module.in_proj_weight is not None:
        if any(k.shape[1] != size for k in ins):
            raise MisfitError(
                "key and value have sizes of their own; give the module kdim and vdim"
            )
        out["in_proj_weight"] = torch.cat(ins)
    else:
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        out.update(zip(names, ins, strict=True))
    biases = [found[p].get("bias") for p in ("query", "key", "value")]
    last_bias = found["output"].get("bias")
    if module.in_proj_bias is None:
        given = [b for b in (*biases, last_bias) if b is not None]
        if any(torch.count_nonzero(b) for b in given):
            raise MisfitError("the layer has biases, the module has none (bias=False)")
        return out
    out["in_proj_bias"] = torch.cat(
        [torch.zeros(size, device="cpu") if b is None else b.reshape(-1) for b in biases]
    )
    if last_bias is None:
        last_bias = torch.zeros(last.shape[-1], device="cpu")
    out["out_proj.bias"] = last_bias.reshape(-1)
    return out


def has_parts(module: nn.Module) -> bool:
    """Whether roles of this kind of module have several parts, "forward/kernel"."""
    from torch import nn

    return isinstance(module, (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention))


def layout_of(module: nn.Module) -> Layout | None:
    """The layout for a module, or None for one whose tensors are taken as they are."""
    from torch import nn

    table: list[tuple[Any, Any]] = [
        (nn.Linear, _linear),
        ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _conv_transpose),
        ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _conv),
        ((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm), _batch_norm),
        ((nn.LayerNorm, nn.GroupNorm), _plain_norm),
        (nn.RMSNorm, _rms_norm),
        ((nn.Embedding, nn.EmbeddingBag), _embedding),
        (nn.PReLU, _prelu),
        ((nn.RNNBase, nn.RNNCellBase), _recurrent),
        (nn.MultiheadAttention, _attention),
    ]
    for classes, layout in table:
        if isinstance(module, classes):
            found: Layout = layout
            return found
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    if (
        isinstance(module, nn.Sequential)
        and len(module) == 2
        and all(isinstance(part, convolutions) for part in module)
    ):
        return _separable
    return None
