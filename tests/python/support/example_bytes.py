"""tf.train.Example and SequenceExample made byte by byte, also in forms that no library writes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

FIELD = {"bytes": 1, "float32": 2, "int64": 3}


def varint(value: int) -> bytes:
    """The varint of an int64, in two's complement."""
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def delimited(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def feature(dtype: str, values: Sequence[Any], *, packed: bool = True) -> bytes:
    """A tf.train.Feature."""
    if dtype == "bytes":
        inner = b"".join(delimited(1, value) for value in values)
    elif dtype == "float32":
        each = [struct.pack("<f", value) for value in values]
        inner = delimited(1, b"".join(each)) if packed else b"".join(b"\x0d" + e for e in each)
    else:
        each = [varint(value) for value in values]
        inner = delimited(1, b"".join(each)) if packed else b"".join(b"\x08" + e for e in each)
    return delimited(FIELD[dtype], inner)


def feature_list(features: Iterable[bytes]) -> bytes:
    """A tf.train.FeatureList."""
    return b"".join(delimited(1, each) for each in features)


def entries(pairs: Iterable[tuple[str, bytes]]) -> bytes:
    """The entries of a map in this order; a key may be repeated."""
    return b"".join(
        delimited(1, delimited(1, key.encode()) + delimited(2, value)) for key, value in pairs
    )


def example(pairs: Iterable[tuple[str, bytes]]) -> bytes:
    """A tf.train.Example."""
    return delimited(1, entries(pairs))


def sequence_example(
    context: Iterable[tuple[str, bytes]], lists: Iterable[tuple[str, bytes]]
) -> bytes:
    """A tf.train.SequenceExample."""
    return delimited(1, entries(context)) + delimited(2, entries(lists))
