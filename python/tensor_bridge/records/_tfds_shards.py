"""Shards of a TFDS data set with random access: TFRecord and ArrayRecord."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from tensor_bridge.errors import FrameworkError, RecordError
from tensor_bridge.records._batch import RecordBatch
from tensor_bridge.records._damage import damaged, not_found, tell_skipped
from tensor_bridge.records._record_dataset import record_dataset_class
from tensor_bridge.records._record_file import RecordStats, check_on_error
from tensor_bridge.records._tfds_splits import Split

__all__ = ["Shards"]

# Number of ArrayRecord's records that a search for damage reads at once.
_AT_ONCE = 64
# What array_record raises.
_FAILURES = (RuntimeError, ValueError, IndexError)


class Shards:
    """The files of a data set, which are opened when first read and pickled as their names.

    With ``on_error="skip"`` damaged records are left out, and the others are numbered anew. That
    takes reading a whole file when it is opened, so what was found is pickled too.
    """

    def __init__(self, folder: str, file_format: str, on_error: str = "raise") -> None:
        """Opens no file yet.

        Raises:
          FrameworkError: The format is ArrayRecord, and the package for it is not installed.
          InvalidOptionError: `on_error` is invalid.
        """
        self._folder = folder
        self._format = file_format
        self.skips = check_on_error(on_error) == "skip"
        self._open: dict[str, Any] = {}
        if file_format == "array_record":
            _array_record(folder)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": self._open if self.skips else {}}

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
        batch: RecordBatch = self._shard(file, length).read(numbers)
        return batch

    def left(self, split: Split) -> Split:
        """The split with the records that can be read in each of its shards.

        Raises:
          RecordNotFoundError: A file is missing.
        """
        shards = zip(split.files, split.shard_lengths, strict=True)
        counts = tuple(self._shard(file, length).count for file, length in shards)
        return replace(split, shard_lengths=counts)

    def stats(self) -> RecordStats:
        """What was counted in the files that this process has opened."""
        total = RecordStats()
        for shard in self._open.values():
            total.add(shard.stats)
        return total

    def _shard(self, file: str, length: int) -> Any:
        shard = self._open.get(file)
        if shard is None:
            kind = _ArrayRecordShard if self._format == "array_record" else _TfRecordShard
            shard = kind(str(Path(self._folder, file)), self.skips)
            if shard.count != length and not (shard.stats.skipped_records and shard.count < length):
                other = damaged(
                    shard.path,
                    f"expected {length} records, as dataset_info.json says, got {shard.count}",
                )
                if not self.skips or shard.count > length:
                    raise other
                shard.stats.skipped_records = length - shard.count
                tell_skipped(other)
            self._open[file] = shard
        return shard


class _TfRecordShard:
    """A TFRecord file."""

    def __init__(self, path: str, skips: bool) -> None:
        self.path = path
        self._records = record_dataset_class()(path, on_error="skip" if skips else "raise")
        self.count = len(self._records)
        self.stats = self._records.stats()

    def read(self, numbers: list[int]) -> RecordBatch:
        # The batch's address is the file's first byte, so errors of parsing can name the offset.
        return replace(self._records.raw(numbers), path=self.path)


class _ArrayRecordShard:
    """An ArrayRecord file. The package array_record reads it and compares checksums."""

    def __init__(self, path: str, skips: bool) -> None:
        self.path = path
        if not Path(path).exists():
            raise not_found(path)
        # By process: a reader has threads, which a forked child does not have.
        self._readers: dict[int, Any] = {}
        try:
            self.count = int(self._reader().num_records())
        except _FAILURES as e:
            raise damaged(path, f"expected an ArrayRecord file: {e}") from e
        self.stats = RecordStats(records=self.count)
        # The records that can be read, if not all of them.
        self._left: list[int] | None = None
        if skips:
            self._leave_out()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}}

    def _reader(self) -> Any:
        process = os.getpid()
        if process not in self._readers:
            module = _array_record(self.path)
            self._readers[process] = module.ArrayRecordReader(self.path, "")
        return self._readers[process]

    def _leave_out(self) -> None:
        left: list[int] = []
        damage: RecordError | None = None
        for begin in range(0, self.count, _AT_ONCE):
            numbers = list(range(begin, min(begin + _AT_ONCE, self.count)))
            try:
                self.read(numbers)
                left += numbers
            except RecordError:
                for number in numbers:
                    try:
                        self.read([number])
                        left.append(number)
                    except RecordError as e:
                        damage = damage or e
        if damage is not None:
            self.stats = RecordStats(len(left), skipped_records=self.count - len(left))
            self.count, self._left = len(left), left
            tell_skipped(damage)

    def read(self, numbers: list[int]) -> RecordBatch:
        if self._left is not None:
            numbers = [self._left[number] for number in numbers]
        try:
            return RecordBatch.of(list(self._reader().read(numbers)) if numbers else [])
        except _FAILURES as e:
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
