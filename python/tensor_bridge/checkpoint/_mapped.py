"""Files mapped privately, and torch tensors over them. Not for: what the bytes mean."""

from __future__ import annotations

import errno
import mmap
import os
import weakref
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensor_bridge.errors import CheckpointError, CheckpointNotFoundError

if TYPE_CHECKING:
    import torch

__all__ = ["MappedFile", "damaged"]

# In pieces, so that an interrupt is soon heard.
_COPY = 64 << 20
# Python names it from 3.13 on. Without it the kernel may refuse a private mapping larger than its
# memory, although nothing will be written to most of it.
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


def damaged(file: str, message: str, *, entry: str = "", offset: int = -1) -> CheckpointError:
    """The error for ``file``, with its attributes set and the place in its message."""
    place = f"{file}, " + (f"entry {entry!r}, " if entry else "")
    error = CheckpointError(
        f"{place}byte {offset}: {message}" if offset >= 0 else f"{place[:-2]}: {message}"
    )
    error.file, error.entry, error.offset = file, entry, offset
    return error


class MappedFile:
    """A file in memory: read at first touch, written to never.

    The mapping is private: what is written to a tensor over it stays in this process. It lives as
    long as a tensor over it. A file that another process truncates meanwhile ends this one
    (SIGBUS), as with every mapping; replacing a file is harmless.

    Attributes:
      path: The file.
      size: Its length in bytes.
    """

    def __init__(self, path: str, fd: int | None = None) -> None:
        """Maps ``path``, or the open file ``fd``, which stays the caller's.

        Raises:
          CheckpointNotFoundError: There is no such file.
          CheckpointError: It is no regular file.
        """
        self.path = path
        own = fd is None
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if fd is None else fd
        except FileNotFoundError:
            raise CheckpointNotFoundError(
                f"{path}: no such file; a checkpoint needs all of its files side by side"
            ) from None
        try:
            if fd is None and not Path(path).is_file():
                raise damaged(path, "expected a regular file")
            self.size = os.fstat(descriptor).st_size
            self._fd = os.dup(descriptor)
            weakref.finalize(self, os.close, self._fd)
            self._map: Any = None
            if self.size:
                self._map = mmap.mmap(
                    descriptor,
                    self.size,
                    flags=mmap.MAP_PRIVATE | _NORESERVE,
                    prot=mmap.PROT_READ | mmap.PROT_WRITE,
                )
        finally:
            if own:
                os.close(descriptor)

    def check(self, offset: int, size: int, entry: str) -> None:
        """Raises CheckpointError unless ``size`` bytes at ``offset`` are in the file."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise damaged(
                self.path,
                f"expected {size} bytes of data here, but the file ends at {self.size}; it is "
                "truncated, or belongs to another index",
                entry=entry,
                offset=offset,
            )

    def bytes(self, offset: int, size: int) -> torch.Tensor:
        """The bytes as a view, uint8. They have been checked to be in the file."""
        import torch

        if size == 0:
            return torch.empty(0, dtype=torch.uint8, device="cpu")
        return torch.frombuffer(self._map, dtype=torch.uint8, count=size, offset=offset)

    def tensor(self, offset: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A tensor of little-endian elements in row-major order, checked to be in the file.

        A view of the mapping, or a copy if the offset is not aligned for the dtype.
        """
        import torch

        count = prod(shape)
        if count == 0:
            return torch.empty(shape, dtype=dtype, device="cpu")
        if dtype == torch.bool:
            # Any byte is a bool in a file; in torch's memory only 0 and 1 are.
            flags = self.bytes(offset, count)
            if bool((flags > 1).any()):
                return (flags != 0).view(shape)
        if offset % alignment(dtype) == 0:
            return torch.frombuffer(self._map, dtype=dtype, count=count, offset=offset).view(shape)
        return self.bytes(offset, count * dtype.itemsize).clone().view(dtype).view(shape)

    def unaligned(self, offset: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A view that may begin at any address: to be stored, never computed with."""
        import torch

        count = prod(shape)
        return torch.frombuffer(self._map, dtype=dtype, count=count, offset=offset).view(shape)

    def copy_to(self, target: int, offset: int, size: int) -> None:
        """Appends bytes of the file to the file descriptor ``target``, past this process.

        What was written to tensors over the mapping is not among them.
        """
        done = 0
        while done < size:
            try:
                count = os.copy_file_range(self._fd, target, min(size - done, _COPY), offset + done)
            except OSError as e:
                if e.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                # Between these file systems the kernel does not copy; sendfile always does.
                count = os.sendfile(target, self._fd, offset + done, min(size - done, _COPY))
            if count == 0:
                raise damaged(self.path, "the file was truncated while it was read", offset=offset)
            done += count

    def piece(self, offset: int, size: int) -> memoryview:
        """The bytes for a checksum or a file; to be released soon."""
        return memoryview(self._map or b"")[offset : offset + size]


def alignment(dtype: torch.dtype) -> int:
    """What torch's kernels rely on; that of a complex number's parts."""
    size: int = dtype.itemsize
    return size // 2 if dtype.is_complex else size
