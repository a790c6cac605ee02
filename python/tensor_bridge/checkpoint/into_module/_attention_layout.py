"""How the weights of attention are laid out in torch."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from tensor_bridge.checkpoint.into_module._roles import MisfitError, by_role, need

if TYPE_CHECKING:
    from torch import nn

    from tensor_bridge.checkpoint.into_module._roles import Weights


def attention(module: nn.MultiheadAttention, weights: Weights) -> Weights:
    import torch

    parts: dict[str, Weights] = {}
    for name, x in weights.items():
        place, _, role = name.rpartition("/")
        place = place.removesuffix("_dense").lstrip("_").replace("attention_output", "output")
        if place not in ("query", "key", "value", "output"):
            raise MisfitError(f"expected query, key, value and attention_output, got {name!r}")
        parts.setdefault(place, {})[role] = x
    found = {place: by_role(part, ("kernel", "bias")) for place, part in parts.items()}
    missing = {"query", "key", "value", "output"} - set(found)
    if missing:
        raise MisfitError(f"expected weights of {', '.join(sorted(missing))} too")
    size = module.embed_dim
    # (in, heads, depth): torch concatenates the heads.
    ins = [need(found[p], "kernel") for p in ("query", "key", "value")]
    if any(prod(k.shape[1:]) != size for k in ins):
        raise MisfitError(
            f"torch's heads make up its embed_dim {size}, got kernels "
            f"{', '.join(str(tuple(k.shape)) for k in ins)}"
        )
    last = need(found["output"], "kernel")
    for kernel, heads in [*((k, k.shape[1:]) for k in ins), (last, last.shape[:-1])]:
        # Other heads of the same size together would be other columns.
        if len(heads) > 1 and tuple(heads) != (module.num_heads, size // module.num_heads):
            raise MisfitError(
                f"expected {module.num_heads} heads of {size // module.num_heads}, got a kernel of "
                f"{tuple(kernel.shape)}"
            )
    ins = [k.reshape(k.shape[0], size).t() for k in ins]
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
        [
            torch.zeros(size, dtype=last.dtype, device="cpu") if b is None else b.reshape(-1)
            for b in biases
        ]
    )
    if last_bias is None:
        last_bias = torch.zeros(last.shape[-1], dtype=last.dtype, device="cpu")
    out["out_proj.bias"] = last_bias.reshape(-1)
    return out
