"""RecordFile: one file of records, read from front to back.

Not for: several files (`_record_dataset`, `_iterable`), random access (`_index`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tensor_bridge import _C
from tensor_bridge._options import checks_keywords
from tensor_bridge.errors import InvalidOptionError, RecordError
from tensor_bridge.records._batch import RecordBatch
from tensor_bridge.records._damage import FAULTS, damaged, tell_skipped
from tensor_bridge.records._mapping import Mapping, open_file
from tensor_bridge.records._paths import is_url
from tensor_bridge.records._stream import begins_like, chunks, open_binary

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

__all__ = ["Position", "RecordFile", "RecordStats", "check_on_error"]

HEADER = 12
"""Number of bytes before a record's data: its length and the length's checksum."""

ARRAY_RECORD = bytes.fromhex("83af70d10d884a3f")
"""The first bytes of an ArrayRecord file, and of every other file of Riegeli."""

# Number of bytes of a mapped file that stay in memory after they were read.
_BEHIND = 32 << 20
# Number of bytes that a search for the next intact record may read; formats/tfrecord.h says why.
_BUDGET = 1 << 34


class Position(NamedTuple):
    """The position of the next record, in the decompressed bytes if the file is compressed."""

    offset: int = 0
    searching: int = 0
    budget: int = _BUDGET


@dataclass
class RecordStats:
    """Counts of what was read.

    Attributes:
      records: Number of records that were delivered.
      bytes: Number of bytes of those records.
      skipped_records: Number of places with skipped damage, each of one or more records.
      skipped_bytes: Number of skipped bytes, including lengths and checksums.
    """

    records: int = 0
    bytes: int = 0
    skipped_records: int = 0
    skipped_bytes: int = 0

    def add(self, other: RecordStats) -> None:
        """Adds the counts of another reader."""
        self.records += other.records
        self.bytes += other.bytes
        self.skipped_records += other.skipped_records
        self.skipped_bytes += other.skipped_bytes


def check_on_error(on_error: str) -> str:
    """Returns `on_error`. Raises InvalidOptionError if it is neither "raise" nor "skip"."""
    if on_error not in ("raise", "skip"):
        raise InvalidOptionError(f'expected on_error="raise" or "skip", got {on_error!r}')
    return on_error


class RecordFile:
    """A TFRecord file, read from front to back like a file object.

    A file that does not begin with a record is decompressed if it begins like GZIP or ZLIB.
    Uncompressed files are mapped; compressed files and URLs (of fsspec) are read in pieces. Only
    one thread at a time may use a RecordFile.

    Attributes:
      path: The file.
      compression: "GZIP", "ZLIB" or "".
    """

    @checks_keywords
    def __init__(
        self, path: str | os.PathLike[str], *, verify: bool = True, on_error: str = "raise"
    ) -> None:
        """Opens a file.

        Args:
          path: A path, or a URL of fsspec.
          verify: Whether to compare the checksums of the records' bytes. The checksums of their
            lengths are always compared.
          on_error: "raise", or "skip" to continue at the next intact record. `stats` counts what is
            skipped, and the first time warns. Damage in a compressed stream ends the file.

        Raises:
          RecordNotFoundError: There is no such file.
          RecordError: It is not a regular file, or cannot be read.
          FrameworkError: `path` is a URL, and fsspec is not installed.
          InvalidOptionError: `on_error` is invalid.
        """
        self.path = os.fspath(path)
        self._verify = int(verify)
        self._skip = int(check_on_error(on_error) == "skip")
        self._stats = RecordStats()
        self._warned = False
        self._position = Position()
        self._mapping: Mapping | None = None
        self._chunks: Iterator[bytes] | None = None
        self._closed = False
        if is_url(self.path):
            with open_binary(self.path) as file:
                self.compression = compression_of(file.read(HEADER), self.path)
        else:
            self._open_local()
        self._rewind()

    def _open_local(self) -> None:
        descriptor = open_file(self.path)
        try:
            self.compression = compression_of(os.pread(descriptor, HEADER, 0), self.path)
            if not self.compression:
                self._mapping = Mapping(self.path, descriptor)
        finally:
            os.close(descriptor)

    def _rewind(self) -> None:
        self._position = Position()
        self._dropped = 0
        if self._mapping is not None:
            return
        # The decompressed bytes in memory, and their offset in the stream.
        self._buffer: Any = None
        self._buffer_at = 0
        self._final = False
        self._failure: RecordError | None = None
        self._chunks = chunks(self.path, self.compression)

    def close(self) -> None:
        """Ends reading. Batches that were read stay valid."""
        self._closed = True
        self._mapping = None
        self._chunks = None
        self._buffer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stats(self) -> RecordStats:
        """Counts of what was read so far."""
        return RecordStats(**vars(self._stats))

    def tell(self) -> Position:
        """The position, for `seek` of another RecordFile of this file."""
        return self._position

    def seek(self, position: tuple[int, ...] = ()) -> None:
        """Goes to a position from `tell`, by default to the beginning.

        A compressed file or a URL is read up to the position.

        Raises:
          RecordError: The file ends before the position.
        """
        self._rewind()
        target = Position(*position)
        if self._mapping is not None:
            if target.offset > self._mapping.size:
                raise damaged(self.path, f"expected at least {target.offset} bytes", target.offset)
        else:
            while self._buffer_end() < target.offset:
                self._buffer_at = self._buffer_end()
                self._buffer = None
                if not self._more():
                    raise self._failure or damaged(
                        self.path, f"expected at least {target.offset} bytes, got fewer"
                    )
        self._position = target

    def __repr__(self) -> str:
        return f"RecordFile({self.path!r}, compression={self.compression!r})"

    def __iter__(self) -> Iterator[bytes]:
        """The remaining records, as bytes. Raises the errors of `read`."""
        while (batch := self.read(64)) is not None:
            yield from batch.to_bytes()

    def batches(self, size: int = 64) -> Iterator[RecordBatch]:
        """The remaining records, `size` at a time; fewer at the end and before damage."""
        while (batch := self.read(size)) is not None:
            yield batch

    def read(self, most: int) -> RecordBatch | None:
        """The next records.

        Args:
          most: The largest number of records. There may be fewer at the end and before damage, and
            anywhere in a compressed file or a URL.

        Returns:
          At least one record, or None at the end. The records share the memory of the mapped file,
          or own it.

        Raises:
          RecordError: The next record is damaged; earlier calls have returned all records before.
          InvalidOptionError: `most` is less than 1, or the file is closed.
        """
        import torch

        if self._closed:
            raise InvalidOptionError(f"{self.path}: the file is closed")
        if most < 1:
            raise InvalidOptionError(f"expected at least 1 record, got {most}")
        places = torch.empty((2, most), dtype=torch.int64, device="cpu")
        return self._read_mapped(places) if self._mapping is not None else self._read_stream(places)

    def _read_mapped(self, places: torch.Tensor) -> RecordBatch | None:
        mapping = self._mapping
        assert mapping is not None
        at = self._position.offset
        if at - self._dropped >= _BEHIND:
            mapping.drop(self._dropped, at)
            self._dropped = at
        count = self._scan(mapping.address, mapping.size, 0, True, places)
        return self._batch(mapping, mapping.address, places, count)

    def _read_stream(self, places: torch.Tensor) -> RecordBatch | None:
        while True:
            if self._buffer is not None:
                address = self._buffer.data_ptr()
                size = self._buffer.shape[0]
                count = self._scan(address, size, self._buffer_at, self._final, places)
                if count:
                    return self._batch(self._buffer, address, places, count)
            if self._final or not self._more():
                self._end()
                return None

    def _end(self) -> None:
        failure = self._failure
        if failure is None:
            return
        if not self._skip:
            raise failure
        self._failure = None
        end = self._buffer_end()
        self._count_skipped(1, end - self._position.offset, str(failure))
        self._position = Position(end)

    def _buffer_end(self) -> int:
        return self._buffer_at + (0 if self._buffer is None else int(self._buffer.shape[0]))

    def _more(self) -> bool:
        """Appends a chunk to the bytes that are not read yet. False at the end."""
        import torch

        assert self._chunks is not None
        try:
            chunk = next(self._chunks, b"")
        except RecordError as e:
            # The records before the damage are delivered first.
            self._failure, chunk = e, b""
            self._chunks = iter(())
        if not chunk:
            # A record that is cut off by a damaged stream is part of that damage.
            self._final = self._failure is None
            return self._final and self._buffer is not None
        keep_from = max(0, self._position.offset - self._buffer_at)
        rest = b"" if self._buffer is None else self._buffer[keep_from:]
        joined = torch.empty(len(rest) + len(chunk), dtype=torch.uint8, device="cpu")
        if len(rest):
            joined[: len(rest)] = rest
        joined[len(rest) :] = torch.frombuffer(bytearray(chunk), dtype=torch.uint8)
        self._buffer_at = self._buffer_end() - len(rest)
        self._buffer = joined
        return True

    def _scan(self, address: int, size: int, begin: int, final: bool, places: torch.Tensor) -> int:
        """Finds records in memory that begins at offset `begin` of the file."""
        position = self._position
        most = places.shape[1]
        begins = places.data_ptr()
        count, at, searching, budget, fault, fault_at, skipped, skipped_bytes = _C.records_scan(
            address,
            size,
            position.offset - begin,
            position.searching,
            position.budget,
            self._verify,
            self._skip,
            int(final),
            most,
            begins,
            begins + 8 * most,
        )
        self._position = Position(begin + at, searching, budget)
        if fault:
            if self._skip:
                self._count_skipped(0, 0, "", FAULTS[fault], begin + fault_at)
            elif not count:
                raise damaged(self._place(), FAULTS[fault], begin + fault_at)
        self._stats.skipped_records += skipped
        self._stats.skipped_bytes += skipped_bytes
        return int(count)

    def _place(self) -> str:
        return f"{self.path}, unpacked" if self.compression else self.path

    def _count_skipped(
        self, number: int, size: int, message: str, fault: str = "", offset: int = -1
    ) -> None:
        self._stats.skipped_records += number
        self._stats.skipped_bytes += size
        if not self._warned:
            self._warned = True
            tell_skipped(message or damaged(self._place(), fault, offset))

    def _batch(
        self, owner: Any, address: int, places: torch.Tensor, count: int
    ) -> RecordBatch | None:
        if not count:
            return None
        begins, sizes = places[0, :count], places[1, :count]
        self._stats.records += count
        self._stats.bytes += int(sizes.sum())
        path = self.path if self._mapping is not None else ""
        return RecordBatch(owner, address, begins, sizes, path)


def compression_of(head: bytes, path: str) -> str:
    """The compression by a file's first bytes; "" if the file begins with a record.

    Raises:
      RecordError: It is an ArrayRecord file.
    """
    import torch

    if head.startswith(ARRAY_RECORD):
        raise damaged(
            path,
            "expected a TFRecord file, got an ArrayRecord file (or another one of Riegeli), which "
            "has an index of its own; records.tfds() reads those of a data set of TFDS",
        )
    places = torch.empty(2, dtype=torch.int64, device="cpu")
    data = torch.frombuffer(bytearray(head or b"\0"), dtype=torch.uint8)
    size = len(head)
    *_, fault, _at, _skipped, _bytes = _C.records_scan(
        data.data_ptr(), size, 0, 0, 0, 0, 0, 1, 1, places.data_ptr(), places.data_ptr() + 8
    )
    length_is_wrong = fault == 2 or size < HEADER
    return begins_like(head) if length_is_wrong else ""
