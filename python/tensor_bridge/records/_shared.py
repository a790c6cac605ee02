"""SharedBlock: the tensors of a batch in one block of memory that a DataLoader's worker shares.

torch sends each storage of a batch to the main process as a file of its own, over a connection of
its own. With all tensors in one storage a batch is one file, whatever its number of columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tensor_bridge.data._device import map_tensors
from tensor_bridge.errors import OutOfMemoryError
from tensor_bridge.records._mapping import populate

if TYPE_CHECKING:
    import torch

__all__ = ["SharedBlock", "in_worker", "packed", "size_in_block"]

# As torch aligns its own memory, and TensorFlow wants it.
_ALIGNMENT = 64


def in_worker() -> bool:
    """Whether this process is the worker of a DataLoader, which sends batches to another one."""
    from torch.utils.data import get_worker_info

    return get_worker_info() is not None


def size_in_block(count: int, itemsize: int) -> int:
    """The number of bytes that so many items take in a block."""
    return -(-count * itemsize // _ALIGNMENT) * _ALIGNMENT


class SharedBlock:
    """Shared memory for several tensors. The tensors keep it alive, in each process.

    Attributes:
      room: The number of bytes that are left.
    """

    def __init__(self, size: int) -> None:
        """Allocates `size` bytes.

        Raises:
          OutOfMemoryError: There is not enough shared memory.
        """
        import torch

        # What torch's own default_collate takes in a worker; the same from torch 2.6 to 2.15.
        try:
            self._storage = torch.UntypedStorage._new_shared(max(size, 1), device="cpu")
        except RuntimeError as e:
            raise OutOfMemoryError(_no_memory(size)) from e
        # All pages at once takes a third of the time that one after the other takes. And memory
        # that is missing would end the process at the first write to it.
        if not populate(self._storage.data_ptr(), size):
            raise OutOfMemoryError(_no_memory(size))
        self.room = size
        self._at = 0

    def empty(
        self, shape: Sequence[int], dtype: torch.dtype, stride: Sequence[int] | None = None
    ) -> torch.Tensor:
        """An uninitialised tensor, which takes `size_in_block` of the room. The room has to do."""
        import torch

        made = torch.empty(0, dtype=dtype, device="cpu")
        begin = self._at // dtype.itemsize
        if stride is None:
            made.set_(self._storage, begin, shape)
        else:
            made.set_(self._storage, begin, shape, stride)
        taken = size_in_block(made.numel(), dtype.itemsize)
        self._at += taken
        self.room -= taken
        return made


def _no_memory(size: int) -> str:
    return (
        f"there is no shared memory for a batch of {size} bytes: use a smaller batch_size, fewer "
        "workers or prefetch_factor=1, or give the container more (docker run --shm-size=...)"
    )


def packed(batch: Any, block: SharedBlock | None = None) -> Any:
    """Returns the batch with all of its tensors in shared memory.

    Args:
      batch: Tensors, composite values and structures of them.
      block: Where those are that were made there, with room for others. Those that find no room,
        or all without a block, are copied into a new one.

    Raises:
      OutOfMemoryError: There is not enough shared memory.
    """
    import torch

    sizes: list[int] = []

    def measure(x: torch.Tensor) -> torch.Tensor:
        if _is_private(x):
            sizes.append(size_in_block(x.numel(), x.itemsize))
        return x

    map_tensors(measure, batch)
    if not sizes:
        return batch
    if block is None or block.room < sum(sizes):
        block = SharedBlock(sum(sizes))

    def move(x: torch.Tensor) -> torch.Tensor:
        if not _is_private(x):
            return x
        # The strides that a copy would have: images are often channels last.
        strides = torch.empty_like(x, device="meta").stride()
        return block.empty(x.shape, x.dtype, strides).copy_(x)

    return map_tensors(move, batch)


def _is_private(x: torch.Tensor) -> bool:
    """Whether it has memory of its own that can be left behind."""
    import torch

    return (
        type(x) is torch.Tensor
        and x.layout is torch.strided
        and not x.is_nested
        and not x.is_quantized
        and not x.requires_grad
        and x.device.type == "cpu"
        and not x.is_shared()
    )
