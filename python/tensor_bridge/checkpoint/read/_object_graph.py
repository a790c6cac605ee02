"""The object graph of a checkpoint: which object has which children, and what variables are called.

A protobuf message, TrackableObjectGraph, read and written without protobuf.
"""

from __future__ import annotations

from collections.abc import Iterator

from tensor_bridge.errors import CheckpointError

__all__ = ["message", "varint", "variable_names"]


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


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
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


def variable_names(graph: bytes) -> dict[str, str]:
    """From the key of each variable to the name that it had in TensorFlow ("dense/kernel").

    Raises:
      CheckpointError: The bytes are no object graph.
    """
    names: dict[str, str] = {}
    for number, node in _fields(graph):
        if number != 1 or isinstance(node, int):
            continue
        for part, attribute in _fields(node):
            if part != 2 or isinstance(attribute, int):
                continue
            # SerializedTensor: name, full_name, checkpoint_key
            texts = {
                n: v.decode("utf-8", "replace")
                for n, v in _fields(attribute)
                if isinstance(v, bytes)
            }
            if texts.get(2) and texts.get(3):
                names[texts[3]] = texts[2]
    return names
