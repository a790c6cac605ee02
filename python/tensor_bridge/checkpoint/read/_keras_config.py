"""The configuration that Keras stores beside weights: its layers, and how they are connected.

Keras 1 and 2 store it in the attribute model_config of an .h5 file, Keras 3 and late releases of
Keras 2 in config.json of a .keras archive. The format is in ``get_config`` of
keras/src/models/functional.py and sequential.py, and for Keras 2 in get_network_config of
engine/functional.py. Not for: which group of a weight file belongs to which layer
(_keras_names.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tensor_bridge.checkpoint.read._layer import Layer

MAX_BYTES = 16 << 20
"""Limit of a configuration's size: the largest of Keras' own applications takes 1 MB."""
MAX_PATH = 1024
"""Characters of the path of a layer, more than Keras makes."""
_MAX_DEPTH = 200


@dataclass(frozen=True)
class Node:
    """A layer or model of a configuration.

    Attributes:
      name: Of the layer; "" if none is stored.
      class_name: Of its class.
      registered: The class as in `Layer`, which distinguishes Keras' Dense from a custom one.
      config: The argument of ``from_config``; {} for a model of Keras 1, which is a list of layers.
      inbound: The calls, as stored.
      layers: The layers of a model, in its order.
      inner: Objects in a layer's configuration, by their keys there, such as the cell of an RNN.
      is_model: Whether ``layers`` are its layers: a custom class does not say how it is built.
      is_layer: Whether it is not one of keras.ops, which have no variables and no group in a file.
      again: Whether the same object occurs earlier in the configuration.
    """

    name: str
    class_name: str
    registered: str
    config: Mapping[str, Any]
    inbound: Any
    layers: tuple[Node, ...]
    inner: Mapping[str, tuple[Node, ...]]
    is_model: bool
    is_layer: bool
    again: bool


def parse(text: str | bytes) -> Node:
    """The model that a configuration describes.

    Raises:
      ValueError: It is no configuration of Keras, or larger or deeper than Keras makes them.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"expected at most {MAX_BYTES} bytes, got {len(text)}")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"expected at most {_MAX_DEPTH} levels, got more") from None
    _check_depth(value)
    node = _node(value, set())
    if node is None:
        raise ValueError("expected an object with the class and the configuration of a model")
    return node


def _check_depth(value: Any) -> None:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(_MAX_DEPTH):
        level = [
            item
            for outer in level
            for item in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return
    raise ValueError(f"expected at most {_MAX_DEPTH} levels, got more")


def _node(value: Any, met: set[tuple[str, str]]) -> Node | None:
    """Parses a serialized object; None if the value is not one.

    ``met`` are the names and classes of the objects before it.
    """
    if not isinstance(value, dict) or not isinstance(value.get("class_name"), str):
        return None
    class_name, config = value["class_name"], value.get("config")
    if not isinstance(config, (dict, list)):
        return None
    name = config.get("name") if isinstance(config, dict) else None
    name = name if isinstance(name, str) else value.get("name")
    name = name if isinstance(name, str) else ""
    # Keras numbers an object that it stores again, but not where it stored it first.
    again = "shared_object_id" in value and (name, class_name) in met
    met.add((name, class_name))
    stored = config if isinstance(config, list) else config.get("layers")
    # A custom class has input_layers if it is built like Keras' models.
    registered = class_of(value)
    is_model = isinstance(stored, list) and (
        registered == "Sequential" or isinstance(config, list) or "input_layers" in config
    )
    parts = [_node(part, met) for part in stored] if is_model and stored is not None else []
    return Node(
        name=name,
        class_name=class_name,
        registered=registered,
        config=config if isinstance(config, dict) else {},
        inbound=value.get("inbound_nodes"),
        layers=tuple(part for part in parts if part is not None),
        inner={} if is_model else _inner(config, met),
        is_model=is_model,
        is_layer=".ops." not in f"{value.get('module')}.",
        again=again,
    )


def class_of(value: Mapping[str, Any]) -> str:
    """The class of a serialized object, with its package if that is not Keras."""
    registered, module = value.get("registered_name"), value.get("module")
    if isinstance(registered, str) and ">" in registered:
        return registered
    # Keras 1 and 2, and .h5 files, do not store the module.
    if "module" not in value or str(module).partition(".")[0] in ("keras", "tf_keras"):
        return str(value["class_name"])
    return f"{module or '__main__'}>{value['class_name']}"


def _inner(config: Any, met: set[tuple[str, str]]) -> dict[str, tuple[Node, ...]]:
    found: dict[str, tuple[Node, ...]] = {}
    for key, value in config.items() if isinstance(config, dict) else ():
        several = value if isinstance(value, list) else [value]
        nodes = [part for part in (_node(item, met) for item in several) if part is not None]
        if nodes and len(nodes) == len(several):
            found[key] = tuple(nodes)
    return found


def layers_of(model: Node, by_name: bool = False) -> dict[str, Layer]:
    """Returns all layers by their path, "inner/dense", including nested models and their layers.

    Args:
      model: The outermost.
      by_name: Whether a model inside a layer has its own name in the paths, as in .h5 files, or
        that of the attribute, as in .keras archives.

    Raises:
      ValueError: A path is longer than any that Keras makes.
    """
    found: dict[str, Layer] = {}
    waiting = [(model, "")]
    while waiting:
        outer, prefix = waiting.pop()
        for part, inputs in fed_by(outer):
            path = prefix + part.name
            if len(path) > MAX_PATH:
                raise ValueError(f"expected names of at most {MAX_PATH} characters, got more")
            found[path] = Layer(part.registered, part.config, tuple(prefix + n for n in inputs))
            waiting.append((part, f"{path}/"))
            waiting += [
                (nodes[0], f"{path}/{nodes[0].name if by_name else key}/")
                for key, nodes in part.inner.items()
                if len(nodes) == 1 and nodes[0].is_model
            ]
    return found


def fed_by(model: Node) -> Iterator[tuple[Node, tuple[str, ...]]]:
    """The named layers of a model, and for each the names of its input layers."""
    names = {part.name for part in model.layers}
    before = ""
    for part in model.layers:
        feeding = [before] if model.class_name == "Sequential" else _feeding(part.inbound, names)
        before = part.name
        if part.name:
            yield part, tuple(dict.fromkeys(name for name in feeding if name))


def _feeding(calls: Any, names: set[str]) -> Iterator[str]:
    """Returns the names of the layers whose outputs are arguments of the calls.

    Keras 1 and 2 store a tensor as [layer, call, output], optionally followed by keyword arguments;
    Keras 3 as an object __keras_tensor__, whose keras_history is such a list.
    """
    if isinstance(calls, dict):
        for value in calls.values():
            yield from _feeding(value, names)
    elif isinstance(calls, list):
        if (
            len(calls) >= 3
            and isinstance(calls[0], str)
            and calls[0] in names
            and type(calls[1]) is type(calls[2]) is int
        ):
            yield calls[0]
        for value in calls:
            yield from _feeding(value, names)
