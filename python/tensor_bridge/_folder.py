"""A folder, and the steps of the kernel that make and name a file in it. Not for: what to write."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

_NOREPLACE, _EXCHANGE = 1, 2  # of renameat2, which Python does not have
_MAX_READ = 64 << 20
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class Folder:
    """A folder held open, so that new files go into it even if others rename it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_DIRECTORY | os.O_CLOEXEC
        try:
            self._fd = os.open(path, flags | os.O_RDONLY)
        except PermissionError:  # it may be written to, but not listed
            self._fd = os.open(path, flags | os.O_PATH)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def create(self, mode: int) -> tuple[int, str]:
        """A new file: its descriptor, and its name, "" if the file system needs none."""
        flags = os.O_RDWR | os.O_CLOEXEC
        # A file without a name gets one through /proc.
        if Path("/proc/self/fd").is_dir():
            with suppress(OSError):
                return os.open(".", flags | os.O_TMPFILE, mode, dir_fd=self._fd), ""
        flags |= os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        name = self.free_name()
        return os.open(name, flags, mode, dir_fd=self._fd), name

    def free_name(self) -> str:
        """A name that nobody can guess."""
        return f".tensor_bridge-{os.urandom(8).hex()}.partial"

    def stat(self, name: str) -> os.stat_result | None:
        """The status of the file or link of this name; None if there is none."""
        try:
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes:
        """The bytes of a regular file; empty for any other file, and for a large one."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=self._fd)
        except OSError:
            return b""
        try:
            data = b""
            if stat.S_ISREG(os.fstat(fd).st_mode):
                data = os.pread(fd, _MAX_READ + 1, 0)
            return data if len(data) <= _MAX_READ else b""
        finally:
            os.close(fd)

    def give_name(self, fd: int, name: str) -> None:
        """Names an open file that has no name. FileExistsError if the name is taken."""
        os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=self._fd, follow_symlinks=True)

    def move(self, old: str, new: str) -> None:
        """Renames a file. FileExistsError if the new name is taken."""
        if self._rename(old, new, _NOREPLACE):
            return
        try:
            os.link(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError:
            # No hard links either, as in file systems over an object store. It takes two steps: an
            # empty file takes the name first.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(new, flags, 0o600, dir_fd=self._fd))
            self.replace([old], [new])
        else:
            self.remove(old)

    def replace(self, old: Sequence[str], new: Sequence[str]) -> None:
        """Renames files one after the other, and replaces existing files."""
        rename = partial(os.replace, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        # Ctrl-C is raised between two Python instructions; there is none between two files here.
        list(map(rename, old, new))

    def exchange(self, one: str, other: str) -> bool:
        """Swaps the names of two files. False if the file system cannot do it in one step."""
        return self._rename(one, other, _EXCHANGE)

    def _rename(self, old: str, new: str, how: int) -> bool:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.renameat2(self._fd, os.fsencode(old), self._fd, os.fsencode(new), how) == 0:
            return True
        error = ctypes.get_errno()
        # EPERM: a sandbox blocks the call. Other obstacles are reported later.
        if error in (errno.EPERM, *_UNSUPPORTED):
            return False
        raise OSError(error, os.strerror(error), new)

    def remove(self, name: str) -> None:
        """Removes a name, if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    def sync(self) -> None:
        """Waits until the names are on the disk, if the file system supports that."""
        try:
            os.fsync(self._fd)
        except OSError as e:
            if e.errno not in (errno.EBADF, *_UNSUPPORTED):  # EBADF: opened with O_PATH
                raise
