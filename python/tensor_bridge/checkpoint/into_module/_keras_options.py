"""Reads the options of Keras' layers as any generation of Keras wrote them.

Keras 1 had other names for most (``border_mode``, ``subsample``), Keras 3 writes functions as
dictionaries. Not for: what the options mean in torch (_computation.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# keras/legacy/interfaces.py of Keras 2.0 has the names that Keras 1 used.
_KERAS_1 = {
    "data_format": ("dim_ordering",),
    "dilation_rate": ("atrous_rate",),
    "filters": ("nb_filter",),
    "negative_slope": ("alpha",),
    "padding": ("border_mode",),
    "pool_size": ("pool_length",),
    "recurrent_activation": ("inner_activation",),
    "strides": ("subsample", "subsample_length", "stride"),
    "units": ("output_dim",),
}
_OLD_CLASSES = {
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "Convolution1DTranspose": "Conv1DTranspose",
    "Convolution2DTranspose": "Conv2DTranspose",
    "Convolution3DTranspose": "Conv3DTranspose",
    "Deconvolution2D": "Conv2DTranspose",
    "Deconvolution3D": "Conv3DTranspose",
    "SeparableConvolution1D": "SeparableConv1D",
    "SeparableConvolution2D": "SeparableConv2D",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "LSTMV1": "LSTM",
    "LSTMV2": "LSTM",
    "GRUV1": "GRU",
    "GRUV2": "GRU",
}


def kind_of(class_name: str) -> str:
    """The class as Keras 2 and 3 call it, without the package that it was registered in."""
    name = class_name.rpartition(">")[2]
    return _OLD_CLASSES.get(name, name)


def option(config: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """An option under its current or an older name; ``default`` if the file has neither."""
    for key in (name, *_KERAS_1.get(name, ())):
        if config.get(key) is not None:
            return config[key]
    return default


def count(config: Mapping[str, Any], name: str) -> int | None:
    """An option that is a whole number."""
    value = option(config, name)
    return value if isinstance(value, int) else None


def number(config: Mapping[str, Any], name: str, default: float | None = None) -> float | None:
    """An option that is a number; ``default`` if it is not a number."""
    value = option(config, name, default)
    return value if isinstance(value, (int, float)) else default


def sizes(config: Mapping[str, Any], name: str, ndim: int) -> tuple[int, ...] | None:
    """An option with one number for each of ``ndim`` axes, or one for all; otherwise None."""
    value = option(config, name)
    values = value if isinstance(value, (list, tuple)) else [value] * ndim
    if len(values) != ndim or not all(isinstance(v, int) for v in values):
        return None
    return tuple(values)


def channels_first(config: Mapping[str, Any]) -> bool:
    """Whether the layer's pictures have their channels first, like Theano's in Keras 1."""
    return option(config, "data_format") in ("channels_first", "th")


def pairs(config: Mapping[str, Any], name: str, ndim: int) -> list[tuple[int, int]] | None:
    """An option with two numbers for each of ``ndim`` axes, or in one of the shorter forms."""
    value = config.get(name)
    each: Any = value if ndim > 1 and isinstance(value, (list, tuple)) else [value] * ndim
    both: list[Any] = [[v, v] if isinstance(v, int) else v for v in each]
    if len(both) != ndim or not all(
        isinstance(v, (list, tuple)) and [type(n) for n in v] == [int, int] for v in both
    ):
        return None
    return [(v[0], v[1]) for v in both]


def part(config: Mapping[str, Any], name: str) -> tuple[str, Mapping[str, Any]] | None:
    """Class and configuration of a layer within a layer: of a wrapper, of a recurrent layer."""
    value = config.get(name)
    if not isinstance(value, Mapping) or not isinstance(value.get("config"), Mapping):
        return None
    return kind_of(str(value.get("class_name"))), value["config"]


def activation(value: Any) -> str:
    """The name of an activation; "linear" for none, "Package>name" for a custom one."""
    if value is None:
        return "linear"
    if isinstance(value, Mapping):
        registered, config = value.get("registered_name"), value.get("config")
        if isinstance(registered, str) and ">" in registered:
            value = registered
        elif isinstance(config, str):
            value = config  # {"class_name": "function", "config": "relu"}
        else:
            value = value.get("class_name")  # a layer such as LeakyReLU, or a lambda
    package, _, name = str(value).rpartition(">")
    return name if package.startswith("keras") else str(value)


def is_keras_3(config: Mapping[str, Any]) -> bool:
    """Whether Keras 3 wrote the configuration: dtypes are policies there."""
    return isinstance(config.get("dtype"), Mapping)
