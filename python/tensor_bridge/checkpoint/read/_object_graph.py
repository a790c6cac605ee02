"""The object graph of a checkpoint: which object has which children, and what variables are called.

A protobuf message, TrackableObjectGraph, read and written without protobuf
(tensorflow/core/protobuf/trackable_object_graph.proto).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple, TypeGuard

from tensor_bridge.errors import CheckpointError

# A graph in memory takes a multiple of its bytes, an empty object 100 times as many. That of a
# ResNet-50 with its optimizer has 50 kB and 556 objects; reading takes 50 ns a byte.
_MAX_GRAPH = 8 << 20
_MAX_OBJECTS = 1_000_000


def varint(value: int) -> bytes:
    """An unsigned integer of protobuf."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """A message of numbers and bytes; a number of 0 is left out, as protobuf does."""
    out = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            if value:
                out += varint(number << 3) + varint(value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70 and at < len(data):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise CheckpointError("expected an object graph, got something else")


def fields_of(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a message; of those with numbers or bytes.

    Raises:
      CheckpointError: The bytes are no message.
    """
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _read_varint(data, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _read_varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(kind, len(data) + 1)
        if size > len(data) - at:
            raise CheckpointError("expected an object graph, got something else")
        if kind == 2:
            yield number, data[at : at + size]
        at += size


class Node(NamedTuple):
    """An object.

    Attributes:
      children: Numbers of the objects that it refers to, by the names it has for them.
      values: Of each tensor that it stores (name, name in TensorFlow, key in the checkpoint).
      slots: What it keeps for variables: (number of the variable, name, number of the slot).
    """

    children: dict[str, int]
    values: list[tuple[str, str, str]]
    slots: list[tuple[int, str, int]]


def one_string(stored: bytes) -> bytes:
    """The string of a tensor that has one, as a checkpoint stores it; nothing if it has not."""
    try:
        size, at = _read_varint(stored, 0)
    except CheckpointError:
        return b""
    begin = at + 4  # behind the checksum of the length
    return stored[begin:] if begin + size == len(stored) else b""


def read_graph(graph: bytes) -> list[Node]:
    """The objects; the first is the one that was saved.

    Raises:
      CheckpointError: The bytes are no object graph, or of a size that none has.
    """
    if len(graph) > _MAX_GRAPH:
        raise CheckpointError(f"expected an object graph of at most {_MAX_GRAPH} bytes")
    nodes = list(islice(_nodes(graph), _MAX_OBJECTS + 1))
    if len(nodes) > _MAX_OBJECTS:
        raise CheckpointError(f"expected an object graph of at most {_MAX_OBJECTS} objects")
    return nodes


def _nodes(graph: bytes) -> Iterator[Node]:
    return (_node(value) for number, value in fields_of(graph) if number == 1 and _is_bytes(value))


def _is_bytes(value: int | bytes) -> TypeGuard[bytes]:
    return isinstance(value, bytes)


def _node(data: bytes) -> Node:
    node = Node({}, [], [])
    for number, value in fields_of(data):
        if not _is_bytes(value) or number > 3:
            continue
        fields = dict(fields_of(value))
        if number == 1:  # ObjectReference: node_id, local_name
            node.children[_text(fields.get(2))] = _number(fields.get(1))
        elif number == 2:  # SerializedTensor: name, full_name, checkpoint_key
            name, full, key = (_text(fields.get(i)) for i in (1, 2, 3))
            node.values.append((name, full, key))
        else:  # SlotVariableReference: original_variable_node_id, slot_name, slot_variable_node_id
            slot = (_number(fields.get(1)), _text(fields.get(2)), _number(fields.get(3)))
            node.slots.append(slot)
    return node


def _text(value: int | bytes | None) -> str:
    # As in the keys of the index, which may be any bytes.
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else ""


def _number(value: int | bytes | None) -> int:
    return value if isinstance(value, int) else 0


def variable_names(graph: bytes) -> dict[str, str]:
    """From the key of each variable to the name that it had in TensorFlow ("dense/kernel").

    Raises:
      CheckpointError: The bytes are no object graph.
    """
    values = (value for node in _nodes(graph) for value in node.values)
    return {key: full for _, full, key in values if full and key}
