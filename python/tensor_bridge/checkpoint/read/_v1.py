"""Checkpoints of TensorFlow's first format: tables that hold descriptions and values.

TensorFlow before 1.0 wrote them, and `tf.compat.v1.train.Saver(write_version=1)` does today. The
format: tensorflow/core/util/saved_tensor_slice.proto, tensor_slice_writer.cc and
tensor_slice_reader.cc.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C
from tensor_bridge._dtypes import DtypeRow, row_of
from tensor_bridge._stored_dtypes import decoder_of, stored_dtype
from tensor_bridge.checkpoint.read import _crc
from tensor_bridge.checkpoint.read._damage import damaged, reading
from tensor_bridge.checkpoint.read._elements import known_row
from tensor_bridge.checkpoint.read._entry import Entry, Extent
from tensor_bridge.checkpoint.read._files import is_folder, is_there
from tensor_bridge.checkpoint.read._mapped import MappedFile
from tensor_bridge.checkpoint.read._names import Stored, names_of, slice_key
from tensor_bridge.checkpoint.read._slices import Piece, Place, join, place_of, shape_of
from tensor_bridge.checkpoint.read._table import is_table
from tensor_bridge.errors import CheckpointError, CheckpointNotFoundError, UnsupportedDtypeError

if TYPE_CHECKING:
    import torch

    from tensor_bridge.composite import StringTensor

_SHARD = re.compile(r"(?P<base>.+)-(\d{5}|\?{5})-of-(?P<total>\d{5}|\?{5})", re.DOTALL)


def v1_files(path: str) -> list[str]:
    """The files of the checkpoint with that name, [] if there is none.

    Args:
      path: The file; the prefix of several, ``path-00000-of-00002`` and so on; one of these; or
        their pattern, ``path-?????-of-00002``, which TensorFlow's Saver returns.

    Raises:
      CheckpointNotFoundError: Some of the files are missing.
      CheckpointError: Files of several checkpoints have the prefix.
    """
    shard = _SHARD.fullmatch(path)
    if shard is None and is_table(path):
        return [path]
    base, total = (shard["base"], shard["total"]) if shard else (path, "?????")
    parent = Path(base).parent
    if not is_folder(parent):
        return []
    pattern = re.compile(
        re.escape(Path(base).name) + r"-\d{5}-of-" + total.replace("?????", r"(\d{5})"), re.DOTALL
    )
    matches = [pattern.fullmatch(child.name) for child in parent.iterdir()]
    totals = {match[0][-5:] for match in matches if match and is_table(str(parent / match[0]))}
    if not totals:
        return []
    if len(totals) > 1:
        raise damaged(
            path,
            f"expected the files of one checkpoint, got some of {', '.join(sorted(totals))} files; "
            f"name the one that is meant: {base}-?????-of-{min(totals)}",
        )
    count = totals.pop()
    files = [f"{base}-{i:05d}-of-{count}" for i in range(int(count))]
    for file in files:
        if not is_there(file):
            raise CheckpointNotFoundError(
                f"{file}: no such file; a checkpoint needs all of its files side by side"
            )
    return files


class V1Checkpoint:
    """A checkpoint of the first format, in one file or several.

    Attributes:
      entries: In the order of the files.
      checks_all: Whether its own checksums cover all bytes of the entries.
    """

    format = "v1"
    checks_all = True

    def __init__(self, files: list[str]) -> None:
        """Reads the descriptions of the tensors.

        Raises:
          CheckpointError: A file is damaged, or the files contradict each other.
        """
        self._files = [MappedFile(path) for path in files]
        self._blocks: list[tuple[MappedFile, list[tuple[int, int, int]]]] = []
        found: dict[str, _Tensor] = {}
        for file in self._files:
            tensors, blocks, records = _read(file, _C.v1_index)
            self._blocks.append((file, blocks))
            for name, dtype, shape, slices in tensors:
                key = name.decode("utf-8", "surrogateescape")
                tensor = found.setdefault(key, _Tensor(dtype, shape, []))
                if (tensor.dtype, tensor.shape) != (dtype, shape):
                    raise damaged(
                        file.path,
                        f"expected dtype number {tensor.dtype} and shape {tensor.shape} as in "
                        f"another file, got {dtype} and {shape}",
                        entry=key,
                    )
                tensor.slices += [
                    _Slice(file, records, slice_key(name, extents), place_of(extents, shape))
                    for extents in slices
                ]
        for key, tensor in found.items():
            # Each slice is read, at the size that the file claims.
            if len({one.key for one in tensor.slices}) < len(tensor.slices):
                raise damaged(files[0], "expected each slice once, got one twice", entry=key)
        names = names_of({key: Stored(tensor.shape) for key, tensor in found.items()})
        self.entries: list[Entry] = [
            _entry(key, names[key].name, names[key].kind, tensor) for key, tensor in found.items()
        ]

    def problems(self) -> Iterator[CheckpointError]:
        """Damage that the checksums of the blocks, which hold descriptions and values, show."""
        for file, blocks in self._blocks:
            for offset, size, stored in blocks:
                found = _crc.mask(_crc.crc_of(file, offset, size))
                if found != stored:
                    yield damaged(file.path, _crc.mismatch(stored, found), offset=offset)


@dataclass
class _Tensor:
    dtype: int
    shape: tuple[int, ...]
    slices: list[_Slice]


@dataclass(frozen=True)
class _Slice:
    """A slice of a tensor in one of the files; the file's ``records`` find it."""

    file: MappedFile
    records: Any
    key: bytes
    place: Place


