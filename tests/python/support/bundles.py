"""Checkpoints that TensorFlow writes, and index files made with protobuf and Python only."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import tensor_bundle_pb2

MAGIC = 0xDB4775248B80FB57


def save(prefix: Path | str, tensors: Mapping[Any, Any]) -> str:
    """Has TensorFlow write a checkpoint of these tensors; returns the prefix."""
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=[tf.convert_to_tensor(x) for x in tensors.values()],
    )
    return str(prefix)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _block(records: Iterator[tuple[bytes, bytes]] | list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(
        varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in records
    )
    return body + struct.pack("<II", 0, 1)


def index_bytes(records: list[tuple[bytes, bytes]]) -> bytes:
    """An index of these records, with wrong checksums."""
    data = _block(records) + b"\0" + b"\0\0\0\0"
    index = _block([(b"\xff", varint(0) + varint(len(data) - 5))]) + b"\0" + b"\0\0\0\0"
    meta = _block([]) + b"\0" + b"\0\0\0\0"
    handles = varint(len(data)) + varint(len(meta) - 5)
    handles += varint(len(data) + len(meta)) + varint(len(index) - 5)
    return data + meta + index + handles.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def entry(**fields: Any) -> bytes:
    """A BundleEntryProto; ``shape`` is a sequence of sizes."""
    shape = fields.pop("shape", ())
    proto = tensor_bundle_pb2.BundleEntryProto(**fields)
    for size in shape:
        proto.shape.dim.add().size = size
    proto.shape.SetInParent()
    return proto.SerializeToString()


def header(shards: int = 1, **fields: Any) -> bytes:
    return tensor_bundle_pb2.BundleHeaderProto(num_shards=shards, **fields).SerializeToString()


def write(folder: Path, entries: dict[str, bytes], data: bytes, shards: int = 1) -> str:
    """Writes a checkpoint of these entries; returns the prefix."""
    prefix = folder / "made"
    records = [(b"", header(shards)), *sorted((k.encode(), v) for k, v in entries.items())]
    prefix.with_suffix(".index").write_bytes(index_bytes(records))
    (folder / f"made.data-00000-of-{shards:05d}").write_bytes(data)
    return str(prefix)
