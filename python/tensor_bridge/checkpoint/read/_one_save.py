"""The mark that links the files of one `save`. Not for: comparing it.

The files get their names one after the other. If the process ends in between, or if one file is
copied, the index of one checkpoint is beside the data of another. So a data file begins with a
digest of its part of the index, and the index has the same digest in its metaindex, a block that
TensorFlow ignores (tensorflow/core/lib/io/table.cc). Comparing them reads no tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

MARK_SIZE = 64
"""Number of bytes of a data file before its tensors."""
_MAGIC = b"tensor_bridge.save.1".ljust(24, b"\0")
_KEY = b"tensor_bridge.save"
_DIGEST = 32
_FOOTER = 48

Place = tuple[bytes, int, tuple[int, ...], int, int, int]
"""Key, dtype, shape, offset, size and checksum of a tensor, as in the index."""


class DataMark(NamedTuple):
    """The mark in a data file.

    Attributes:
      size: Length of the file in bytes.
      digest: Digest of its part of the index.
    """

    size: int
    digest: bytes


def digest_of_entries(entries: Iterable[Place]) -> bytes:
    """Returns a digest of an index's records of one data file, in the order of the keys.

    It does not include the file's number, because TensorFlow renumbers files when it merges
    checkpoints.
    """
    import hashlib  # not at the top: it takes 3 ms of the first `load`, which rarely needs it

    found = hashlib.sha256()
    for entry in entries:
        found.update(repr(entry).encode())
    return found.digest()


def bytes_of_mark(mark: DataMark) -> bytes:
    """The first bytes of a data file."""
    return _MAGIC + mark.size.to_bytes(8, "little") + mark.digest


def mark_of_data(head: bytes) -> DataMark | None:
    """The mark of a data file, from its first `MARK_SIZE` bytes; None if it has none."""
    if len(head) < MARK_SIZE or not head.startswith(_MAGIC):
        return None
    return DataMark(int.from_bytes(head[24:32], "little"), head[32:MARK_SIZE])


def index_record(digest: bytes) -> tuple[bytes, bytes]:
    """The record of the metaindex."""
    return _KEY, digest


def digest_of_index(index: bytes) -> bytes | None:
    """The digest in the metaindex of a valid index; None if it has none."""
    numbers = _varints(index[-_FOOTER:])
    offset, size = next(numbers), next(numbers)
    _, found, behind = index[offset : offset + size].partition(_KEY)
    return behind[:_DIGEST] if found else None


def _varints(data: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value
            value = shift = 0
