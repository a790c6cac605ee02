"""Keras layers and models: their weights, in order, by path."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from tensor_bridge import _refusals
from tensor_bridge.composite._registry import (
    TO_TORCH,
    Assembly,
    Composite,
    Options,
    for_tensorflow,
    of_parts,
)
from tensor_bridge.errors import MismatchError, UnsupportedTypeError

__all__ = ["COMPOSITES", "pairs"]


def _path(variable: Any) -> str:
    # Keras 2 has names like "dense/kernel:0" instead.
    path = getattr(variable, "path", None)
    return str(variable.name).partition(":")[0] if path is None else str(path)


def _weights(layer: Any) -> OrderedDict[str, Any]:
    """The variables of a layer or model by path, in Keras' order.

    Raises:
      UnsupportedTypeError: the layer has no weights yet, or two of them have the same path.
    """
    if not layer.built:
        raise UnsupportedTypeError(
            f"expected a layer or model with weights, got {layer.name!r}, which is not built yet; "
            "call it on data, or build() it"
        )
    weights: OrderedDict[str, Any] = OrderedDict()
    for variable in layer.weights:
        path = _path(variable)
        if path in weights:
            raise UnsupportedTypeError(
                f"two weights of {layer.name!r} have the path {path!r}; convert the list of them "
                "instead: layer.weights"
            )
        weights[path] = variable
    return weights


def pairs(layer: Any, source: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(path, variable, tensor) for every weight of a layer or model.

    Raises:
      MismatchError: the paths are not those of the weights.
    """
    found = for_tensorflow(layer)
    if found is None or found.name != "keras layer":
        kind = _refusals.a_class(layer)
        raise UnsupportedTypeError(
            f"expected a Keras layer or model to assign a mapping to, got {kind}"
        )
    weights = _weights(layer)
    missing = [path for path in weights if path not in source]
    unexpected = [path for path in source if path not in weights]
    if missing or unexpected:
        raise MismatchError(
            f"expected one tensor for each weight of {layer.name!r}; missing: "
            f"{', '.join(missing) or 'none'}; unexpected: {', '.join(unexpected) or 'none'}"
        )
    return [(path, variable, source[path]) for path, variable in weights.items()]


def _to_torch(layer: Any, options: Options) -> Assembly:
    weights = _weights(layer)
    parts = [(path, variable, options, None) for path, variable in weights.items()]
    return "weights", parts, lambda tensors: OrderedDict(zip(weights, tensors, strict=True))


COMPOSITES = (
    Composite(
        name="keras layer",
        tf_keys=(
            "keras.src.layers.layer.Layer",  # Keras 3
            # Keras 2, in its three packages.
            "keras.engine.base_layer.Layer",
            "keras.src.engine.base_layer.Layer",
            "tf_keras.src.engine.base_layer.Layer",
        ),
        to_torch=of_parts(TO_TORCH, _to_torch),
    ),
)
