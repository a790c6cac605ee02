"""The errors of files that cannot be read. Not for: opening them."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from tensor_bridge.errors import CheckpointError, TensorBridgeError

__all__ = ["damaged", "reading", "translated"]


def damaged(file: str, message: str, *, entry: str = "", offset: int = -1) -> CheckpointError:
    """The error for ``file``, with its attributes set and the place in its message."""
    place = f"{file}, " + (f"entry {entry!r}, " if entry else "")
    error = CheckpointError(
        f"{place}byte {offset}: {message}" if offset >= 0 else f"{place[:-2]}: {message}"
    )
    error.file, error.entry, error.offset = file, entry, offset
    return error


def translated(
    error: Exception,
    file: str,
    entry: str = "",
    begin: int = 0,
    expected: str = "a file that can be read",
) -> Exception:
    """The error to raise for one that came out of code that reads a format.

    What a file says is anybody's: libraries raise what they like for it (h5py OSError,
    RuntimeError, UnicodeDecodeError, KeyError; torch RuntimeError for sizes without memory), and
    callers are promised one class, with file and place. Errors that have their place already, other
    errors of this package and frameworks that are not installed stay as they are.

    Args:
      error: What came.
      file: The file that was read.
      entry: The tensor.
      begin: Where in the file offsets are counted from; -1 if they are of no file.
      expected: What the file should have had, for the message.
    """
    if isinstance(error, CheckpointError) and not error.file:
        offset = error.offset
        offset = begin + offset if begin >= 0 <= offset else begin or -1
        return damaged(file, str(error), entry=entry or error.entry, offset=offset)
    if isinstance(error, (TensorBridgeError, ImportError)):
        return error
    message = f"expected {expected}, got {type(error).__name__}: {error}"
    return damaged(file, message, entry=entry, offset=begin or -1)


class reading:  # noqa: N801 - a context manager, used as one
    """Raises what `translated` makes of an error in the block, whose arguments it takes."""

    __slots__ = ("_place",)

    def __init__(self, *place: Any, **options: Any) -> None:
        self._place = place, options

    def __enter__(self) -> None:
        """Nothing is to be done before."""

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
                # The error holds this frame, which would hold it: a cycle, with all it holds.
                other = error = None
