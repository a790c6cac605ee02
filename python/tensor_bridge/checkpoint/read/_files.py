"""Opens files of checkpoints for reading; no other module does. Not for: their content, writing.

A name may lead to anything: a FIFO, whose opening waits for a writer, an endless device, a socket.
Only regular files are opened, and no more is read than their size.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from tensor_bridge import _regular_files
from tensor_bridge.checkpoint.read._damage import damaged
from tensor_bridge.errors import CheckpointNotFoundError

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
"""How a file of HDF5 begins."""


def open_regular(path: str | Path) -> int:
    """Returns a descriptor of a regular file, which the caller closes. Never waits.

    Raises:
      CheckpointNotFoundError: There is no such file.
      CheckpointError: It is not a regular file, or reading is not permitted.
    """
    name = str(path)
    try:
        return _regular_files.open_regular(path)
    except FileNotFoundError:
        raise CheckpointNotFoundError(
            f"{name}: no such file; a checkpoint needs all of its files side by side"
        ) from None
    except _regular_files.NotRegularError as e:
        raise damaged(name, str(e)) from None
    except (OSError, ValueError) as e:  # ValueError: a name that no file can have
        raise damaged(name, f"expected a file that can be opened: {e}") from None


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
