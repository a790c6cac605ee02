"""MappedFiles: the records of several files in memory, by number. Not for: parsing."""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C
from tensor_bridge.errors import RecordError
from tensor_bridge.records._damage import FAULTS, damaged, tell_skipped
from tensor_bridge.records._index import index_of
from tensor_bridge.records._mapping import Mapping
from tensor_bridge.records._paths import is_url
from tensor_bridge.records._record_file import HEADER, Position, RecordStats, compression_of
from tensor_bridge.records._stream import chunks, open_binary

if TYPE_CHECKING:
    import torch

# Most records that one scan finds.
_STEP = 1 << 16
# The same where damage is skipped; at least two: the record before the damage, and one behind it.
_STEP_BEHIND_DAMAGE = 64


class _Unpacked:
    """The decompressed bytes of a compressed file or a URL, in memory.

    Attributes:
      failure: Why there are no more bytes, if `skip` and the compressed stream is damaged.
    """

    def __init__(self, path: str, compression: str, skip: bool) -> None:
        import torch

        block = bytearray()
        self.failure: RecordError | None = None
        try:
            for chunk in chunks(path, compression):
                block += chunk
        except RecordError as e:
            if not skip:
                raise
            self.failure = e
        self.size = len(block)
        self._memory = torch.frombuffer(block, dtype=torch.uint8) if block else None
        self.address = 0 if self._memory is None else self._memory.data_ptr()


def _opened(path: str, skip: bool) -> Mapping | _Unpacked:
    if is_url(path):
        with open_binary(path) as file:
            return _Unpacked(path, compression_of(file.read(HEADER), path), skip)
    mapping = Mapping(path)
    compression = compression_of(ctypes.string_at(mapping.address, min(mapping.size, HEADER)), path)
    return _Unpacked(path, compression, skip) if compression else mapping


def _numbers(values: Sequence[int]) -> torch.Tensor:
    import torch

    return torch.tensor(values, dtype=torch.int64, device="cpu")


class MappedFiles:
    """Files in memory whose records are numbered consecutively.

    Attributes:
      paths: The files.
      addresses: Address of each file's first byte, int64 of shape ``(files,)``.
      sizes: Number of bytes of each file, int64 of shape ``(files,)``.
      skipped: Damage that was left out when the records were found, in `skipped_records` and
        `skipped_bytes`. Records whose bytes are damaged are found when they are read.
    """

    def __init__(
        self, paths: Sequence[str], *, skip: bool, verify: bool, index: str | None = None
    ) -> None:
        """Maps the files. With `skip` it also finds their records.

        Args:
          paths: The files.
          skip: Whether damage is left out.
          verify: Whether checksums of bytes count as damage.
          index: A file that keeps where the records are; for `index_of`.

        Raises:
          RecordNotFoundError: A file is missing.
          RecordError: A file cannot be read, or it cannot have an index; or a compressed stream is
            damaged, unless `skip`.
        """
        self.paths = tuple(paths)
        self.skipped = RecordStats()
        self._skip, self._verify = skip, verify
        self._told: set[str] = set()
        self._places: tuple[torch.Tensor, torch.Tensor] | None = None
        found = None if index is None else index_of(list(paths), index, skip=skip)
        self._files = [_opened(path, skip) for path in self.paths]
        self.addresses = _numbers([file.address for file in self._files])
        self.sizes = _numbers([file.size for file in self._files])
        if found is not None:
            for number, file in enumerate(self._files):
                found.check(number, file.size)
            self.skipped, self._places = found.stats, (found.ends, found.offsets)
        elif skip:
            self.places()

    @property
    def located(self) -> bool:
        """Whether the places of the records are known."""
        return self._places is not None

    def places(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the records are. The first call reads the lengths of all of them.

        Returns:
          For each file the number of records up to its end, int64 of shape ``(files,)``, and each
          record's offset in its file, int64 of shape ``(records,)``.

        Raises:
          RecordError: A file is damaged, unless damage is left out.
        """
        if self._places is None:
            import torch

            parts = [self._find(*each) for each in zip(self.paths, self._files, strict=True)]
            ends = _numbers([part.shape[0] for part in parts]).cumsum(0)
            self._places = ends, torch.cat(parts) if parts else _numbers([])
        return self._places

    def __len__(self) -> int:
        return int(self.places()[1].shape[0])

    def _find(self, path: str, file: Any) -> torch.Tensor:
        import torch

        failure = getattr(file, "failure", None)
        found: list[torch.Tensor] = []
        position, careful = Position(), False
        while file.size:
            most = _STEP_BEHIND_DAMAGE if careful else _STEP
            begins = torch.empty((2, most), dtype=torch.int64, device="cpu")
            count, at, searching, budget, fault, fault_at, records, nbytes = _C.records_scan(
                file.address,
                file.size,
                *position,
                int(careful and self._verify),
                int(careful),
                int(failure is None),  # what a damaged stream has cut is part of its damage
                most,
                begins[0].data_ptr(),
                begins[1].data_ptr(),
            )
            if count:
                found.append(begins[0, :count] - HEADER)
            self.skipped.skipped_records += records
            self.skipped.skipped_bytes += nbytes
            position = Position(at, searching, budget)
            if fault:
                error = damaged(path, FAULTS[fault], fault_at)
                if not self._skip:
                    raise error
                if careful:
                    self._tell(path, error)
            if fault and not careful:
                # The damage may begin in the record before: only its length has been compared.
                careful = True
                if found:
                    position = Position(int(found[-1][-1]), 0, budget)
                    found[-1:] = [found[-1][:-1]] if found[-1].shape[0] > 1 else []
                continue
            if count < most:
                break
            careful = False
        if failure is not None:
            self.skipped.skipped_records += 1
            self.skipped.skipped_bytes += file.size - position.offset
            self._tell(path, failure)
        return torch.cat(found) if found else torch.empty(0, dtype=torch.int64, device="cpu")

    def _tell(self, path: str, error: RecordError) -> None:
        if path not in self._told:
            self._told.add(path)
            tell_skipped(error)

    def tell_of(self, numbers: torch.Tensor) -> None:
        """Warns of damaged records among those with `numbers`, once for each file."""
        import torch

        ends, offsets = self.places()
        place = torch.empty(2, dtype=torch.int64, device="cpu")
        for at in range(numbers.shape[0]):
            _, file, fault = _C.records_at(
                *(self.addresses.data_ptr(), self.sizes.data_ptr()),
                *(ends.data_ptr(), len(self.paths), offsets.data_ptr()),
                *(numbers[at:].data_ptr(), 1, 1, 0, place.data_ptr(), place.data_ptr() + 8),
            )
            if fault:
                offset = int(offsets[numbers[at]])
                self._tell(self.paths[file], damaged(self.paths[file], FAULTS[fault], offset))

    def digest(self) -> str:
        """A digest of the files' sizes, but not of their names."""
        return hashlib.sha256(str(self.sizes.tolist()).encode()).hexdigest()

    def __reduce__(self) -> Any:
        raise TypeError(f"the memory of {os.fspath(self.paths[0])} cannot be pickled")
