"""Files mapped privately, and torch tensors over them. Not for: what the bytes mean."""

from __future__ import annotations

import errno
import mmap
import os
import weakref
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

from tensor_bridge.checkpoint.read._crc import PIECE
from tensor_bridge.checkpoint.read._damage import damaged
from tensor_bridge.checkpoint.read._files import open_regular

if TYPE_CHECKING:
    import builtins

    import torch

# In pieces, so that an interrupt is handled soon.
_COPY = 64 << 20
# MAP_NORESERVE, which Python names from 3.13 on. Without it the kernel may refuse a private mapping
# that is larger than its memory, although most of it is never written to.
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


class MappedFile:
    """A file mapped into memory: read at first touch, never written to.

    The mapping is private: writes to a tensor over it stay in this process. The mapping and the
    descriptors exist as long as the object or a tensor over it. Nothing refers back to them, so the
    last reference closes them, also without the garbage collector. If another process truncates the
    file, using a tensor over a missing page ends this process (SIGBUS), as with every mapping.
    Replacing a file is harmless.

    Reads that copy, compare or decode use the file itself, and raise if it was truncated. Bulk
    reads, by parsers in C++ and torch.save, use a second, never-written mapping whose pages can be
    dropped.

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
        self._fd = open_regular(path) if fd is None else os.dup(fd)
        weakref.finalize(self, os.close, self._fd)
        self.size = os.fstat(self._fd).st_size
        self._map = self._mapped()
        self._second: Any = None

    def _mapped(self) -> Any:
        if not self.size:
            return None
        flags = mmap.MAP_PRIVATE | _NORESERVE
        return mmap.mmap(self._fd, self.size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)

    @property
    def _source(self) -> Any:
        """The second mapping. PROT_WRITE because torch warns about memory without it."""
        if self._second is None:
            self._second = self._mapped()
        return self._second

    def drop(self) -> None:
        """Drops the pages that were read by parsers or torch.save."""
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
        """The first bytes of the file, or fewer if it is shorter. Nothing is mapped for them."""
        return os.pread(self._fd, size, 0)

    def _cut(self, offset: int) -> Exception:
        return damaged(self.path, "the file was truncated while it was read", offset=offset)

    def _over(self, mapping: Any, offset: int, count: int, dtype: torch.dtype) -> torch.Tensor:
        """A view of a mapping; checks that the file was not truncated."""
        import torch

        if os.lseek(self._fd, 0, os.SEEK_END) < offset + count * dtype.itemsize:
            raise self._cut(offset)
        return torch.frombuffer(mapping, dtype=dtype, count=count, offset=offset)

    def read_into(self, buffer: Any, offset: int) -> None:
        """Fills a buffer with bytes of the file. The caller has checked that they are in it."""
        done = 0
        with memoryview(buffer) as view:
            while done < view.nbytes:
                count = os.preadv(self._fd, [view[done : done + _COPY]], offset + done)
                if count == 0:
                    raise self._cut(offset + done)
                done += count

    def content(self, offset: int, size: int) -> bytearray:
        """A few bytes of the file."""
        data = bytearray(size)
        self.read_into(data, offset)
        return data

    def pieces(self, offset: int, size: int) -> Iterator[memoryview]:
        """Yields a range of the file in pieces, which reuse one buffer."""
        with memoryview(bytearray(min(PIECE, size))) as view:
            for at in range(0, size, PIECE):
                with view[: min(PIECE, size - at)] as piece:
                    self.read_into(piece, offset + at)
                    yield piece

    def parts(self, offset: int, size: int) -> Iterator[torch.Tensor]:
        """As `pieces`, as tensors of uint8."""
        for at in range(0, size, PIECE):
            yield self.copied(offset + at, min(PIECE, size - at))

    def bytes(self, offset: int, size: int) -> torch.Tensor:
        """The bytes as a view, uint8. The caller has checked that they are in the file."""
        import torch

        if size == 0:
            return torch.empty(0, dtype=torch.uint8, device="cpu")
        return self._over(self._map, offset, size, torch.uint8)

    def copied(self, offset: int, size: int) -> torch.Tensor:
        """The bytes as a copy, uint8. The caller has checked that they are in the file."""
        import ctypes

        import torch

        copy = torch.empty(size, dtype=torch.uint8, device="cpu")
        if size:
            memory = (ctypes.c_ubyte * size).from_address(copy.data_ptr())
            self.read_into(memoryview(memory).cast("B"), offset)
        return copy

    def copy_into(self, target: torch.Tensor, offset: int) -> None:
        """Fills a tensor of uint8, with any strides, with the bytes from a place on."""
        size = target.numel()
        if size <= _COPY or target.ndim <= 1:
            target.copy_(self.copied(offset, size).view(target.shape))
            return
        for part in target.split(max(1, _COPY * len(target) // size)):
            self.copy_into(part[0] if len(part) == 1 else part, offset)
            offset += part.numel()

    def tensor(self, offset: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A tensor of little-endian elements in row-major order. The caller has checked the range.

        It is a view of the mapping, or a copy if the offset is not aligned for the dtype.
        """
        import torch

        count = prod(shape)
        if count == 0:
            return torch.empty(shape, dtype=dtype, device="cpu")
        # Any byte is a bool in a file; in torch's memory only 0 and 1 are.
        if dtype == torch.bool and any(bool((x > 1).any()) for x in self.parts(offset, count)):
            return self.copied(offset, count).view(shape) != 0
        if offset % alignment(dtype) == 0:
            return self._over(self._map, offset, count, dtype).view(shape)
        return self.copied(offset, count * dtype.itemsize).view(dtype).view(shape)

    def stored(self, offset: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A view of the second mapping, at any address.

        For parsers and torch.save, not for computing; `drop` drops the pages that were read.
        """
        import torch

        count = prod(shape)
        if count == 0:
            return torch.empty(shape, dtype=dtype, device="cpu")
        return self._over(self._source, offset, count, dtype).view(shape)

    def copy_to(self, target: int, offset: int, size: int) -> None:
        """Appends bytes of the file to the file descriptor ``target``, inside the kernel.

        Writes to tensors over the mapping are not included.
        """
        done = 0
        while done < size:
            try:
                count = os.copy_file_range(self._fd, target, min(size - done, _COPY), offset + done)
            except OSError as e:
                if e.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                # copy_file_range does not work between these file systems; sendfile always does.
                count = os.sendfile(target, self._fd, offset + done, min(size - done, _COPY))
            if count == 0:
                raise self._cut(offset + done)
            done += count


def alignment(dtype: torch.dtype) -> int:
    """The alignment on which torch's kernels rely; for complex numbers that of their parts."""
    size: int = dtype.itemsize
    return size // 2 if dtype.is_complex else size
