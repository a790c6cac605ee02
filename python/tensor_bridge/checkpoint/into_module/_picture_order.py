"""Pictures that become vectors, and vectors that become pictures: Keras has channels last.

A kernel's inputs after a Flatten, and its outputs before a Reshape, are in that order; torch's
pictures have channels first. Not for: activations (_surroundings.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tensor_bridge.checkpoint.into_module._keras_options import channels_first, kind_of
from tensor_bridge.checkpoint.into_module._layer_graph import ELEMENTWISE, LayerGraph, Shape
from tensor_bridge.checkpoint.into_module._pair import Pair, torch_class

# After these layers the order of their input is lost. All other layers, unknown ones included, are
# assumed to keep it.
_MIXING = {
    "AdditiveAttention", "Attention", "Bidirectional", "CuDNNGRU", "CuDNNLSTM", "Dense",
    "EinsumDense", "Embedding", "Flatten", "Functional", "GRU", "GroupQueryAttention", "LSTM",
    "Model", "MultiHeadAttention", "RNN", "Sequential", "SimpleRNN", "TimeDistributed",
} | {
    f"{kind}{n}D{transposed}"
    for kind in ("Conv", "ConvLSTM", "DepthwiseConv", "LocallyConnected", "SeparableConv")
    for n in (1, 2, 3)
    for transposed in ("", "Transpose")
}  # fmt: skip
_Config = Mapping[str, Any]


def flatten_before(pair: Pair) -> Iterator[str]:
    """Reports what flattens a picture before the layer.

    Nothing is reported if the order cannot matter (one channel, or one position), nor for sequences
    of vectors that no convolution made, which torch's modules order as Keras does.
    """
    graph = pair.graph
    if pair.flattened is not None or not pair.module.state_dict():
        return
    for name in graph.before(pair.name, lambda name: _keeps_order(graph, name)):
        picture = _flattened_picture(graph, name)
        if picture is not None:
            yield _told(pair, name, picture)
            return


def picture_behind(pair: Pair) -> Iterator[str]:
    """Reports what makes a picture from the layer's outputs."""
    graph = pair.graph
    told = pair.flattened is not None and len(pair.flattened) == 1
    if told or not pair.module.state_dict():
        return
    for name in graph.behind(pair.name, lambda name: _keeps_order(graph, name)):
        if _makes_picture(graph, name):
            shape = "x".join("?" if n is None else str(n) for n in graph.shape(name) or ())
            inputs = getattr(pair.module, "in_features", _size(pair))
            yield (
                f"{name} behind the layer makes a picture of {shape} with the channels last, "
                "torch's pictures have them first; "
                f"flattened={{{pair.path!r}: ({inputs},)}} says that the module's own code makes "
                "one with the channels last and moves them"
            )
            return


def _keeps_order(graph: LayerGraph, name: str) -> bool:
    """Whether the last axis of a layer's output is in the order of its input."""
    kind, config = graph.applied(name)
    if kind == "Permute":
        dims = config.get("dims")
        return isinstance(dims, (list, tuple)) and len(dims) > 0 and dims[-1] == len(dims)
    if kind == "Reshape":
        target = _target(kind, config)
        return target is not None and all(n == 1 for n in target[:-1])
    return kind not in _MIXING


def _keeps_picture(graph: LayerGraph, name: str) -> bool:
    kind, _ = graph.applied(name)
    return not kind.startswith("Global") and (kind == "Reshape" or _keeps_order(graph, name))


def _target(kind: str, config: _Config) -> tuple[Any, ...] | None:
    """The shape, without the batch, to which a layer reshapes; None if it does not reshape."""
    if kind == "Flatten":
        return (-1,)
    if kind != "Reshape":
        return None
    target, with_batch = config.get("target_shape"), config.get("newshape")  # keras.ops.reshape
    if isinstance(target, (list, tuple)):
        return tuple(target)
    return tuple(with_batch[1:]) if isinstance(with_batch, (list, tuple)) else None


