"""Differences between torch's recurrent modules and Keras' recurrent layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tensor_bridge.checkpoint.into_module._keras_options import activation, kind_of, option, part
from tensor_bridge.checkpoint.into_module._layer_graph import ELEMENTWISE
from tensor_bridge.checkpoint.into_module._pair import Pair

if TYPE_CHECKING:
    from tensor_bridge.checkpoint.into_module._layer_graph import LayerGraph

# For each Keras cell, the name of torch's module without "Cell".
_TORCH = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}
_MASK_PASSES = ELEMENTWISE | {
    "Add", "Average", "Bidirectional", "Concatenate", "Dense", "GRU", "LSTM", "Maximum",
    "Minimum", "MultiHeadAttention", "Multiply", "RNN", "SimpleRNN", "Subtract", "TimeDistributed",
}  # fmt: skip


def masked(graph: LayerGraph, name: str) -> Iterator[str]:
    """A text for each layer that masks steps of the input of the layer of that name."""
    for source in graph.before(name, lambda name: graph.kind(name) in _MASK_PASSES):
        kind = graph.kind(source)
        if kind == "Masking" or (
            kind == "Embedding" and graph.layers[source].config.get("mask_zero")
        ):
            yield (
                f"Keras leaves out the steps that {source} masks ({kind}), torch computes every "
                "step"
            )


def recurrent(pair: Pair, kind: str, config: Mapping[str, Any]) -> Iterator[str]:
    """LSTM, GRU and SimpleRNN in one or two directions, layers of cells, and single cells."""
    yield from masked(pair.graph, pair.name)
    if kind != "Bidirectional":
        yield from _direction(pair, kind, config, backwards=False)
        return
    merge = config.get("merge_mode", "concat")
    if merge not in ("concat", None):
        yield pair.differs("merge_mode", merge, "concat")
    for name, backwards in (("layer", False), ("backward_layer", True)):
        inner = part(config, name)
        if inner is not None:
            yield from _direction(pair, *inner, backwards=backwards)


def reset_after(kind: str, config: Mapping[str, Any]) -> bool | None:
    """Whether a GRU multiplies by the reset gate after its kernel; None for other layers."""
    inner = part(config, "layer") if kind in ("Bidirectional", "TimeDistributed") else None
    found = [
        bool(cell.get("reset_after", False))
        for cell_kind, cell in _cells(*(inner or (kind, config)))
        if cell_kind in ("GRU", "GRUCell")
    ]
    return all(found) if found else None


def _direction(
    pair: Pair, kind: str, config: Mapping[str, Any], *, backwards: bool
) -> Iterator[str]:
    # In torch the loop over a cell is the caller's code.
    if not pair.torch_name.endswith("Cell"):
        if bool(config.get("go_backwards")) != backwards:
            yield (
                f"the layer's go_backwards is {not backwards}, {pair.torch_name} computes it as "
                f"{backwards}"
            )
        if config.get("stateful"):
            yield (
                f"the layer's stateful is True: it goes on from its last state, {pair.torch_name} "
                "begins with zeros"
            )
    for cell_kind, cell in _cells(kind, config):
        yield from _cell(pair, cell_kind, cell)


def _cells(kind: str, config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The stacked cells of a layer; a layer that is not an RNN is its own cell."""
    if kind == "RNN":
        inner = part(config, "cell")
        if inner is not None:
            yield from _cells(*inner)
        return
    if kind != "StackedRNNCells":
        yield kind, config
        return
    cells = config.get("cells")
    for cell in cells if isinstance(cells, (list, tuple)) else ():
        if isinstance(cell, Mapping) and isinstance(cell.get("config"), Mapping):
            yield kind_of(str(cell.get("class_name"))), cell["config"]


def _cell(pair: Pair, kind: str, config: Mapping[str, Any]) -> Iterator[str]:
    plain = kind.removeprefix("CuDNN").removesuffix("Cell")
    module = pair.torch_name.removeprefix("torch.nn.").removesuffix("Cell")
    if _TORCH.get(plain) != module:
        yield f"the layer is of the kind {kind}, the module is a {pair.torch_name}"
        return
    computed = {"activation": getattr(pair.module, "nonlinearity", "tanh")}
    if plain != "SimpleRNN":
        computed["recurrent_activation"] = "sigmoid"
    for name, other in computed.items():
        value = activation(option(config, name, other))
        if value != other:
            yield f"the layer's {name} is {value}, {pair.torch_name} computes {other}"
    # Keras before 2.1 had no reset_after, and computed what False means today.
    if kind in ("GRU", "GRUCell") and not config.get("reset_after", False):
        yield (
            f"the layer's reset_after is False, {pair.torch_name} computes what Keras does with "
            "True"
        )
