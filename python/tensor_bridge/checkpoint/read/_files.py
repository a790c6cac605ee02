"""The one way in which files are opened to be read. Not for: what is in them, writing.

What lies behind a name that somebody gives is anybody's: a FIFO, whose opening waits for a writer,
a device without an end, a socket. Only regular files are opened, and no more is read of one than
the size that it has.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from tensor_bridge.checkpoint.read._damage import damaged
from tensor_bridge.errors import CheckpointNotFoundError

__all__ = [
    "HDF5_MAGIC",
    "first_bytes",
    "is_folder",
    "is_there",
    "last_bytes",
    "open_regular",
    "read_small",
]

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
"""How a file of HDF5 begins."""

# Without O_NONBLOCK what takes the place of a regular file behind its name could still hang.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def open_regular(path: str | Path) -> int:
    """A descriptor of a regular file; never waits, whatever the name leads to.

    Raises:
      CheckpointNotFoundError: There is no such file.
      CheckpointError: It is no regular file, or may not be read.
    """
    name = str(path)
    try:
        # Before it is opened too: to open a device may have an effect.
        _check(name, Path(path).stat())
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        raise CheckpointNotFoundError(
            f"{name}: no such file; a checkpoint needs all of its files side by side"
        ) from None
    except (OSError, ValueError) as e:  # ValueError: a name that no file can have
        raise damaged(name, f"expected a file that can be opened: {e}") from None
    try:
        _check(name, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(name: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise damaged(name, f"expected a regular file, got {kind}")


def is_there(path: str | Path) -> bool:
    """Whether a name leads to something that is no folder; what it is, opening it tells."""
    try:
        return not stat.S_ISDIR(Path(path).stat().st_mode)
    except OSError as e:
        # What may not be looked at is there.
        return e.errno in (errno.EACCES, errno.EPERM)
    except ValueError:  # a name that no file can have
        return False


def is_folder(path: str | Path) -> bool:
    """Whether a name leads to a folder that may be looked at."""
    try:
        return stat.S_ISDIR(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


def _part(path: str | Path, begin: int, most: int) -> bytes:
    """At most so many bytes from a place that is counted from the end if it is negative."""
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        at = max(0, size + begin) if begin < 0 else begin
        parts = []
        while most > 0 and (part := os.pread(descriptor, min(most, size - at), at)):
            parts.append(part)
            at, most = at + len(part), most - len(part)
    finally:
        os.close(descriptor)
    return b"".join(parts)


def first_bytes(path: str | Path, count: int) -> bytes:
    """What a file begins with. Raises as `open_regular`."""
    return _part(path, 0, count)


def last_bytes(path: str | Path, count: int) -> bytes:
    """What a file ends with. Raises as `open_regular`."""
    return _part(path, -count, count)


def read_small(path: str | Path, most: int) -> bytes:
    """All of a file.

    Raises:
      CheckpointError: It has more than ``most`` bytes; and as `open_regular`.
      CheckpointNotFoundError: There is no such file.
    """
    data = _part(path, 0, most + 1)
    if len(data) > most:
        raise damaged(str(path), f"expected at most {most} bytes, got more")
    return data
