"""The errors of files of records."""

from __future__ import annotations

from tensor_bridge.errors import RecordError, RecordNotFoundError

__all__ = ["FAULTS", "damaged", "not_found"]

# By the numbers of formats/tfrecord.h.
FAULTS = {
    1: "the file ends within this record; it is truncated",
    2: "expected a record whose length fits its checksum, got another; the file is damaged, or is "
    "no TFRecord file",
    3: "expected a record whose bytes fit their checksum, got others; the record is damaged",
}


def damaged(path: str, message: str, offset: int = -1) -> RecordError:
    """The error for a file, with its attributes set and the place in its message."""
    place = f"{path}, byte {offset}" if offset >= 0 else path
    error = RecordError(f"{place}: {message}")
    error.path, error.offset = path, offset
    return error


def not_found(path: str, message: str = "no such file") -> RecordNotFoundError:
    """The error for a name that leads to nothing."""
    error = RecordNotFoundError(f"{path}: {message}")
    error.path = path
    return error