def _entry(key: str, name: str, kind: str, tensor: _Tensor) -> V1Entry:
    row = row_of(tensor.dtype)
    return V1Entry(
        name=name,
        kind=kind,
        key=key,
        dtype=row.name if row is not None else f"number {tensor.dtype}",
        shape=tensor.shape,
        nbytes=0 if row is None else prod(tensor.shape) * row.itemsize,
        file=tensor.slices[0].file.path,
        offset=-1,
        row=row,
        number=tensor.dtype,
        slices=tuple(tensor.slices),
    )


@dataclass(frozen=True, eq=False, repr=False)
class V1Entry(Entry):
    """A tensor, in one slice or several.

    The place of its values is looked up when they are read: ``offset`` is -1, and ``nbytes`` is
    their size in memory, 0 for strings.
    """

    row: DtypeRow | None = field(repr=False)
    number: int = field(repr=False)
    slices: tuple[_Slice, ...] = field(repr=False)

    def _read(self, raw: bool) -> Any:
        row = known_row(self)
        if row.name == "string":
            return self._strings()
        try:
            dtype, decode = stored_dtype(row, raw), decoder_of(row, raw)
        except UnsupportedDtypeError as e:
            raise self.unsupported(str(e)) from None
        values = [self._find(one) for one in self.slices]
        if len(values) == 1 and shape_of(self.slices[0].place) == self.shape:
            x = values[0].tensor(self.shape, dtype)
        else:
            pieces = [
                Piece(one.place, value.copier(shape_of(one.place), dtype))
                for one, value in zip(self.slices, values, strict=True)
            ]
            x = join(self.shape, dtype, pieces, self.damaged)
        return x if decode is None else decode(self.shape, [x])

    def _find(self, one: _Slice) -> _Values:
        count = prod(shape_of(one.place))
        wanted = one.records, one.key, self.number, count
        plain, message = _read(one.file, _C.v1_slice, *wanted, entry=self.key)
        return _Values(one.file, self.key, self.number, count, plain, message)

    def _strings(self) -> StringTensor:
        if len(self.slices) > 1 or shape_of(self.slices[0].place) != self.shape:
            raise self.unsupported("a partitioned variable of strings")
        return self._find(self.slices[0]).strings(self.shape)

    def _extent(self) -> Extent | None:
        row = known_row(self)
        if row.kind != "shared" or row.name in ("string", "bool") or len(self.slices) > 1:
            return None
        if shape_of(self.slices[0].place) != self.shape:
            return None
        values = self._find(self.slices[0])
        return Extent(values.file, *values.plain) if values.plain is not None else None

    def _problems(self) -> Iterator[Exception]:
        for one in self.slices if self.row is not None else ():
            try:
                self._find(one)
            except CheckpointError as e:
                yield e


@dataclass(frozen=True)
class _Values:
    """The values of a slice.

    Attributes:
      plain: (offset, size) in the file if they lie there as in memory.
      message: (offset, size) of their TensorProto in the file, or its bytes.
    """

    file: MappedFile
    entry: str
    dtype: int
    count: int
    plain: tuple[int, int] | None
    message: tuple[int, int] | bytearray

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """The values as a tensor, which is a view of the file if possible."""
        import torch

        if self.plain is not None:
            return self.file.tensor(self.plain[0], shape, dtype)
        x = torch.empty(shape, dtype=dtype, device="cpu")
        if self.count:
            self._decode(
                lambda at, n: _C.tensor_values(at, n, self.dtype, self.count, x.data_ptr())
            )
        return x

    def copier(self, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
        """The function that writes the bytes of the values, for `Piece`."""
        import torch

        def copy(into: torch.Tensor) -> None:
            if self.plain is not None:
                self.file.copy_into(into, self.plain[0])
            else:
                into.copy_(self.tensor(shape, dtype).unsqueeze(-1).view(torch.uint8))

        return copy

    def strings(self, shape: tuple[int, ...]) -> StringTensor:
        """The values as strings."""
        import torch

        from tensor_bridge.composite import StringTensor

        offsets = torch.zeros(self.count + 1, dtype=torch.int64, device="cpu")
        if not self.count:
            return StringTensor(torch.empty(0, dtype=torch.uint8), offsets, torch.Size(shape))
        total = self._decode(lambda at, n: _C.tensor_strings(at, n, self.count, 0, 0))
        data = torch.empty(max(total, 1), dtype=torch.uint8, device="cpu")[:total]
        places = offsets.data_ptr(), data.data_ptr()
        self._decode(lambda at, n: _C.tensor_strings(at, n, self.count, *places))
        return StringTensor(data, offsets, torch.Size(shape))

    def _decode(self, call: Any) -> Any:
        """The result of a call with address and size of the message."""
        import torch

        begin = -1
        if isinstance(self.message, bytearray):
            message = torch.frombuffer(self.message, dtype=torch.uint8)
        else:
            begin, size = self.message
            message = self.file.copied(begin, size)
        with reading(self.file.path, self.entry, begin):
            return call(message.data_ptr(), len(message))


def _read(file: MappedFile, call: Any, *args: Any, entry: str = "") -> Any:
    """The result of a call with address and size of the whole file."""
    import torch

    try:
        with reading(file.path, entry):
            return call(file.stored(0, (file.size,), torch.uint8).data_ptr(), file.size, *args)
    finally:
        file.drop()
