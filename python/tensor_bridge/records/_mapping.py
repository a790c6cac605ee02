"""Files mapped for reading. Not for: the contents of files."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import weakref
from functools import cache
from typing import Any

from tensor_bridge import _regular_files
from tensor_bridge.records._damage import damaged, not_found

__all__ = ["Mapping", "open_file", "populate"]

_PAGE = mmap.PAGESIZE
_DONTNEED = 4  # MADV_DONTNEED
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, of Linux 5.14


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    integers = ctypes.c_int, ctypes.c_int, ctypes.c_int
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *integers, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc


def populate(address: int, size: int) -> bool:
    """Makes all pages of writable memory present. False if there is no memory for them.

    Before Linux 5.14 it does nothing, and returns True.
    """
    begin = address // _PAGE * _PAGE
    if not size or not _libc().madvise(begin, address + size - begin, _POPULATE_WRITE):
        return True
    # EFAULT: a write would raise SIGBUS.
    return ctypes.get_errno() not in (errno.ENOMEM, errno.EFAULT)


def open_file(path: str) -> int:
    """Returns a descriptor of a regular file, which the caller closes.

    Raises:
      RecordNotFoundError: There is no such file.
      RecordError: It is not a regular file, or reading is not permitted.
    """
    try:
        return _regular_files.open_regular(path)
    except FileNotFoundError:
        raise not_found(path) from None
    except _regular_files.NotRegularError as e:
        raise damaged(path, str(e)) from None
    except (OSError, ValueError) as e:  # ValueError: a name that no file can have
        raise damaged(path, f"expected a file that can be opened: {e}") from None


class Mapping:
    """A file mapped read-only. It is unmapped with the last reference.

    Python's mmap is not used because it keeps a descriptor open for each mapping, and a data set
    may have more files than a process may have descriptors. If another process truncates the file,
    reading a missing page ends this process (SIGBUS), as with every mapping. Replacing the file is
    harmless.

    Attributes:
      address: Address of the first byte; 0 for an empty file.
      size: Number of bytes.
    """

    def __init__(self, path: str, descriptor: int | None = None) -> None:
        """Maps ``path``, or the open file ``descriptor``, which the caller still owns.

        Raises:
          RecordNotFoundError: There is no such file.
          RecordError: It is not a regular file, or cannot be mapped.
        """
        opened = open_file(path) if descriptor is None else descriptor
        try:
            self.size = os.fstat(opened).st_size
            self.address = 0
            if self.size:
                libc = _libc()
                flags = mmap.PROT_READ, mmap.MAP_PRIVATE
                address = libc.mmap(None, self.size, *flags, opened, 0)
                if address in (None, ctypes.c_void_p(-1).value):
                    reason = os.strerror(ctypes.get_errno())
                    raise damaged(path, f"expected a file that can be mapped: {reason}")
                self.address = address
                weakref.finalize(self, libc.munmap, address, self.size).atexit = False
        finally:
            if descriptor is None:
                os.close(opened)

    def drop(self, begin: int, end: int) -> None:
        """Gives back the memory of a range that has been read. It can still be read again."""
        begin = -(-begin // _PAGE) * _PAGE
        end = end // _PAGE * _PAGE
        if begin < end:
            _libc().madvise(self.address + begin, end - begin, _DONTNEED)
