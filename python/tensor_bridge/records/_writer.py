"""Writer: writes files of records."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _refusals
from tensor_bridge._options import checks_keywords
from tensor_bridge._output import Output, outputs
from tensor_bridge.composite import StringTensor
from tensor_bridge.errors import InvalidOptionError, UnsupportedTypeError
from tensor_bridge.records._batch import RecordBatch
from tensor_bridge.records._encode import encoder_of, examples_of
from tensor_bridge.records._features import SequenceFeatures

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Writer"]

_WINDOW_BITS = {"GZIP": 31, "ZLIB": 15}
# Number of bytes that are collected before they are written.
_WAITING = 1 << 20


class _AbortedError(Exception):
    """Tells `outputs` that the files are not complete."""


class _Shard:
    """The records of one file."""

    def __init__(self, file: Output, compression: str) -> None:
        self._file = file
        bits = _WINDOW_BITS.get(compression)
        self._packer = None if bits is None else zlib.compressobj(wbits=bits)
        self._waiting: list[bytes] = []
        self._bytes = 0

    def write(self, record: bytes) -> None:
        self._waiting.append(record)
        self._bytes += len(record)
        if self._bytes >= _WAITING:
            self.flush()

    def flush(self) -> None:
        import ctypes

        import torch

        if not self._waiting:
            return
        batch = RecordBatch.of(self._waiting)
        size = self._bytes + 16 * len(self._waiting)
        framed = torch.empty(size, dtype=torch.uint8, device="cpu")
        begins, sizes = batch.begins.contiguous(), batch.sizes.contiguous()
        _C.records_frame(
            batch.address, begins.data_ptr(), sizes.data_ptr(), len(batch), framed.data_ptr()
        )
        data = ctypes.string_at(framed.data_ptr(), size)
        self._file.write(data if self._packer is None else self._packer.compress(data))
        self._waiting, self._bytes = [], 0

    def end(self) -> None:
        self.flush()
        if self._packer is not None:
            self._file.write(self._packer.flush())


class Writer:
    """Writes TFRecord files, with all checksums.

    The files get their names when all of them are complete, at the end of the ``with`` block or in
    `close`. An exception in the block leaves no files. Only one thread may use a writer.

    Attributes:
      paths: The names of the files.

    Example:
      >>> import torch
      >>> from tensor_bridge import records
      >>> spec = {"x": records.FixedLenFeature((2,), "float32"),
      ...         "label": records.FixedLenFeature((), "int64")}
      >>> with records.Writer("/tmp/train.tfrecord", spec, overwrite=True) as writer:
      ...     writer.write({"x": torch.tensor([1.0, 2.0]), "label": 3})
      >>> records.RecordDataset("/tmp/train.tfrecord", spec)[0]
      {'x': tensor([1., 2.]), 'label': tensor(3)}
    """

    @checks_keywords
    def __init__(
        self,
        path: str | os.PathLike[str],
        spec: Any = None,
        *,
        compression: str = "",
        shards: int = 1,
        overwrite: bool = False,
    ) -> None:
        """Begins writing.

        Args:
          path: The file. With several shards a suffix is added, as in
            ``train.tfrecord-00000-of-00004``.
          spec: The features of the records: a dict of features, a `SequenceFeatures`, or None for
            raw records. The same spec reads them.
          compression: "", "GZIP" or "ZLIB".
          shards: The number of files; consecutive records go to different files in turn.
          overwrite: Whether to replace existing files.

        Raises:
          InvalidOptionError: A file exists, its folder does not exist, or a keyword or the spec is
            invalid.
          OSError: A file cannot be written.
        """
        if compression not in ("", *_WINDOW_BITS):
            raise InvalidOptionError(
                f'expected compression="", "GZIP" or "ZLIB", got {compression!r}'
            )
        if shards < 1:
            raise InvalidOptionError(f"expected at least 1 shard, got {shards!r}")
        self._encode = None if spec is None else encoder_of(spec)
        self._sequence = isinstance(spec, SequenceFeatures)
        base = os.fspath(path)
        self.paths = (
            [base]
            if shards == 1
            else [f"{base}-{number:05}-of-{shards:05}" for number in range(shards)]
        )
        self._count = 0
        self._shards: list[_Shard] = []
        self._outputs = ExitStack()
        files = self._outputs.enter_context(outputs([Path(name) for name in self.paths], overwrite))
        self._shards = [_Shard(file, compression) for file in files]

    def __repr__(self) -> str:
        return f"Writer({', '.join(self.paths)}, {self._count} records)"

    def write(self, record: Any) -> None:
        """Writes one record.

        Args:
          record: Without a spec, bytes. With a spec, a dict of values by key: values of the form
            that `parse_single_example` returns, or anything that torch converts to a tensor. A
            feature that is missing, or None, is not written.

        Raises:
          UnsupportedTypeError, UnsupportedDtypeError, MismatchError: Its feature cannot hold a
            value exactly.
          InvalidOptionError: The spec does not have a key, or the writer is closed.
        """
        if not self._shards:
            raise InvalidOptionError("the writer is closed")
        if self._encode is not None:
            data: bytes = self._encode(record)
        elif isinstance(record, (bytes, bytearray)):
            data = bytes(record)
        else:
            raise UnsupportedTypeError(
                f"expected bytes, since there is no spec, got {_refusals.a_class(record)}"
            )
        self._shards[self._count % len(self._shards)].write(data)
        self._count += 1

    def write_batch(self, batch: Any) -> None:
        """Writes the records of a batch.

        Args:
          batch: With a spec, values of the form that `parse_example` returns. For a
            `SequenceFeatures` a dict of the dicts "context", "sequence" and "lengths", as
            `loader` gives it: rows of padded lists beyond the lengths are not written; without
            lengths all are. A sparse list has as many rows in each record. Without a spec, raw
            records: a StringTensor, a list of bytes or a `RecordBatch`.

        Raises:
          UnsupportedTypeError, UnsupportedDtypeError, MismatchError: As for `write`, or if the
            values have different leading dimensions.
        """
        if self._encode is not None:
            records: Iterable[Any] = examples_of(batch, sequence=self._sequence)
        elif isinstance(batch, StringTensor):
            records = batch.reshape(-1).to_bytes()
        else:
            records = RecordBatch.of(batch).to_bytes()
        for record in records:
            self.write(record)

    def close(self) -> None:
        """Completes the files and gives them their names.

        Raises:
          OSError: A file cannot be written. Then no file exists.
        """
        shards, self._shards = self._shards, []
        try:
            for shard in shards:
                shard.end()
        except BaseException:
            self.abort()
            raise
        self._outputs.close()

    def abort(self) -> None:
        """Ends writing and leaves no files."""
        self._shards = []
        with suppress(_AbortedError):
            self._outputs.__exit__(_AbortedError, _AbortedError(), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()
