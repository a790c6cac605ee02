"""The roles of the numbered variables of Keras' layers: "0" of a Dense is its kernel.

Files of Keras 3 number a layer's variables in the order in which its ``build`` adds them, the
trainable ones first, and leave out what the configuration switches off. Not for: files that name
variables, and classes that are not Keras' own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensor_bridge.checkpoint.read._keras_config import class_of
from tensor_bridge.checkpoint.read._layer import Layer

# (role, the option that omits the variable if it is false or None)
_Roles = tuple[tuple[str, str], ...]
_KERNEL: _Roles = (("kernel", ""), ("bias", "use_bias"))
_DEPTHWISE: _Roles = (("depthwise_kernel", ""), ("bias", "use_bias"))
_SEPARABLE: _Roles = (
    ("depthwise_kernel", ""),
    ("pointwise_kernel", ""),
    ("bias", "use_bias"),
)
_AFFINE: _Roles = (("gamma", "scale"), ("beta", "center"))
_RENORM: _Roles = tuple(
    (name, "renorm") for name in ("moving_stddev", "renorm_mean", "renorm_stddev")
)
# The default of an option that the configuration of an older release lacks.
_DEFAULTS = {"bias_axes": None, "renorm": False}
_BATCH_NORM: _Roles = (*_AFFINE, ("moving_mean", ""), ("moving_variance", ""), *_RENORM)
_RECURRENT: _Roles = (("kernel", ""), ("recurrent_kernel", ""), ("bias", "use_bias"))

_CLASSES: dict[str, _Roles] = {
    **dict.fromkeys(
        (
            "Dense",
            "Conv1D",
            "Conv2D",
            "Conv3D",
            "Conv1DTranspose",
            "Conv2DTranspose",
            "Conv3DTranspose",
            "LocallyConnected1D",
            "LocallyConnected2D",
        ),
        _KERNEL,
    ),
    "EinsumDense": (("kernel", ""), ("bias", "bias_axes")),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _DEPTHWISE),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _SEPARABLE),
    "Embedding": (("embeddings", ""),),
    "ReversibleEmbedding": (("embeddings", ""),),
    "PReLU": (("alpha", ""),),
    **dict.fromkeys(("BatchNormalization", "SyncBatchNormalization"), _BATCH_NORM),
    **dict.fromkeys(("LayerNormalization", "GroupNormalization"), _AFFINE),
    "RMSNormalization": (("scale", ""),),
    **dict.fromkeys(
        (
            "LSTMCell",
            "GRUCell",
            "SimpleRNNCell",
            "ConvLSTMCell",
            "CuDNNLSTM",
            "CuDNNGRU",
        ),
        _RECURRENT,
    ),
}
# Layers that make a cell or inner layers, and store no configuration of them.
_CELLS = {
    "LSTM": "LSTMCell",
    "GRU": "GRUCell",
    "SimpleRNN": "SimpleRNNCell",
    **dict.fromkeys(("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), "ConvLSTMCell"),
}
_ATTENTION = ("MultiHeadAttention", "GroupQueryAttention")
_ATTENTION_PARTS = ("query", "key", "value", "output")
_DIRECTIONS = ("forward_layer", "backward_layer")


def roles_of(class_name: str, config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The variables of a layer itself, in the order of their numbers.

    None for a class that is not known, and for a quantized layer, which stores more.
    """
    if class_name not in _CLASSES or _is_quantized(config):
        return None
    if class_name == "LayerNormalization" and config.get("rms_scaling"):
        return ("gamma",) if config.get("scale", True) else ()
    roles = tuple(
        role
        for role, option in _CLASSES[class_name]
        if not option or config.get(option, _DEFAULTS.get(option, True))
    )
    if class_name == "ReversibleEmbedding" and not config.get("tie_weights", True):
        return (*roles, "reverse_embeddings")
    return roles


def _is_quantized(config: Mapping[str, Any]) -> bool:
    policy = config.get("dtype")
    called = policy.get("class_name", "") if isinstance(policy, dict) else policy
    return "Quantized" in str(called) or bool(config.get("quantization_config"))


def role_of(name: str, layers: Mapping[str, Layer]) -> str | None:
    """The role of a variable that a number stands for, "bn/0"; None if that is not known.

    ``name`` is the name of an entry, and ``layers`` are those of its checkpoint.
    """
    path, _, number = name.rpartition("/")
    if not number.isdecimal() or len(number) > 3:
        return None
    parts = path.split("/")
    for length in range(len(parts), 0, -1):
        layer = layers.get("/".join(parts[:length]))
        if layer is not None:
            found = _part(layer.class_name, layer.config, parts[length:])
            roles = None if found is None else roles_of(*found)
            return roles[int(number)] if roles is not None and int(number) < len(roles) else None
    return None


def _part(
    class_name: str, config: Mapping[str, Any], attributes: list[str]
) -> tuple[str, Mapping[str, Any]] | None:
    """Class and configuration of the object that a layer's attributes lead to."""
    for attribute in attributes:
        plain = attribute.lstrip("_")
        inner = config.get("layer" if plain in _DIRECTIONS else plain)
        if plain == "backward_layer" and isinstance(config.get(plain), dict):
            inner = config[plain]
        if class_name in _CELLS and plain == "cell":
            class_name = _CELLS[class_name]
        elif class_name in _ATTENTION and plain.removesuffix("_dense") in _ATTENTION_PARTS:
            bias = "d" if config.get("use_bias", True) else None
            class_name, config = "EinsumDense", {"bias_axes": bias, "dtype": config.get("dtype")}
        elif isinstance(inner, dict) and isinstance(inner.get("config"), dict):
            class_name, config = class_of({"class_name": "", **inner}), inner["config"]
        else:
            return None
    return class_name, config
