"""The errors of files of records."""

from __future__ import annotations

from tensor_bridge.errors import RecordError, RecordNotFoundError

__all__ = ["FAULTS", "damaged", "not_found"]

# By the numbers of formats/tfrecord.h.
FAULTS = {
    1: "the file ends within this record; it is truncated",
    2: "expected a record whose length matches its checksum; the file is damaged, or is not a "
    "TFRecord file",
    3: "expected a record whose bytes match their checksum; the record is damaged",
}


def damaged(path: str, message: str, offset: int = -1) -> RecordError:
    """An error about a file: its message and its attributes name the file and the offset."""
    place = f"{path}, byte {offset}" if offset >= 0 else path
    error = RecordError(f"{place}: {message}")
    error.path, error.offset = path, offset
    return error


def not_found(path: str, message: str = "no such file") -> RecordNotFoundError:
    """An error about a file or a pattern that does not exist."""
    error = RecordNotFoundError(f"{path}: {message}")
    error.path = path
    return error
