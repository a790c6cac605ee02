"""RecordBatch: raw records in memory, which readers return and parsers accept."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tensor_bridge.errors import UnsupportedTypeError, ValueRangeError

if TYPE_CHECKING:
    import torch

    from tensor_bridge.composite import StringTensor

__all__ = ["RecordBatch"]


@dataclass(frozen=True, eq=False)
class RecordBatch:
    """Several raw records, not parsed.

    Attributes:
      owner: The object that keeps the memory alive: a mapped file, a bytearray, a torch.Tensor.
      address: Address of the first byte of that memory.
      begins: Offset of each record from `address`, int64 of shape ``(count,)``.
      sizes: Number of bytes of each record, int64 of the same shape.
      path: The file, if `address` is the address of its first byte, so that errors can name the
        place.
    """

    owner: Any
    address: int
    begins: torch.Tensor
    sizes: torch.Tensor
    path: str = ""

    def __post_init__(self) -> None:
        # Parsers read them by address: the steps of a slice would be lost.
        object.__setattr__(self, "begins", self.begins.contiguous())
        object.__setattr__(self, "sizes", self.sizes.contiguous())

    def __len__(self) -> int:
        return int(self.begins.shape[0])

    def __getitem__(self, part: slice | torch.Tensor) -> RecordBatch:
        """A RecordBatch of a slice of the records, or of the records with these numbers.

        It shares the memory of the records.
        """
        return RecordBatch(self.owner, self.address, self.begins[part], self.sizes[part], self.path)

    def to_bytes(self) -> list[bytes]:
        """A copy of each record as bytes."""
        address = self.address
        return [
            ctypes.string_at(address + begin, size)
            for begin, size in zip(self.begins.tolist(), self.sizes.tolist(), strict=True)
        ]

    def to_strings(self) -> StringTensor:
        """A copy of the records as a StringTensor of shape ``(count,)``."""
        import torch

        from tensor_bridge import _C
        from tensor_bridge.composite import StringTensor

        count = len(self)
        data = torch.empty(int(self.sizes.sum()), dtype=torch.uint8, device="cpu")
        offsets = torch.empty(count + 1, dtype=torch.int64, device="cpu")
        # An empty tensor has the address 0 in torch.
        target = data.data_ptr() or offsets.data_ptr()
        begins, sizes = self.begins.contiguous(), self.sizes.contiguous()
        _C.records_gather(
            self.address, begins.data_ptr(), sizes.data_ptr(), count, target, offsets.data_ptr()
        )
        return StringTensor(data, offsets, torch.Size((count,)))

    @classmethod
    def of(cls, serialized: Any) -> RecordBatch:
        """Makes a RecordBatch of the records that a caller passes.

        A list of bytes is copied. A StringTensor on the CPU shares its memory.

        Args:
          serialized: bytes (one record), a list of bytes, a StringTensor of any shape, or a
            RecordBatch, which is returned.

        Raises:
          UnsupportedTypeError: `serialized` is something else.
          ValueRangeError: The offsets of the StringTensor leave its bytes.
        """
        from tensor_bridge.composite import StringTensor

        if isinstance(serialized, RecordBatch):
            return serialized
        if isinstance(serialized, StringTensor):
            return _of_strings(serialized)
        records: Any = [serialized] if isinstance(serialized, (bytes, bytearray)) else serialized
        if not isinstance(records, Sequence) or not all(
            isinstance(record, (bytes, bytearray)) for record in records
        ):
            raise UnsupportedTypeError(
                "expected bytes, a list of bytes, a StringTensor or a RecordBatch, got a "
                f"{type(serialized).__name__}; to_torch() makes a StringTensor of a tf.Tensor"
            )
        return _of_list(records)


def _of_list(records: Sequence[bytes]) -> RecordBatch:
    import torch

    # torch refuses an empty buffer, and even an empty record needs an address.
    owner = torch.frombuffer(bytearray().join(records) or bytearray(1), dtype=torch.uint8)
    sizes = torch.tensor([len(record) for record in records], dtype=torch.int64, device="cpu")
    begins = sizes.cumsum(0) - sizes
    return RecordBatch(owner, owner.data_ptr(), begins, sizes)


def _of_strings(strings: StringTensor) -> RecordBatch:
    data = strings.bytes.cpu().contiguous()
    offsets = strings.offsets.cpu().contiguous()
    sizes = offsets.diff()
    if sizes.numel() and (
        int(offsets[0]) < 0 or int(sizes.min()) < 0 or int(offsets[-1]) > data.shape[0]
    ):
        raise ValueRangeError(
            "expected offsets that do not descend and stay within the bytes; some do not"
        )
    return RecordBatch(data, data.data_ptr(), offsets[:-1], sizes)
