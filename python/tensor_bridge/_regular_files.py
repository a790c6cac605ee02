"""Opens regular files for reading. Not for: their content.

A name may belong to something else: a FIFO, whose opening waits for a writer, an endless device, a
socket.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NotRegularError", "open_regular"]

# Without O_NONBLOCK, a FIFO that replaces the regular file before it is opened would still hang.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


class NotRegularError(OSError):
    """A name belongs to something other than a regular file."""


def open_regular(path: str | Path) -> int:
    """Returns a descriptor of a regular file, which the caller closes. Never waits.

    Raises:
      FileNotFoundError: There is no such file.
      NotRegularError: It is not a regular file.
      OSError: Reading is not permitted.
      ValueError: A name that no file can have.
    """
    # Checked before it is opened too, because opening a device may have an effect.
    _check(os.stat(path))  # noqa: PTH116 - pathlib takes long to import
    descriptor = os.open(path, _FLAGS)
    try:
        _check(os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise NotRegularError(f"expected a regular file, got {kind}")
