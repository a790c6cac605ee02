"""TensorFlow's checkpoints: an index file, which C++ reads, and mapped data files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C
from tensor_bridge._dtypes import DtypeRow, row_of
from tensor_bridge._stored_dtypes import decoder_of, stored_dtype
from tensor_bridge.checkpoint.read import _crc
from tensor_bridge.checkpoint.read._damage import damaged, reading
from tensor_bridge.checkpoint.read._elements import known_row
from tensor_bridge.checkpoint.read._entry import Entry, Extent
from tensor_bridge.checkpoint.read._files import read_small
from tensor_bridge.checkpoint.read._mapped import MappedFile
from tensor_bridge.checkpoint.read._names import GRAPH_KEY, Stored, names_of, slice_key
from tensor_bridge.checkpoint.read._one_save import (
    MARK_SIZE,
    digest_of_entries,
    digest_of_index,
    mark_of_data,
)
from tensor_bridge.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    TensorBridgeError,
    UnsupportedDtypeError,
)

if TYPE_CHECKING:
    import torch

    from tensor_bridge.checkpoint.read._slices import Place
    from tensor_bridge.composite import StringTensor

# TensorFlow's own index files are far smaller. Reading an index takes a multiple of its size.
_MAX_INDEX = 1 << 30
_STRING = 7  # DataType.DT_STRING


class Bundle:
    """A checkpoint with the given prefix.

    Attributes:
      prefix: The common beginning of its files' names.
      entries: In ascending order of their keys.
    """

    format = "bundle"

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        index = prefix + ".index"
        self._bytes = read_small(index, _MAX_INDEX)
        with reading(index):
            shards, records, self._blocks = _C.bundle_index(self._bytes)
            _check_apart(index, records)
            self._files = _Files(prefix, index, shards, self._bytes)
            if shards == 1:
                # Only the first data file is opened now, because `save` writes one. Others are
                # opened when they are needed; a missing file is reported then.
                with suppress(CheckpointNotFoundError):
                    self._files.mapped(0)
            self._add(records)

    def _add(self, records: list[Any]) -> None:
        # Slices of partitioned variables; no readable key begins like theirs.
        slices_by_key = {record[0]: record for record in records if record[0][:1] == b"\0"}
        whole = [(_text(record[0]), record) for record in records if record[0][:1] != b"\0"]
        names = names_of(
            {key: _stored(record) for key, record in whole}, self._graph(dict(whole).get(GRAPH_KEY))
        )
        self.entries: list[Entry] = []
        for key, (_, dtype, shape, shard, offset, size, crc, slices) in whole:
            row = row_of(dtype)
            pieces = tuple(
                self._slice(slices_by_key, key, row, shape, extents) for extents in slices
            )
            self.entries.append(
                BundleEntry(
                    name=names[key].name,
                    kind=names[key].kind,
                    key=key,
                    dtype=row.name if row is not None else f"number {dtype}",
                    shape=shape,
                    nbytes=sum(piece.nbytes for piece in pieces) if slices else size,
                    file=self._files.path(shard),
                    offset=-1 if slices else offset,
                    files=self._files,
                    shard=shard,
                    row=row,
                    crc=crc,
                    pieces=pieces,
                )
            )

    def _graph(self, record: Any) -> bytes:
        """The object graph; empty if there is none, or if it cannot be read."""
        if record is None or record[1] != _STRING or record[2] != () or record[7]:
            return b""
        from tensor_bridge.checkpoint.read._object_graph import one_string

        _, _, _, shard, offset, size, *_ = record
        try:
            file = self._files.mapped(shard)
            file.check(offset, size, GRAPH_KEY)
            return one_string(bytes(file.content(offset, size)))
        except TensorBridgeError:  # reported when an entry is read
            return b""

    def _slice(
        self,
        slices_by_key: dict[bytes, Any],
        key: str,
        row: DtypeRow | None,
        shape: tuple[int, ...],
        extents: tuple[int, ...],
    ) -> BundleSlice:
        from tensor_bridge.checkpoint.read._slices import place_of, shape_of

        place, index = place_of(extents, shape), self._files.index
        # Each slice is used once: a few bytes could name the same slice a million times.
        record = slices_by_key.pop(slice_key(key.encode("utf-8", "surrogateescape"), extents), None)
        if record is None:
            raise damaged(
                index, f"expected a slice of its own at {place}, there is none", entry=key
            )
        _, dtype, own_shape, shard, offset, size, crc, nested = record
        if own_shape != shape_of(place) or row_of(dtype) is not row or nested:
            raise damaged(
                index,
                f"expected a slice of shape {shape_of(place)} like its variable, got "
                f"shape {own_shape} of dtype number {dtype}",
                entry=key,
            )
        return BundleSlice(
            name=key,
            kind="slice",
            key=key,
            dtype=row.name if row is not None else f"number {dtype}",
            shape=own_shape,
            nbytes=size,
            file=self._files.path(shard),
            offset=offset,
            files=self._files,
            shard=shard,
            row=row,
            crc=crc,
            pieces=(),
            place=place,
        )

    def problems(self) -> Iterator[CheckpointError]:
        """Damage that the checksums of the index show."""
        crc = _crc.crc_function()
        for offset, size, stored in self._blocks:
            found = _crc.mask(crc(self._bytes[offset : offset + size], 0))
            if found != stored:
                yield damaged(self._files.index, _crc.mismatch(stored, found), offset=offset)


class _Files:
    """The data files of a bundle. Entries refer to it; it does not refer to them.

    Attributes:
      index: The name of the index.
    """

    def __init__(self, prefix: str, index: str, shards: int, content: bytes) -> None:
        self.index = index
        self._prefix, self._shards, self._content = prefix, shards, content
        self._save = digest_of_index(content)
        self._mapped: dict[int, MappedFile] = {}

    def path(self, shard: int) -> str:
        """The data file of that number."""
        return f"{self._prefix}.data-{shard:05d}-of-{self._shards:05d}"

    def mapped(self, shard: int) -> MappedFile:
        """The data file, mapped once."""
        if shard not in self._mapped:
            file = MappedFile(self.path(shard))
            self._check_same_save(file, shard)
            self._mapped[shard] = file
        return self._mapped[shard]

    def _check_same_save(self, file: MappedFile, shard: int) -> None:
        mark = mark_of_data(file.head(MARK_SIZE))
        expected = self._save
        if expected is None and mark is not None and mark.size == file.size:
            # A data file of `save` with TensorFlow's index: TensorFlow may have merged checkpoints.
            records = _C.bundle_index(self._content)[1]
            expected = digest_of_entries((*r[:3], *r[4:7]) for r in records if r[3] == shard)
        if expected is not None and (mark is None or mark.digest != expected):
            raise damaged(
                self.index,
                f"expected {file.path} to be of the same save, it is of another one; a writer may "
                "be at work, or was ended between the two: load again, or save again",
            )


def _check_apart(index: str, records: list[Any]) -> None:
    """Refuses entries that share bytes, as TensorFlow's never do.

    So all entries together are no larger than the data files. Otherwise an index of 1 MB could
    claim gigabytes of a small file by 20,000 slices of the same bytes.
    """
    # (key, dtype, shape, shard, offset, size, crc, slices)
    places = sorted((r[3], r[4], r[5], r[0]) for r in records if r[5] and not r[7])
    for (shard, begin, size, key), (other_shard, other, _, other_key) in pairwise(places):
        if shard == other_shard and begin + size > other:
            raise damaged(
                index,
                f"expected entries that share no bytes, got {_text(key)!r} of {size} bytes at "
                f"{begin} of data file {shard}, and this one at {other}",
                entry=_text(other_key),
            )


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def _stored(record: Any) -> Stored:
    _, dtype, shape, _, _, size, crc, slices = record
    return Stored(shape, None if slices else (dtype, size, crc))


class BundleEntry(Entry):
    """An entry of a bundle.

    It is not a dataclass: generating a dataclass's methods takes longer than the rest of this
    module's work in a process's first `load`.
    """

    files: _Files
    shard: int
    row: DtypeRow | None
    crc: int
    pieces: tuple[BundleSlice, ...]

    def __init__(
        self,
        *,
        files: _Files,
        shard: int,
        row: DtypeRow | None,
        crc: int,
        pieces: tuple[BundleSlice, ...] = (),
        **entry: Any,
    ) -> None:
        super().__init__(**entry)
        # Bypasses the frozen class, which refuses to set attributes.
        self.__dict__.update(files=files, shard=shard, row=row, crc=crc, pieces=pieces)

    def _checked_file(self) -> MappedFile:
        file = self.files.mapped(self.shard)
        file.check(self.offset, self.nbytes, self.key)
        return file

    def _read(self, raw: bool) -> Any:
        row = known_row(self)
        if row.name == "string":
            return self._strings()
        try:
            dtype, decode = stored_dtype(row, raw), decoder_of(row, raw)
        except UnsupportedDtypeError as e:
            raise self.unsupported(str(e)) from None
        if self.pieces:
            x = self._joined(dtype)
            return x if decode is None else decode(self.shape, [x])
        file = self._checked_file()
        if decode is None:
            return file.tensor(self.offset, self.shape, dtype)
        return decode(self.shape, file.parts(self.offset, self.nbytes))

    def _joined(self, dtype: torch.dtype) -> torch.Tensor:
        from tensor_bridge.checkpoint.read._slices import Piece, join

        return join(
            self.shape,
            dtype,
            [Piece(piece.place, piece.copier(dtype)) for piece in self.pieces],
            lambda message: damaged(self.files.index, message, entry=self.key),
        )

    def _strings(self) -> StringTensor:
        import torch

        # Not at the top: it imports every kind of composite value, 20 ms of the first `load`.
        from tensor_bridge.composite import StringTensor

        if self.pieces:
            raise self.unsupported("a partitioned variable of strings")
        data = self._checked_file().bytes(self.offset, self.nbytes)
        offsets, begin = self._string_offsets(data)
        return StringTensor(data[begin:], offsets, torch.Size(self.shape))

    def _string_offsets(self, data: torch.Tensor) -> tuple[torch.Tensor, int]:
        """The strings' offsets, counted from the first string, and the first string's position."""
        import torch

        count = prod(self.shape)
        if count > self.nbytes:
            raise self.damaged(
                f"expected {self.nbytes} bytes to hold {count} strings, they cannot",
                offset=self.offset,
            )
        offsets = torch.zeros(count + 1, dtype=torch.int64, device="cpu")
        if self.nbytes == 0:  # TensorFlow may write no bytes for a tensor without elements
            return offsets, 0
        with reading(self.file, self.key, self.offset):
            begin = _C.bundle_strings(data.data_ptr(), self.nbytes, count, offsets.data_ptr())
        return offsets, begin

    def _extent(self) -> Extent | None:
        row = known_row(self)
        if self.pieces or row.kind != "shared" or row.name in ("string", "bool"):
            return None
        return Extent(self._checked_file(), self.offset, self.nbytes)

    @property
    def has_checksum(self) -> bool:
        return True

    def _problems(self) -> Iterator[Exception]:
        if self.pieces:
            for piece in self.pieces:
                yield from piece.problems()
            return
        found = _crc.mask(self._crc())
        if found != self.crc:
            yield self.damaged(_crc.mismatch(self.crc, found), offset=self.offset)

    def _crc(self) -> int:
        crc = _crc.crc_function()
        file = self._checked_file()
        value, begin = 0, 0
        if self.row is not None and self.row.name == "string" and self.nbytes:
            # The checksum covers the lengths as integers of 4 bytes, or 8 if needed, not in their
            # stored form.
            offsets, begin = self._string_offsets(file.copied(self.offset, self.nbytes))
            begin -= 4
            lengths = (offsets[1:] - offsets[:-1]).tolist()
            sizes = b"".join(n.to_bytes(4 if n < 1 << 32 else 8, "little") for n in lengths)
            value = crc(sizes, 0)
        return _crc.crc_of(file, self.offset + begin, self.nbytes - begin, value)


class BundleSlice(BundleEntry):
    """A slice of a partitioned variable."""

    place: Place

    def __init__(self, *, place: Place, **entry: Any) -> None:
        super().__init__(**entry)
        self.__dict__.update(place=place)

    def copier(self, dtype: torch.dtype) -> Callable[[torch.Tensor], None]:
        """The function that writes the bytes; the caller has checked that the file holds them."""
        file = self._checked_file()
        return lambda into: file.copy_into(into, self.offset)
