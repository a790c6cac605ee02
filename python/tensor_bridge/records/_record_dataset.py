"""RecordDataset: records by their number."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from tensor_bridge import _C
from tensor_bridge._options import checks_keywords
from tensor_bridge.records._batch import RecordBatch
from tensor_bridge.records._damage import FAULTS, damaged
from tensor_bridge.records._index import index_of
from tensor_bridge.records._mapping import Mapping
from tensor_bridge.records._paths import expand
from tensor_bridge.records._record_file import RecordStats, check_on_error
from tensor_bridge.records._singles import singles
from tensor_bridge.records._spec_parser import SpecParser

if TYPE_CHECKING:
    import torch

__all__ = ["ParsedRecords", "RecordDatasetBase", "record_dataset_class"]


# If two threads mapped one file, the mapping of one thread's batches would not be kept alive.
_MAPPING = threading.Lock()


class ParsedRecords(list[Any]):
    """The single examples of a batch of records. The first access parses all of them.

    `collate` parses the batch as a whole instead.
    """

    def __init__(self, batch: RecordBatch, parser: SpecParser) -> None:
        """Makes a list as long as the batch."""
        super().__init__()
        self.batch = batch
        self.parser = parser

    def _fill(self) -> None:
        if not super().__len__():
            self.extend(list(singles(self.parser, self.batch)))

    def __len__(self) -> int:
        return len(self.batch)

    def __iter__(self) -> Iterator[Any]:
        self._fill()
        return super().__iter__()

    @overload
    def __getitem__(self, index: SupportsIndex) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: Any) -> Any:
        self._fill()
        return super().__getitem__(index)

    def __reduce__(self) -> Any:
        return list, (list(self),)


class RecordDatasetBase:
    """Records of files as a map-style dataset of torch: by number, in any order.

    torch's samplers shuffle it, a DistributedSampler divides it among ranks, and the workers of a
    DataLoader read it, started by fork or by spawn. A single example is the result of
    `parse_single_example`, or bytes without a spec.
    ``DataLoader(dataset, collate_fn=records.collate)`` parses each batch as a whole, like
    `parse_example`. A file is mapped when it is first read; if another process truncates the file,
    reading ends this process (SIGBUS).

    Attributes:
      paths: The files, in order.

    Example:
      >>> from tensor_bridge import records
      >>> with records.Writer("/tmp/numbers.tfrecord", overwrite=True) as writer:
      ...     for number in (b"zero", b"one", b"two"):
      ...         writer.write(number)
      >>> dataset = records.RecordDataset("/tmp/numbers.tfrecord")
      >>> len(dataset), dataset[1]
      (3, b'one')
    """

    @checks_keywords
    def __init__(
        self,
        paths: Any,
        spec: Any = None,
        *,
        index: str | os.PathLike[str] | None = None,
        verify: bool = True,
        on_error: str = "raise",
    ) -> None:
        """Finds the records, in one pass over their lengths.

        Args:
          paths: Uncompressed TFRecord files on this machine: a path, a pattern, or a list of them.
          spec: A dict of features, a `SequenceFeatures`, or None for raw records.
          index: A file for the places of the records. It is written if it is missing, or if the
            names, sizes or times of the files differ from it.
          verify: Whether to compare the checksums of the records that are read.
          on_error: "raise", or "skip" to leave out damaged records. That reads all bytes of the
            files before the first record.

        Raises:
          RecordNotFoundError: A file is missing, or a pattern matches nothing.
          RecordError: A file is damaged, compressed or a URL, or `index` is another file.
          InvalidOptionError: The spec or another keyword is invalid.
          UnsupportedDtypeError: The format does not have a dtype of the spec.
        """
        self.paths = expand(paths)
        self._parser = SpecParser(spec)
        self._verify = int(verify)
        skip = check_on_error(on_error) == "skip"
        self._index = index_of(self.paths, None if index is None else os.fspath(index), skip=skip)
        self._unmap()

    def _unmap(self) -> None:
        import torch

        files = len(self.paths)
        self._mappings: list[Mapping | None] = [None] * files
        # Address and size of each mapped file, and the lowest of the addresses.
        self._memory = torch.zeros((2, files), dtype=torch.int64, device="cpu")
        self._base = 0
        ends, offsets = self._index.ends.data_ptr(), self._index.offsets.data_ptr()
        memory = self._memory.data_ptr()
        self._native = memory, memory + 8 * files, ends, files, offsets

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mappings": None, "_memory": None, "_native": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._unmap()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.paths)} files, {len(self)} records)"

    def __len__(self) -> int:
        return len(self._index)

    def stats(self) -> RecordStats:
        """Returns what the pass that found the records, or that made their index, has counted."""
        return RecordStats(**vars(self._index.stats))

    def __getitem__(self, index: SupportsIndex) -> Any:
        """The record with a number; negative numbers count from the end.

        Raises:
          IndexError: There is no such record.
          RecordError: The record is damaged, or does not match the spec.
        """
        if self._parser.spec is None:
            # None where there is more to do, or to say.
            record = _C.record_bytes(*self._native, index, self._verify)
            if record is not None:
                return record
        return self._parser.parse_one(self.raw([index]))

    def __iter__(self) -> Iterator[Any]:
        """The records in order. Raises the errors of `__getitem__`."""
        return (self[number] for number in range(len(self)))

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> ParsedRecords:
        """Several records, as a list of results of `__getitem__`.

        torch's DataLoader calls this. `collate` makes a batch of the list without parsing the
        records one by one. Raises the errors of `__getitem__`.
        """
        return ParsedRecords(self.raw(indices), self._parser)

    def raw(self, indices: Any) -> RecordBatch:
        """The records with these numbers, not parsed.

        Args:
          indices: A sequence of int, or a tensor of int64 of shape ``(count,)``.

        Returns:
          The records in the order of `indices`. They share the memory of the mapped files.

        Raises:
          IndexError: There is no such record.
          RecordError: A record is damaged, or its file has changed since it was indexed.
        """
        import torch

        numbers = torch.as_tensor(indices, dtype=torch.int64, device="cpu").contiguous()
        count = numbers.numel()
        total = len(self)
        if not count:
            return RecordBatch.of([])
        low, high = (int(bound) for bound in numbers.aminmax())
        if low < -total or high >= total:
            raise IndexError(f"record {high if high >= total else low} of {total}")
        if low < 0:
            numbers = torch.where(numbers < 0, numbers + total, numbers)
        places = torch.empty((2, count), dtype=torch.int64, device="cpu")
        while True:
            base = self._base
            # Offsets count from `base`. Meanwhile another thread may have mapped a file below it.
            if self._found(numbers, count, places, base) and base == self._base:
                return RecordBatch(self._mappings, base, places[0], places[1])

    def _found(self, numbers: torch.Tensor, count: int, places: torch.Tensor, base: int) -> bool:
        """Whether all files of the records are mapped. If not, maps one more."""
        index, memory = self._index, self._memory
        files = len(self.paths)
        begins = places.data_ptr()
        done, file, fault = _C.records_at(
            *(memory.data_ptr(), memory.data_ptr() + 8 * files, index.ends.data_ptr(), files),
            *(index.offsets.data_ptr(), numbers.data_ptr(), count, self._verify, base),
            *(begins, begins + 8 * count),
        )
        if file < 0:
            return True
        path = self.paths[file]
        if fault:
            raise damaged(path, FAULTS[fault], int(index.offsets[numbers[done]]))
        with _MAPPING:
            if self._mappings[file] is None:
                mapping = Mapping(path)
                index.check(file, mapping.size)
                self._mappings[file] = mapping
                # Before the address: a thread that sees the file also sees the new base.
                self._base = min(self._base or mapping.address, mapping.address)
                memory[1, file], memory[0, file] = mapping.size, mapping.address
        return False


@cache
def record_dataset_class() -> type[RecordDatasetBase]:
    """Makes RecordDataset. Imports torch for the base class."""
    from torch.utils.data import Dataset

    class RecordDataset(RecordDatasetBase, Dataset):  # type: ignore[misc]
        __doc__ = RecordDatasetBase.__doc__
        __module__ = "tensor_bridge.records"
        __qualname__ = "RecordDataset"

    return RecordDataset
