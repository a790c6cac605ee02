"""What torch's normalizing modules compute differently from Keras' layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isclose
from typing import Any

from tensor_bridge.checkpoint.into_module._keras_options import channels_first, number, option
from tensor_bridge.checkpoint.into_module._layer_graph import ELEMENTWISE
from tensor_bridge.checkpoint.into_module._pair import Pair


def _same(a: float | None, b: float | None) -> bool:
    # Keras 2 rounds some to float32 before it stores them.
    return a is not None and b is not None and isclose(a, b, rel_tol=1e-6)


def _epsilon(pair: Pair, config: Mapping[str, Any]) -> Iterator[str]:
    module: Any = pair.module
    value, other = number(config, "epsilon"), module.eps
    if other is None:
        other = _smallest(module)
    if value is not None and not _same(value, other):
        yield pair.differs("epsilon", value, f"eps={other}")


def _smallest(module: Any) -> float:
    """The epsilon that RMSNorm uses for eps=None."""
    import torch

    weight = module.weight
    dtype = torch.get_default_dtype() if weight is None else weight.dtype
    return float(torch.finfo(dtype).eps)


def _axes(pair: Pair, config: Mapping[str, Any]) -> tuple[list[int], int | None]:
    """The axes that a layer names, negative where the rank is known, and the rank."""
    value = option(config, "axis", -1)
    axes = list(value) if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(axis, int) for axis in axes):
        return [], None
    shape = pair.graph.input_shape(pair.name)
    rank = None if shape is None else len(shape) + 1
    return [axis - rank if rank is not None and axis > 0 else axis for axis in axes], rank


def _channel_axis(pair: Pair, config: Mapping[str, Any]) -> Iterator[str]:
    """Keras may use any axis for the channels, torch uses the second.

    The last axis is Keras' default, which the caller moves for torch; the second is torch's. A
    preceding convolution tells which of them has the channels.
    """
    axes, rank = _axes(pair, config)
    second = 1 if rank is None else 1 - rank
    wrong = [axis for axis in axes if axis not in (-1, second) and (rank is not None or axis < 0)]
    graph = pair.graph
    windows = filter(
        graph.is_window, graph.before(pair.name, lambda n: graph.kind(n) in ELEMENTWISE)
    )
    window = next(windows, None)
    if window is not None and rank is not None:
        channels = second if channels_first(graph.applied(window)[1]) else -1
        wrong = [axis for axis in axes if axis != channels]
    if wrong or len(axes) > 1:
        yield pair.differs("axis", config.get("axis"), "the channels")


def batch_norm(pair: Pair, _kind: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Compares all options; the momentum matters only in training mode."""
    yield from _epsilon(pair, config)
    yield from _channel_axis(pair, config)
    momentum, other = number(config, "momentum"), getattr(pair.module, "momentum", None)
    if pair.module.training and momentum is not None and not _same(1 - momentum, other):
        yield (
            f"the layer's momentum is {momentum} (torch: {round(1 - momentum, 9)}), "
            f"{pair.torch_name} has {other}; a module in eval() mode does not use it"
        )
    mode = config.get("mode", 0)  # of Keras 1
    if mode != 0:
        yield pair.differs("mode", mode, "what Keras 1 calls 0")


def layer_norm(pair: Pair, _kind: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Compares the axes; torch normalizes the last ones."""
    yield from _epsilon(pair, config)
    axes, rank = _axes(pair, config)
    last = list(range(-len(axes), 0))
    if sorted(axes) != last and (rank is not None or all(axis < 0 for axis in axes)):
        yield pair.differs("axis", config.get("axis"), "the last axes")
    sizes = tuple(getattr(pair.module, "normalized_shape", ()))
    if len(sizes) > 1 and len(set(sizes)) == 1 and sizes[0] > 1:
        # For other sizes the shape of the weights tells it.
        yield (
            f"the layer normalizes axes {config.get('axis')} with the channels last; with sizes "
            f"{sizes} nothing says that {pair.torch_name} has them in that order"
        )
    if config.get("rms_scaling"):
        yield pair.differs("rms_scaling", True, "none")


def rms_norm(pair: Pair, _kind: str, config: Mapping[str, Any]) -> Iterator[str]:
    """As `layer_norm`."""
    yield from layer_norm(pair, _kind, config)


def group_norm(pair: Pair, kind: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Also instance normalization, which has one channel per group."""
    yield from _epsilon(pair, config)
    yield from _channel_axis(pair, config)
    module: Any = pair.module
    channels = getattr(module, "num_channels", getattr(module, "num_features", None))
    groups = -1 if kind == "InstanceNormalization" else config.get("groups", 32)
    groups = channels if groups == -1 else groups
    other = getattr(module, "num_groups", channels)
    if groups != other:
        yield pair.differs("groups", groups, other)
    if getattr(module, "track_running_stats", False):
        yield f"the layer keeps no statistics, {pair.torch_name} has track_running_stats=True"
