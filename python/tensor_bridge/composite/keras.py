"""Keras layers and models: their weights, in order, by path."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tensor_bridge import _explanation, _refusals
from tensor_bridge.composite._registry import (
    Composite,
    Options,
    component_to_torch,
    explain_to_torch,
    for_tensorflow,
    part,
)
from tensor_bridge.errors import MismatchError, UnsupportedTypeError

if TYPE_CHECKING:
    from tensor_bridge._explanation import Explanation

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
        kind = _refusals.class_names(layer)[0].removeprefix("builtins.")
        raise UnsupportedTypeError(
            f"expected a Keras layer or model to assign a mapping to, got a {kind}"
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


def _to_torch(layer: Any, options: Options) -> OrderedDict[str, Any]:
    result: OrderedDict[str, Any] = OrderedDict()
    for path, variable in _weights(layer).items():
        with part(path):
            result[path] = component_to_torch(variable, options)
    return result


def _explain(layer: Any, options: Options) -> Explanation:
    parts = []
    for path, variable in _weights(layer).items():
        with part(path):
            parts.append((path, explain_to_torch(variable, options)))
    return _explanation.combined("weights", parts)


COMPOSITES = (
    Composite(
        name="keras layer",
        tf_keys=(
            "keras.src.layers.layer.Layer",  # Keras 3
            # Keras 2, by its three homes.
            "keras.engine.base_layer.Layer",
            "keras.src.engine.base_layer.Layer",
            "tf_keras.src.engine.base_layer.Layer",
        ),
        to_torch=_to_torch,
        explain=_explain,
    ),
)
