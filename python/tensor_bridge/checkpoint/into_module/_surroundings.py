"""The activation after a layer and after its module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tensor_bridge.checkpoint.into_module._keras_options import (
    activation,
    is_keras_3,
    kind_of,
    number,
    option,
)
from tensor_bridge.checkpoint.into_module._pair import Pair, torch_class

if TYPE_CHECKING:
    from torch import nn

# Torch's activation modules under Keras' names. Two of one name differ in their numbers.
_ACTIVATIONS = {
    "ELU": "elu",
    "GELU": "gelu",
    "Hardsigmoid": "hard_sigmoid",
    "Hardswish": "hard_silu",
    "Hardtanh": "hard_tanh",
    "LeakyReLU": "leaky_relu",
    "LogSigmoid": "log_sigmoid",
    "LogSoftmax": "log_softmax",
    "Mish": "mish",
    "ReLU": "relu",
    "ReLU6": "relu6",
    "SELU": "selu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Tanh": "tanh",
}
_SYNONYMS = {"swish": "silu", "hard_swish": "hard_silu"}
_NEUTRAL = {"Identity", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout"}
_NEUTRAL_LAYERS = {
    "ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise",
    "Identity", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D",
}  # fmt: skip
_COMPUTING = ("Linear", "Conv", "BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm")
_ACTIVATION_LAYERS = {"Activation", "ReLU", "LeakyReLU", "ELU", "Softmax", "ThresholdedReLU"}


def activation_behind(pair: Pair, config: Mapping[str, Any]) -> Iterator[str]:
    """Compares the next module in an nn.Sequential; other code may apply activations anywhere."""
    _, behind = pair.neighbours()
    following = next((m for m in behind if torch_class(m) not in _NEUTRAL), None)
    other = _torch_activation(following)
    value = _keras_activation(pair, config)
    if following is None or None in (value, other) or value == other:
        return
    yield (
        f"the layer's activation is {value}, in the torch.nn.Sequential follows "
        f"{'none' if other == 'linear' else other} (torch.nn.{torch_class(following)})"
    )


def _torch_activation(module: nn.Module | None) -> str | None:
    """The activation that a module is; "linear" for another torch module, None if unknown."""
    name = torch_class(module) if module is not None else None
    if name is None:
        return None
    if name.startswith(_COMPUTING):
        return "linear"
    found = _ACTIVATIONS.get(name)
    if found == "leaky_relu":
        return _sloped(found, getattr(module, "negative_slope", None))
    if found == "elu":
        return _sloped(found, getattr(module, "alpha", None))
    if found == "gelu" and getattr(module, "approximate", "none") != "none":
        return "gelu by tanh"
    return found


def _keras_activation(pair: Pair, config: Mapping[str, Any]) -> str | None:
    """The activation of a layer, or of the only layer after it; None if unknown."""
    own = _named(config, option(config, "activation"))
    if own != "linear":
        return own
    behind, name = pair.graph.consumers(pair.name), pair.name
    while len(behind) == 1 and pair.graph.kind(behind[0]) in _NEUTRAL_LAYERS:
        name = behind[0]
        behind = pair.graph.consumers(name)
    if len(behind) != 1:
        return None
    kind, layer = pair.graph.kind(behind[0]), pair.graph.layers[behind[0]].config
    if kind in _ACTIVATION_LAYERS:
        value = layer.get("activation") if kind == "Activation" else {"class_name": kind}
        if kind != "Activation":
            value = {"class_name": kind, "config": layer}
        return _named(layer, value)
    return (
        "linear" if kind.endswith("Normalization") or kind.startswith(("Dense", "Conv")) else None
    )


def _named(config: Mapping[str, Any], value: Any) -> str:
    """An activation's name together with its numbers."""
    inner = value.get("config") if isinstance(value, Mapping) else None
    if isinstance(value, Mapping) and isinstance(inner, Mapping):
        return _layer_named(kind_of(str(value.get("class_name"))), inner)
    name = activation(value)
    name = _SYNONYMS.get(name, name)
    if name == "leaky_relu":
        return _sloped(name, 0.2)
    if name == "elu":
        return _sloped(name, 1.0)
    if name.startswith("hard_") and name != "hard_tanh" and not is_keras_3(config):
        return f"{name} of Keras 2"
    return name


def _layer_named(kind: str, config: Mapping[str, Any]) -> str:
    if kind == "LeakyReLU":
        return _sloped("leaky_relu", number(config, "negative_slope", 0.3))
    if kind == "ELU":
        return _sloped("elu", number(config, "alpha", 1.0))
    if kind == "ReLU" and not number(config, "threshold") and not number(config, "negative_slope"):
        top = number(config, "max_value")
        return "relu" if top is None else "relu6" if top == 6 else f"relu up to {top}"
    return kind.lower()


def _sloped(name: str, slope: float | None) -> str:
    return name if slope is None else f"{name} of {round(slope, 6):g}"
