"""ArrayRecord files, which the package array_record reads. Not for: data sets (`_tfds_shards`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tensor_bridge.errors import FrameworkError, RecordError
from tensor_bridge.records._batch import RecordBatch
from tensor_bridge.records._damage import damaged, not_found, tell_skipped
from tensor_bridge.records._paths import is_url
from tensor_bridge.records._record_file import ARRAY_RECORD, RecordFile, RecordStats

__all__ = ["ArrayRecordFile", "array_record", "open_records"]

# Number of records that a search for damage reads at once.
_AT_ONCE = 64
# What array_record raises.
_FAILURES = (RuntimeError, ValueError, IndexError)


def open_records(path: str, **options: Any) -> RecordFile | ArrayRecordFile:
    """Opens a file of records of either format, by its first bytes.

    Args:
      path: A path, or a URL of a TFRecord file.
      options: Those of `RecordFile`.

    Raises:
      FrameworkError: It is ArrayRecord, and the package array_record is not installed.
      RecordError, RecordNotFoundError: As `RecordFile`.
    """
    if not is_url(path) and Path(path).is_file():
        with Path(path).open("rb") as file:
            if file.read(len(ARRAY_RECORD)) == ARRAY_RECORD:
                return ArrayRecordFile(path, options.get("on_error") == "skip")
    return RecordFile(path, **options)


class ArrayRecordFile:
    """An ArrayRecord file: records by their number, or from front to back. Checksums are compared.

    Attributes:
      path: The file.
      count: Number of records.
      compression: "", as of an uncompressed `RecordFile`: its chunks have a compression of their
        own.
    """

    compression = ""

    def __init__(self, path: str, skips: bool = False) -> None:
        """Opens a file.

        Args:
          path: The path.
          skips: Whether to leave out damaged records, which reads all of them.

        Raises:
          RecordNotFoundError: There is no such file.
          RecordError: The file is damaged.
          FrameworkError: The package array_record is not installed.
        """
        self.path = path
        if not Path(path).exists():
            raise not_found(path)
        # By process: a reader has threads, which a forked child does not have.
        self._readers: dict[int, Any] = {}
        self._stats = RecordStats()
        self._next = 0
        # The records that can be read, if not all of them.
        self._left: list[int] | None = None
        try:
            reader = self._reader()
            self.count = int(reader.num_records())
            complete = bool(reader.ok())
        except _FAILURES as e:
            raise damaged(path, f"expected an ArrayRecord file: {e}") from e
        if not complete:
            cut = damaged(path, "expected an ArrayRecord file with its end; it is damaged")
            if not skips:
                raise cut
            self._stats.skipped_records = 1
            tell_skipped(cut)
        if skips:
            self._leave_out()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}}

    def _reader(self) -> Any:
        process = os.getpid()
        if process not in self._readers:
            self._readers[process] = array_record(self.path).ArrayRecordReader(self.path, "")
        return self._readers[process]

    def _leave_out(self) -> None:
        left: list[int] = []
        damage: RecordError | None = None
        for begin in range(0, self.count, _AT_ONCE):
            numbers = list(range(begin, min(begin + _AT_ONCE, self.count)))
            try:
                self.at(numbers)
                left += numbers
            except RecordError:
                for number in numbers:
                    try:
                        self.at([number])
                        left.append(number)
                    except RecordError as e:
                        damage = damage or e
        if damage is not None:
            self._stats.skipped_records = self.count - len(left)
            self.count, self._left = len(left), left
            tell_skipped(damage)

    def stats(self) -> RecordStats:
        """The number of records, those that were left out, and the bytes that `read` has read."""
        return RecordStats(self.count, self._stats.bytes, self._stats.skipped_records)

    def at(self, numbers: list[int]) -> RecordBatch:
        """The records with these numbers, each below `count`.

        Raises:
          RecordError: A record is damaged.
        """
        if self._left is not None:
            numbers = [self._left[number] for number in numbers]
        try:
            return RecordBatch.of(list(self._reader().read(numbers)) if numbers else [])
        except _FAILURES as e:
            raise damaged(self.path, f"expected records that can be read: {e}") from e

    def read(self, most: int) -> RecordBatch | None:
        """The next records, at most this many; None at the end. Raises the errors of `at`."""
        numbers = list(range(self._next, min(self._next + most, self.count)))
        if not numbers:
            return None
        batch = self.at(numbers)
        self._next += len(numbers)
        self._stats.bytes += int(batch.sizes.sum())
        return batch


def array_record(path: str) -> Any:
    """The module that reads ArrayRecord.

    Raises:
      FrameworkError: The package is not installed.
    """
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
