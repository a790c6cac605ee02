"""Opens files for reading; nothing else in the package does. Not for: their content, writing.

A name may lead to anything: a FIFO, whose opening waits for a writer, an endless device, a socket.
Only regular files are opened, and no more is read than their size.
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

# Without O_NONBLOCK, a FIFO that replaces the regular file before it is opened would still hang.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def open_regular(path: str | Path) -> int:
    """Returns a descriptor of a regular file, which the caller closes. Never waits.

    Raises:
      CheckpointNotFoundError: There is no such file.
      CheckpointError: It is not a regular file, or reading is not permitted.
    """
    name = str(path)
    try:
        # Checked before it is opened too, because opening a device may have an effect.
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
    """Whether a name leads to something other than a folder."""
    try:
        return not stat.S_ISDIR(Path(path).stat().st_mode)
    except OSError as e:
        # It exists, although it may not be examined.
        return e.errno in (errno.EACCES, errno.EPERM)
    except ValueError:  # a name that no file can have
        return False


def is_folder(path: str | Path) -> bool:
    """Whether a name leads to a folder that may be examined."""
    try:
        return stat.S_ISDIR(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


def _part(path: str | Path, begin: int, most: int) -> bytes:
    """Reads at most that many bytes from a place; a negative place is counted from the end."""
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
    """The first bytes of a file. Raises as `open_regular`."""
    return _part(path, 0, count)


def last_bytes(path: str | Path, count: int) -> bytes:
    """The last bytes of a file. Raises as `open_regular`."""
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
