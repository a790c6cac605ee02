"""The layers that Keras 2 describes beside a SavedModel, in keras_metadata.pb.

A protobuf message, SavedMetadata (keras/protobuf/saved_metadata.proto): for each object of the
model its path, "root.layer_with_weights-0", and as JSON its class and configuration. TensorFlow
before 2.5 keeps the same inside saved_model.pb; that is not read.
"""

from __future__ import annotations

from pathlib import Path

from tensor_bridge.checkpoint.read._damage import damaged
from tensor_bridge.checkpoint.read._files import is_there, read_small
from tensor_bridge.checkpoint.read._keras_config import Node, fed_by, parse
from tensor_bridge.checkpoint.read._layer import Layer
from tensor_bridge.checkpoint.read._object_graph import fields_of
from tensor_bridge.errors import CheckpointError

_FILE = "keras_metadata.pb"
# It contains a layer's configuration once for each model that the layer is in.
_MAX_BYTES = 32 << 20
_PATH, _IDENTIFIER, _METADATA = 3, 4, 5


def saved_layers(folder: Path) -> dict[str, Layer]:
    """The layers by the attributes that lead to them, "layer_with_weights-0"; empty without any.

    Raises:
      CheckpointError: The description is damaged.
    """
    path = folder / _FILE
    if not is_there(path):
        return {}
    data = read_small(path, _MAX_BYTES)
    try:
        nodes = dict(_nodes(message) for number, message in fields_of(data) if number == 1)
        return _layers({place: node for place, node in nodes.items() if node is not None})
    except (ValueError, CheckpointError) as e:
        raise damaged(str(path), f"expected what Keras says of a SavedModel: {e}") from None


def _nodes(message: int | bytes) -> tuple[str, Node | None]:
    """The path of an object, and its description if it is a layer."""
    parts = dict(fields_of(message)) if isinstance(message, bytes) else {}
    place, identifier, metadata = (parts.get(n, b"") for n in (_PATH, _IDENTIFIER, _METADATA))
    if not (
        isinstance(place, bytes) and isinstance(identifier, bytes) and isinstance(metadata, bytes)
    ):
        raise ValueError("got a number instead of text")
    is_layer = identifier.startswith(b"_tf_keras_") and identifier != b"_tf_keras_metric"
    return place.decode(), parse(metadata) if is_layer else None


def _layers(nodes: dict[str, Node]) -> dict[str, Layer]:
    inside: dict[str, dict[str, str]] = {}
    for place, node in nodes.items():
        inside.setdefault(place.rpartition(".")[0], {})[node.name] = place
    found = {}
    for place, node in nodes.items():
        if place != "root":
            found[_name(place)] = Layer(node.registered, node.config, ())
    for place, model in nodes.items():
        paths = inside.get(place, {})
        for part, inputs in fed_by(model):
            if part.name in paths:
                feeding = tuple(_name(paths[name]) for name in inputs if name in paths)
                found[_name(paths[part.name])] = Layer(part.registered, part.config, feeding)
    return found


def _name(place: str) -> str:
    return place.removeprefix("root.").replace(".", "/")
