"""Shards of a TFDS data set with random access: TFRecord and ArrayRecord."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tensor_bridge.records._array_record import ArrayRecordFile, array_record
from tensor_bridge.records._batch import RecordBatch
from tensor_bridge.records._damage import damaged, tell_skipped
from tensor_bridge.records._record_dataset import record_dataset_class
from tensor_bridge.records._record_file import RecordStats, check_on_error
from tensor_bridge.records._tfds_splits import Split

__all__ = ["Shards"]


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
        # Number of records that files lack without a trace of damage.
        self._missing = 0
        if file_format == "array_record":
            array_record(folder)

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
        batch: RecordBatch = self._shard(file, length).at(numbers)
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
        total = RecordStats(skipped_records=self._missing)
        for shard in self._open.values():
            total.add(shard.stats())
        return total

    def _shard(self, file: str, length: int) -> Any:
        shard = self._open.get(file)
        if shard is None:
            kind = ArrayRecordFile if self._format == "array_record" else _TfRecordShard
            shard = kind(str(Path(self._folder, file)), self.skips)
            if shard.count != length and not (
                shard.stats().skipped_records and shard.count < length
            ):
                other = damaged(
                    shard.path,
                    f"expected {length} records, as dataset_info.json says, got {shard.count}",
                )
                if not self.skips or shard.count > length:
                    raise other
                self._missing += length - shard.count
                tell_skipped(other)
            self._open[file] = shard
        return shard


class _TfRecordShard:
    """A TFRecord file."""

    def __init__(self, path: str, skips: bool) -> None:
        self.path = path
        self._records = record_dataset_class()(path, on_error="skip" if skips else "raise")
        self.count = len(self._records)
        self.stats = self._records.stats

    def at(self, numbers: list[int]) -> RecordBatch:
        # The batch's address is the file's first byte, so errors of parsing can name the offset.
        return replace(self._records.raw(numbers), path=self.path)
