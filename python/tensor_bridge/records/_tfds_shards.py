"""Shards of a TFDS data set with random access: TFRecord and ArrayRecord."""

from __future__ import annotations

import array
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C
from tensor_bridge.errors import FrameworkError
from tensor_bridge.records._batch import RecordBatch
from tensor_bridge.records._damage import FAULTS, damaged, not_found
from tensor_bridge.records._record_file import RecordFile

if TYPE_CHECKING:
    import torch

__all__ = ["Shards"]

_HEADER = 12


class Shards:
    """The files of a data set, opened when they are read from. They pickle as their names."""

    def __init__(self, folder: str, file_format: str) -> None:
        """Opens nothing.

        Raises:
          FrameworkError: The format is ArrayRecord, and the package for it is not installed.
        """
        self._folder = folder
        self._format = file_format
        # By process: an ArrayRecord reader has threads, which a fork does not take along.
        self._open: dict[tuple[int, str], Any] = {}
        if file_format == "array_record":
            _array_record(folder)

    def __reduce__(self) -> Any:
        return type(self), (self._folder, self._format)

    def read(self, file: str, length: int, numbers: list[int]) -> RecordBatch:
        """Records of a shard by their numbers; their checksums are compared.

        Args:
          file: Its name in the folder.
          length: The records that it has to have.
          numbers: Which, each below `length`.

        Raises:
          RecordNotFoundError: There is no such file.
          RecordError: It is damaged, or has another number of records.
        """
        key = (os.getpid(), file)
        shard = self._open.get(key)
        if shard is None:
            kind = _ArrayRecordShard if self._format == "array_record" else _TfRecordShard
            shard = kind(str(Path(self._folder, file)))
            if shard.count != length:
                raise damaged(
                    shard.path,
                    f"expected {length} records, as dataset_info.json says, got {shard.count}",
                )
            self._open[key] = shard
        batch: RecordBatch = shard.read(numbers)
        return batch


class _TfRecordShard:
    """A TFRecord file and where each of its records begins."""

    def __init__(self, path: str) -> None:
        self.path = path
        places: list[torch.Tensor] = []
        batch = None
        # Only the lengths are read here; the records are verified when they are read.
        with RecordFile(path, verify=False) as file:
            if file.compression:
                raise damaged(path, "expected an uncompressed TFRecord file, got a compressed one")
            for batch in file.batches(4096):
                places.append(batch.begins)
        self._owner = None if batch is None else batch.owner
        self._address = 0 if batch is None else batch.address
        self._offsets = array.array("q")
        for begins in places:
            self._offsets.extend((begins - _HEADER).tolist())
        self.count = len(self._offsets)

    def read(self, numbers: list[int]) -> RecordBatch:
        import torch

        owner = self._owner
        places = torch.empty((2, len(numbers)), dtype=torch.int64, device="cpu")
        begins = places.data_ptr()
        if owner is None or not numbers:
            return RecordBatch(None, 0, places[0], places[1], self.path)
        # One file each: its memory, its size, how many records it has.
        file = array.array("q", [self._address, owner.size, self.count])
        asked = array.array("q", numbers)
        at, _ = file.buffer_info()
        done, _, fault = _C.records_at(
            at,
            at + 8,
            at + 16,
            1,
            self._offsets.buffer_info()[0],
            asked.buffer_info()[0],
            len(numbers),
            1,
            self._address,
            begins,
            begins + 8 * len(numbers),
        )
        if done < len(numbers):
            raise damaged(self.path, FAULTS[fault], self._offsets[numbers[done]])
        return RecordBatch(owner, self._address, places[0], places[1], self.path)


class _ArrayRecordShard:
    """An ArrayRecord file, which the package array_record reads; it compares checksums."""

    def __init__(self, path: str) -> None:
        self.path = path
        if not Path(path).exists():
            raise not_found(path)
        try:
            self._reader = _array_record(path).ArrayRecordReader(path, "")
            self.count = int(self._reader.num_records())
        except (RuntimeError, ValueError, IndexError) as e:
            raise damaged(path, f"expected an ArrayRecord file: {e}") from e

    def read(self, numbers: list[int]) -> RecordBatch:
        try:
            return RecordBatch.of(list(self._reader.read(numbers)) if numbers else [])
        except (RuntimeError, ValueError, IndexError) as e:
            raise damaged(self.path, f"expected records that can be read: {e}") from e


def _array_record(path: str) -> Any:
    try:
        # The module alone: the rest of the package loads NumPy.
        from array_record.python import array_record_module
    except ImportError as e:
        raise FrameworkError(
            f"{path} is ArrayRecord; reading it needs the package array_record: "
            "pip install array_record",
            name="array_record",
        ) from e
    return array_record_module
