"""The errors of files that cannot be read. Not for: opening them."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from tensor_bridge.errors import CheckpointError, TensorBridgeError


def damaged(
    file: str,
    message: str,
    *,
    entry: str = "",
    offset: int = -1,
    kind: type[CheckpointError] = CheckpointError,
) -> CheckpointError:
    """The error for ``file``, with its attributes set and the place in its message."""
    place = f"{file}, " + (f"entry {entry!r}, " if entry else "")
    error = kind(f"{place}byte {offset}: {message}" if offset >= 0 else f"{place[:-2]}: {message}")
    error.file, error.entry, error.offset = file, entry, offset
    return error


def translated(
    error: Exception,
    file: str,
    entry: str = "",
    begin: int = 0,
    expected: str = "a file that can be read",
) -> Exception:
    """Returns the error to raise for one that a reader of a format raised.

    Damaged content makes libraries raise various errors (h5py OSError, RuntimeError,
    UnicodeDecodeError, KeyError; torch RuntimeError for sizes without memory), but callers are
    promised one class, with file and place. Errors that have their place already, other errors of
    this package, and errors about frameworks that are not installed are returned unchanged.

    Args:
      error: The error that was raised.
      file: The file that was read.
      entry: The tensor.
      begin: The place in the file from which offsets are counted; -1 if they are not in the file.
      expected: What the file should contain, for the message.
    """
    if isinstance(error, CheckpointError) and not error.file:
        offset = error.offset
        offset = begin + offset if begin >= 0 <= offset else begin or -1
        entry = entry or error.entry
        return damaged(file, str(error), entry=entry, offset=offset, kind=type(error))
    if isinstance(error, (TensorBridgeError, ImportError)):
        return error
    message = f"expected {expected}, got {type(error).__name__}: {error}"
    return damaged(file, message, entry=entry, offset=begin or -1)


class reading:  # noqa: N801 - a context manager, used as one
    """Raises the result of `translated`, with the same arguments, for an error in the block."""

    __slots__ = ("_place",)

    def __init__(self, *place: Any, **options: Any) -> None:
        self._place = place, options

    def __enter__(self) -> None:
        """Does nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            place, options = self._place
            other: Exception | None = translated(error, *place, **options)
            try:
                if other is not None and other is not error:
                    raise other from (None if isinstance(error, CheckpointError) else error)
            finally:
                # The error refers to this frame; a reference back would be a cycle that keeps both
                # alive.
                other = error = None