def _flattened_picture(graph: LayerGraph, name: str) -> Shape | None:
    """(channels, height, width) of the flattened picture, if torch flattens it differently."""
    kind, config = graph.applied(name)
    if isinstance(config.get("layers"), list):
        return (None, None) if _ends_flat(config["layers"]) else None
    target = _target(kind, config)
    if not target:
        return None
    windows = [
        n for n in graph.before(name, lambda n: _keeps_picture(graph, n)) if _is_window(graph, n)
    ]
    shape = graph.input_shape(name)
    if graph.kind(name) == "TimeDistributed" and shape is not None:
        shape = shape[1:]
    first = any(channels_first(graph.applied(n)[1]) for n in windows)
    if first and not channels_first(config):
        return None  # Keras flattens channels first here, as torch does
    if len(target) > 1:
        return _joined_axes(target, shape) if windows else None
    if not windows and (shape is None or len(shape) < 3) and not _of_picture(graph, name):
        return None
    if shape is None or len(shape) < 2:
        return (None, None)
    channels, spatial = (shape[0], shape[1:]) if first else (shape[-1], shape[:-1])
    if channels == 1 or all(n == 1 for n in spatial):
        return None
    return (channels, *spatial)


def _joined_axes(target: tuple[Any, ...], shape: Shape | None) -> Shape | None:
    """(channels, width) if a Reshape to rows, or to one position, joins both into one axis."""
    if shape is None or len(shape) < 2 or (len(target) > 2 and set(target[:-1]) != {1}):
        return None
    channels, size = shape[-1], target[-1]
    if channels == size or channels == 1 or all(n == 1 for n in shape[:-1]):
        return None
    if channels is None or not isinstance(size, int) or size <= 0 or size % channels:
        return (None, None)
    return (channels, size // channels)


def _is_window(graph: LayerGraph, name: str) -> bool:
    kind, _ = graph.applied(name)
    return graph.is_window(name) or kind.startswith("ConvLSTM")


def _of_picture(graph: LayerGraph, name: str) -> bool:
    """Whether unknown layers are between a picture, the model's input, and this layer."""
    return graph.input_shape(name) is None and any(
        graph.kind(n) == "InputLayer" and len(graph.shape(n) or ()) >= 3
        for n in graph.before(name, lambda n: _keeps_picture(graph, n))
    )


def _ends_flat(layers: list[Any]) -> bool:
    """Whether a model that is applied to each step returns a flattened picture."""
    kinds = [kind_of(str(layer.get("class_name"))) for layer in layers if isinstance(layer, dict)]
    while kinds and kinds[-1] in ELEMENTWISE:
        kinds.pop()
    return kinds[-1:] == ["Flatten"] and not any(kind.startswith("Global") for kind in kinds)


def _makes_picture(graph: LayerGraph, name: str) -> bool:
    """Whether a Reshape makes a picture, not a sequence, from a vector."""
    kind, _ = graph.applied(name)
    given, shape = graph.input_shape(name), graph.shape(name)
    if kind != "Reshape" or given is None or len(given) != 1 or shape is None or len(shape) < 2:
        return False
    if shape[-1] == 1 or all(n == 1 for n in shape[:-1]):
        return False
    behind = list(graph.behind(name, lambda n: _keeps_order(graph, n)))
    windows = [n for n in behind if _is_window(graph, n)]
    if windows:
        return not any(channels_first(graph.applied(n)[1]) for n in windows)
    return len(shape) > 2 and not behind


def _size(pair: Pair) -> Any:
    return getattr(pair.module, "num_features", "inputs")


def _told(pair: Pair, name: str, picture: Shape) -> str:
    text = f"{name} in front of the layer counts channels last, torch's pictures have them first; "
    kind = torch_class(pair.module) or ""
    if kind not in ("Linear", "PReLU") and "Norm" not in kind:  # their weights have one axis
        return f"{text}compare=False loads it for a picture whose channels are moved last"
    inputs = getattr(pair.module, "in_features", _size(pair))
    sizes = f"({', '.join('?' if n is None else str(n) for n in picture)})"
    return (
        f"{text}flattened={{{pair.path!r}: {sizes}}} turns the weights, {{{pair.path!r}: "
        f"({inputs},)}} keeps them for a picture whose channels are moved last"
    )
