"""The errors of files of records."""

from __future__ import annotations

import warnings

from tensor_bridge.errors import RecordError, RecordNotFoundError

__all__ = ["FAULTS", "damaged", "not_found", "tell_skipped"]

# By the numbers of formats/tfrecord.h.
FAULTS = {
    1: "expected a whole record, got the end of the file; the file is truncated, or is not a "
    "TFRecord file",
    2: "expected a record whose length matches its checksum; the file is damaged, or is not a "
    "TFRecord file",
    3: "expected a record whose bytes match their checksum; the record is damaged",
}


_ABSENT = "expected a file of records, got no such file; correct the path, or give a pattern"


def damaged(path: str, message: str, offset: int = -1) -> RecordError:
    """An error about a file: its message and its attributes name the file and the offset."""
    place = f"{path}, byte {offset}" if offset >= 0 else path
    error = RecordError(f"{place}: {message}")
    error.path, error.offset = path, offset
    return error


def not_found(path: str, message: str = _ABSENT) -> RecordNotFoundError:
    """An error about a file or a pattern that does not exist."""
    error = RecordNotFoundError(f"{path}: {message}")
    error.path = path
    return error


def tell_skipped(damage: RecordError | str, stacklevel: int = 6) -> None:
    """Warns that ``on_error="skip"`` left something out. The caller calls it once a file."""
    text = f"{damage}; skipped, as on_error='skip' says; stats() counts it"
    warnings.warn(text, stacklevel=stacklevel)
