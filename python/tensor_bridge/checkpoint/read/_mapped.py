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
    import builtins

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

    What is read to be copied, compared or stored comes from a second mapping, which nobody writes
    to: it has what the file has, and its pages are let go of once they are used.

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
            self._map = self._mapped()
            self._second: Any = None
        finally:
            if own:
                os.close(descriptor)

    def _mapped(self) -> Any:
        if not self.size:
            return None
        flags = mmap.MAP_PRIVATE | _NORESERVE
        return mmap.mmap(self._fd, self.size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)

    @property
    def _source(self) -> Any:
        """The second mapping. PROT_WRITE because torch warns of memory without it."""
        if self._second is None:
            self._second = self._mapped()
        return self._second

    def drop(self) -> None:
        """Lets go of the pages that were read to be copied, compared or stored."""
        if self._second is not None:
            self._second.madvise(mmap.MADV_DONTNEED)

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

    def head(self, size: int) -> builtins.bytes:
        """The first bytes of the file, which may have fewer. Nothing is mapped for them."""
        return os.pread(self._fd, size, 0)

    def bytes(self, offset: int, size: int) -> torch.Tensor:
        """The bytes as a view, uint8. They have been checked to be in the file."""
        import torch

        if size == 0:
            return torch.empty(0, dtype=torch.uint8, device="cpu")
        return torch.frombuffer(self._map, dtype=torch.uint8, count=size, offset=offset)

    def copied(self, offset: int, size: int) -> torch.Tensor:
        """The bytes as a copy, uint8. They have been checked to be in the file."""
        import torch

        copy = torch.empty(size, dtype=torch.uint8, device="cpu")
        for at in range(0, size, _COPY):
            part = torch.frombuffer(
                self._source, dtype=torch.uint8, count=min(_COPY, size - at), offset=offset + at
            )
            copy[at : at + _COPY] = part
            self.drop()
        return copy

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
            flags = self.stored(offset, shape, torch.uint8)
            other = bool((flags > 1).any())
            copy = flags != 0 if other else None
            self.drop()
            if copy is not None:
                return copy
        if offset % alignment(dtype) == 0:
            return torch.frombuffer(self._map, dtype=dtype, count=count, offset=offset).view(shape)
        return self.copied(offset, count * dtype.itemsize).view(dtype).view(shape)

    def stored(self, offset: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """What the file has, as a view that may begin at any address.

        To be copied or stored, never computed with; `drop` lets go of what was read.
        """
        import torch

        count = prod(shape)
        if count == 0:
            return torch.empty(shape, dtype=dtype, device="cpu")
        return torch.frombuffer(self._source, dtype=dtype, count=count, offset=offset).view(shape)

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
        """What the file has, for a checksum; to be released soon, and then dropped."""
        return memoryview(self._source or b"")[offset : offset + size]


def alignment(dtype: torch.dtype) -> int:
    """What torch's kernels rely on; that of a complex number's parts."""
    size: int = dtype.itemsize
    return size // 2 if dtype.is_complex else size
