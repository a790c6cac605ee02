"""MappedFiles: the records of several files in memory, by number. Not for: parsing."""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C
from tensor_bridge.records._damage import FAULTS, damaged
from tensor_bridge.records._mapping import Mapping
from tensor_bridge.records._paths import is_url
from tensor_bridge.records._record_file import HEADER, Position, compression_of
from tensor_bridge.records._stream import chunks, open_binary

if TYPE_CHECKING:
    import torch

# Most records that one scan finds.
_STEP = 1 << 16


class _Unpacked:
    """The decompressed bytes of a compressed file or a URL, in memory."""

    def __init__(self, path: str, compression: str) -> None:
        import torch

        block = bytearray().join(chunks(path, compression))
        self.size = len(block)
        self._memory = torch.frombuffer(block, dtype=torch.uint8) if block else None
        self.address = 0 if self._memory is None else self._memory.data_ptr()


def _opened(path: str) -> Mapping | _Unpacked:
    if is_url(path):
        with open_binary(path) as file:
            return _Unpacked(path, compression_of(file.read(HEADER)))
    mapping = Mapping(path)
    compression = compression_of(ctypes.string_at(mapping.address, min(mapping.size, HEADER)))
    return _Unpacked(path, compression) if compression else mapping


class MappedFiles:
    """Several files, whose records are numbered consecutively, with each record's place.

    Attributes:
      paths: The files.
      addresses: Address of each file's first byte, int64 of shape ``(files,)``.
      sizes: Number of bytes of each file, int64 of shape ``(files,)``.
      ends: For each file the number of records up to its end, int64 of shape ``(files,)``.
      offsets: Offset of each record in its file, int64 of shape ``(records,)``.
      skipped_records: Number of stretches of damage that were left out because of wrong lengths.
      skipped_bytes: Number of bytes of those stretches.
    """

    def __init__(self, paths: Sequence[str], *, skip: bool) -> None:
        """Maps the files and finds their records in one pass over the lengths.

        Raises:
          RecordNotFoundError: A file is missing.
          RecordError: A file is damaged, unless `skip`.
        """
        import torch

        self.paths = tuple(paths)
        self.skipped_records = self.skipped_bytes = 0
        self._files = [_opened(path) for path in self.paths]
        parts = [
            part
            for path, file in zip(self.paths, self._files, strict=True)
            for part in [self._find(path, file, skip)]
        ]
        counts = [part.shape[0] for part in parts]

        def numbers(values: Sequence[int]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.int64, device="cpu")

        self.addresses = numbers([file.address for file in self._files])
        self.sizes = numbers([file.size for file in self._files])
        self.ends = numbers(counts).cumsum(0)
        self.offsets = torch.cat(parts) if parts else numbers([])

    def __len__(self) -> int:
        return int(self.offsets.shape[0])

    def _find(self, path: str, file: Any, skip: bool) -> torch.Tensor:
        import torch

        found = []
        position = Position()
        while file.size:
            begins = torch.empty((2, _STEP), dtype=torch.int64, device="cpu")
            count, at, searching, budget, fault, fault_at, records, nbytes = _C.records_scan(
                file.address,
                file.size,
                *position,
                0,
                int(skip),
                1,
                _STEP,
                begins[0].data_ptr(),
                begins[1].data_ptr(),
            )
            if fault and not skip:
                raise damaged(path, FAULTS[fault], fault_at)
            self.skipped_records += records
            self.skipped_bytes += nbytes
            found.append(begins[0, :count] - HEADER)
            if count < _STEP:
                break
            position = Position(at, searching, budget)
        return torch.cat(found) if found else torch.empty(0, dtype=torch.int64, device="cpu")

    def digest(self) -> str:
        """A digest of the files' sizes and numbers of records, but not of their names."""
        text = f"{self.sizes.tolist()} {self.ends.tolist()}"
        return hashlib.sha256(text.encode()).hexdigest()

    def __reduce__(self) -> Any:
        raise TypeError(f"the memory of {os.fspath(self.paths[0])} cannot be pickled")
