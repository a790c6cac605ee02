"""Shards of a TFDS data set with random access: TFRecord and ArrayRecord."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from tensor_bridge.errors import FrameworkError
from tensor_bridge.records._batch import RecordBatch
from tensor_bridge.records._damage import damaged, not_found
from tensor_bridge.records._record_dataset import record_dataset_class

__all__ = ["Shards"]


class Shards:
    """The files of a data set, which are opened when first read and pickled as their names."""

    def __init__(self, folder: str, file_format: str) -> None:
        """Opens no file yet.

        Raises:
          FrameworkError: The format is ArrayRecord, and the package for it is not installed.
        """
        self._folder = folder
        self._format = file_format
        # Keyed by process: an ArrayRecord reader has threads, which a forked child does not have.
        self._open: dict[tuple[int, str], Any] = {}
        if file_format == "array_record":
            _array_record(folder)

    def __reduce__(self) -> Any:
        return type(self), (self._folder, self._format)

    def read(self, file: str, length: int, numbers: list[int]) -> RecordBatch:
        """Reads records of a shard by number, and compares their checksums.

        Args:
          file: The shard's name in the folder.
          length: The expected number of records in the shard.
          numbers: The records to read, each below `length`.

        Raises:
          RecordNotFoundError: There is no such file.
          RecordError: The file is damaged, or has another number of records.
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
    """A TFRecord file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._records = record_dataset_class()(path)
        self.count = len(self._records)

    def read(self, numbers: list[int]) -> RecordBatch:
        # The batch's address is the file's first byte, so errors of parsing can name the offset.
        return replace(self._records.raw(numbers), path=self.path)


class _ArrayRecordShard:
    """An ArrayRecord file. The package array_record reads it and compares checksums."""

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
        # Only this module, because the rest of the package loads NumPy.
        from array_record.python import array_record_module
    except ImportError as e:
        raise FrameworkError(
            f"{path} is ArrayRecord; reading it needs the package array_record: "
            "pip install array_record",
            name="array_record",
        ) from e
    return array_record_module
