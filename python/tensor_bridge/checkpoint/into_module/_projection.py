"""Differences of Linear, Embedding and MultiheadAttention from Keras' layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tensor_bridge.checkpoint.into_module._pair import Pair
from tensor_bridge.checkpoint.into_module._recurrence import masked


def einsum(pair: Pair, _kind: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Compares the equation: Linear contracts the last axis and appends the new one."""
    equation = config.get("equation")
    if isinstance(equation, str) and not _is_linear(equation):
        yield f"the layer's equation is {equation}, {pair.torch_name} computes ...i,io->...o"


def _is_linear(equation: str) -> bool:
    operands, _, output = equation.replace(" ", "").partition("->")
    inputs, _, kernel = operands.partition(",")
    contracted = "".join(axis for axis in kernel if axis not in output)
    new = "".join(axis for axis in kernel if axis not in inputs)
    return (
        bool(contracted)
        and kernel == contracted + new
        and inputs.endswith(contracted)
        and output == inputs.removesuffix(contracted) + new
    )


def embedding(pair: Pair, _kind: str, _config: Mapping[str, Any]) -> Iterator[str]:
    """Torch can limit the norm of the vectors."""
    longest = getattr(pair.module, "max_norm", None)
    if longest is not None:
        yield f"the layer keeps its vectors, {pair.torch_name} has max_norm={longest}"


def attention(pair: Pair, _kind: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Compares options that the sizes of the heads do not show."""
    module: Any = pair.module
    heads = config.get("num_heads")
    if heads is not None and heads != module.num_heads:
        yield pair.differs("num_heads", heads, module.num_heads)
    axes = config.get("attention_axes")
    if isinstance(axes, (list, tuple)) and len(axes) > 1:
        yield pair.differs("attention_axes", axes, "one")
    for name in ("use_gate", "sliding_window"):
        if config.get(name):
            yield pair.differs(name, config[name], "none")
    if module.bias_k is not None or module.add_zero_attn:
        name = "add_bias_kv" if module.bias_k is not None else "add_zero_attn"
        yield f"the layer attends to its input, {pair.torch_name} has {name}=True"
    yield from masked(pair.graph, pair.name)
