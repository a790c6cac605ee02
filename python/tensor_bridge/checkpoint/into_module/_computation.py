"""Differences between the computations of a torch module and of the Keras layer it replaces.

Not for: whether weights fit (_layouts.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tensor_bridge.checkpoint.into_module._convolution import convolution, separable, transposed
from tensor_bridge.checkpoint.into_module._keras_options import kind_of, part
from tensor_bridge.checkpoint.into_module._layer_graph import LayerGraph
from tensor_bridge.checkpoint.into_module._normalization import (
    batch_norm,
    group_norm,
    layer_norm,
    rms_norm,
)
from tensor_bridge.checkpoint.into_module._pair import Pair, torch_class
from tensor_bridge.checkpoint.into_module._picture_order import flatten_before, picture_behind
from tensor_bridge.checkpoint.into_module._projection import attention, einsum, embedding
from tensor_bridge.checkpoint.into_module._recurrence import masked, recurrent, reset_after
from tensor_bridge.checkpoint.into_module._surroundings import activation_behind

if TYPE_CHECKING:
    from torch import nn

    from tensor_bridge.checkpoint.into_module._made_with import MadeWith
    from tensor_bridge.checkpoint.read._layer import Layer

Comparison = Callable[[Pair, str, Mapping[str, Any]], Iterator[str]]

_BATCH_NORMS = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm")
_GROUP_NORMS = ("GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d")
_RECURRENT_LAYERS = (
    *("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional"),
    *("CuDNNLSTM", "CuDNNGRU", "LSTMCell", "GRUCell", "SimpleRNNCell"),
)
_RECURRENT = ("LSTM", "LSTMCell", "GRU", "GRUCell", "RNN", "RNNCell")


def _nothing(_pair: Pair, _kind: str, _config: Mapping[str, Any]) -> Iterator[str]:
    return iter(())


# For each Keras class, the torch.nn classes of the same kind, and the function that compares them.
_COMPARISONS: dict[str, tuple[tuple[str, ...], Comparison]] = {
    "Dense": (("Linear",), _nothing),
    "EinsumDense": (("Linear",), einsum),
    "Embedding": (("Embedding", "EmbeddingBag"), embedding),
    "MultiHeadAttention": (("MultiheadAttention",), attention),
    "PReLU": (("PReLU",), _nothing),
    "BatchNormalization": (_BATCH_NORMS, batch_norm),
    "LayerNormalization": (("LayerNorm",), layer_norm),
    "RMSNormalization": (("RMSNorm",), rms_norm),
    "GroupNormalization": (_GROUP_NORMS, group_norm),
    "InstanceNormalization": (_GROUP_NORMS, group_norm),
    **{f"Conv{n}D": ((f"Conv{n}d",), convolution) for n in (1, 2, 3)},
    **{f"DepthwiseConv{n}D": ((f"Conv{n}d",), convolution) for n in (1, 2)},
    **{f"SeparableConv{n}D": (("Sequential",), separable) for n in (1, 2)},
    **{f"Conv{n}DTranspose": ((f"ConvTranspose{n}d",), transposed) for n in (1, 2, 3)},
    **dict.fromkeys(_RECURRENT_LAYERS, (_RECURRENT, recurrent)),
}
# Layers whose outputs are in the order of their weights.
_BEFORE_RESHAPE = {"Dense", "EinsumDense", "PReLU"} | {
    kind for kind in _COMPARISONS if kind.endswith("Normalization")
}
_KNOWN = {name for names, _ in _COMPARISONS.values() for name in names}


def differences(pair: Pair) -> list[str]:
    """The differences, one text each, with both values.

    Modules with their own ``forward``, and layers of classes that are not Keras' own, are not
    compared.
    """
    kind, config = kind_of(pair.layer.class_name), pair.layer.config
    while kind in ("TimeDistributed", "SpectralNormalization"):
        inner = part(config, "layer")
        if inner is None:
            return []
        kind, config = inner
    found = torch_class(pair.module)
    if kind not in _COMPARISONS or found not in _KNOWN:
        return []
    expected, compare = _COMPARISONS[kind]
    texts: list[str] = []
    if found in expected or (kind.startswith("Conv") and found == "Linear"):
        texts += compare(pair, kind, config)
        texts += flatten_before(pair) if kind != "Embedding" else ()
        texts += picture_behind(pair) if kind in _BEFORE_RESHAPE else ()
    else:
        texts.append(f"the layer is of the kind {kind}, the module is a torch.nn.{found}")
    if kind not in _RECURRENT_LAYERS:  # they apply their activation inside
        texts += activation_behind(pair, config)
    return [f"{pair.title}: {text}" for text in dict.fromkeys(texts)]


def _masks(graph: LayerGraph) -> list[str]:
    """Layers without weights that leave out masked steps: there is no module to compare."""
    readers = ("GlobalAveragePooling1D", "Attention", "AdditiveAttention")
    return [
        f"{name}: {text}"
        for name in graph.layers
        if graph.kind(name) in readers
        for text in masked(graph, name)
    ]


def compared(
    modules: Mapping[str, nn.Module],
    taken: Mapping[str, Iterable[str]],
    layers: Mapping[str, Layer],
    flattened: Mapping[str, tuple[int, ...]],
) -> list[str]:
    """What a torch model computes differently from the Keras model whose weights it takes.

    Args:
      modules: Those of the torch model, by their paths.
      taken: The layers whose weights each module takes, by its path.
      layers: All of the Keras model: `Checkpoint.layers`.
      flattened: As for `load_into`.
    """
    graph = LayerGraph(layers)
    pairs = [
        Pair(path, name, modules, graph, flattened.get(path))
        for path, names in taken.items()
        for name in names
    ]
    return [text for pair in pairs for text in differences(pair)] + _masks(graph)


def options_known(made_with: MadeWith, layer: Layer) -> MadeWith:
    """The caller's options for a layer, completed by those that the checkpoint tells."""
    if made_with.reset_after is None:
        known = reset_after(kind_of(layer.class_name), layer.config)
        made_with = replace(made_with, reset_after=known)
    if made_with.dim_ordering is None and layer.config.get("dim_ordering") in ("tf", "th"):
        made_with = replace(made_with, dim_ordering=layer.config["dim_ordering"])
    return made_with
