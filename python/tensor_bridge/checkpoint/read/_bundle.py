"""TensorFlow's checkpoints: an index file, which C++ reads, and mapped data files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C
from tensor_bridge._dtypes import DtypeRow
from tensor_bridge.checkpoint.read import _crc
from tensor_bridge.checkpoint.read._elements import decoder_of, row_of, stored_dtype
from tensor_bridge.checkpoint.read._entry import Entry, Extent
from tensor_bridge.checkpoint.read._mapped import MappedFile, damaged
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

__all__ = ["Bundle"]

# TensorFlow's own index files stay far below; reading one takes a multiple of its size.
_MAX_INDEX = 1 << 30
_STRING = 7  # DataType.DT_STRING


class Bundle:
    """A checkpoint with the given prefix.

    Attributes:
      prefix: What all of its files begin with.
      entries: In ascending order of their keys.
    """

    format = "bundle"

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.index = prefix + ".index"
        try:
            if Path(self.index).stat().st_size > _MAX_INDEX:
                raise damaged(self.index, f"expected an index of at most {_MAX_INDEX} bytes")
            self._bytes = Path(self.index).read_bytes()
        except FileNotFoundError:
            raise CheckpointNotFoundError(f"{self.index}: no such file") from None
        try:
            shards, records, self._blocks = _C.bundle_index(self._bytes)
        except CheckpointError as e:
            raise damaged(self.index, str(e), entry=e.entry, offset=e.offset) from None
        self._shards = shards
        self._files: dict[int, MappedFile] = {}
        self._save = digest_of_index(self._bytes)
        if shards == 1:
            # Others are looked at when they are needed: `save` writes one data file. That it cannot
            # be opened is told then too.
            with suppress(OSError):
                self.mapped(0)
        # Slices of partitioned variables, whose keys no text begins like.
        self._slices = {record[0]: record for record in records if record[0][:1] == b"\0"}
        whole = [(_text(record[0]), record) for record in records if record[0][:1] != b"\0"]
        names = names_of(
            {key: _stored(record) for key, record in whole}, self._graph(dict(whole).get(GRAPH_KEY))
        )
        self.entries: list[Entry] = []
        for key, (_, dtype, shape, shard, offset, size, crc, slices) in whole:
            row = row_of(dtype)
            pieces = tuple(self._slice(key, row, shape, extents) for extents in slices)
            self.entries.append(
                BundleEntry(
                    name=names[key].name,
                    kind=names[key].kind,
                    key=key,
                    dtype=row.name if row is not None else f"number {dtype}",
                    shape=shape,
                    nbytes=sum(piece.nbytes for piece in pieces) if slices else size,
                    file=self.shard_path(shard),
                    offset=-1 if slices else offset,
                    bundle=self,
                    shard=shard,
                    row=row,
                    crc=crc,
                    pieces=pieces,
                )
            )

    def _graph(self, record: Any) -> bytes:
        """The object graph; nothing where there is none, or none that can be read."""
        if record is None or record[1] != _STRING or record[2] != () or record[7]:
            return b""
        from tensor_bridge.checkpoint.read._object_graph import one_string

        _, _, _, shard, offset, size, *_ = record
        try:
            file = self.mapped(shard)
            file.check(offset, size, GRAPH_KEY)
        except TensorBridgeError:  # it is told by what reads an entry
            return b""
        with file.piece(offset, size) as piece:
            return one_string(bytes(piece))

    def _slice(
        self, key: str, row: DtypeRow | None, shape: tuple[int, ...], extents: tuple[int, ...]
    ) -> BundleSlice:
        from tensor_bridge.checkpoint.read._slices import place_of, shape_of

        place = place_of(extents, shape)
        record = self._slices.get(slice_key(key.encode("utf-8", "surrogateescape"), extents))
        if record is None:
            raise damaged(self.index, f"expected a slice at {place}, there is none", entry=key)
        _, dtype, own_shape, shard, offset, size, crc, nested = record
        if own_shape != shape_of(place) or row_of(dtype) is not row or nested:
            raise damaged(
                self.index,
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
            file=self.shard_path(shard),
            offset=offset,
            bundle=self,
            shard=shard,
            row=row,
            crc=crc,
            pieces=(),
            place=place,
        )

    def shard_path(self, shard: int) -> str:
        """The data file of that number."""
        return f"{self.prefix}.data-{shard:05d}-of-{self._shards:05d}"

    def mapped(self, shard: int) -> MappedFile:
        """The data file, mapped once."""
        if shard not in self._files:
            file = MappedFile(self.shard_path(shard))
            self._check_same_save(file, shard)
            self._files[shard] = file
        return self._files[shard]

    def _check_same_save(self, file: MappedFile, shard: int) -> None:
        mark = mark_of_data(file.head(MARK_SIZE))
        expected = self._save
        if expected is None and mark is not None and mark.size == file.size:
            # A data file of `save` under an index of TensorFlow, which may have merged it.
            records = _C.bundle_index(self._bytes)[1]
            expected = digest_of_entries((*r[:3], *r[4:7]) for r in records if r[3] == shard)
        if expected is not None and (mark is None or mark.digest != expected):
            raise damaged(
                self.index,
                f"expected {file.path} to be of the same save, it is of another one; a writer may "
                "be at work, or was ended between the two: load again, or save again",
            )

    def problems(self) -> Iterator[CheckpointError]:
        """What the checksums of the index say."""
        crc = _crc.crc_function()
        for offset, size, stored in self._blocks:
            found = _crc.mask(crc(self._bytes[offset : offset + size], 0))
            if found != stored:
                yield damaged(self.index, _crc.mismatch(stored, found), offset=offset)


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def _stored(record: Any) -> Stored:
    _, dtype, shape, _, _, size, crc, slices = record
    return Stored(shape, None if slices else (dtype, size, crc))


class BundleEntry(Entry):
    """An entry of a bundle.

    No dataclass itself: writing the methods of one takes longer than all else that the first `load`
    of a process does here.
    """

    bundle: Bundle
    shard: int
    row: DtypeRow | None
    crc: int
    pieces: tuple[BundleSlice, ...]

    def __init__(
        self,
        *,
        bundle: Bundle,
        shard: int,
        row: DtypeRow | None,
        crc: int,
        pieces: tuple[BundleSlice, ...] = (),
        **entry: Any,
    ) -> None:
        super().__init__(**entry)
        # Past the frozen class's refusal to set anything.
        self.__dict__.update(bundle=bundle, shard=shard, row=row, crc=crc, pieces=pieces)

    def _known_row(self) -> DtypeRow:
        if self.row is None:
            raise self.unsupported(f"no TensorFlow up to 2.21 has a dtype of {self.dtype}")
        return self.row

    def _checked_file(self) -> MappedFile:
        file = self.bundle.mapped(self.shard)
        file.check(self.offset, self.nbytes, self.key)
        return file

    def read(self, raw: bool) -> Any:
        row = self._known_row()
        if row.name == "string":
            return self._strings()
        try:
            dtype, decode = stored_dtype(row, raw), decoder_of(row, raw)
        except UnsupportedDtypeError as e:
            raise self.unsupported(str(e)) from None
        if self.pieces:
            x = self._joined(dtype)
            return x if decode is None else decode(x)
        file = self._checked_file()
        if decode is None:
            return file.tensor(self.offset, self.shape, dtype)
        x = decode(file.stored(self.offset, self.shape, dtype))
        file.drop()
        return x

    def _joined(self, dtype: torch.dtype) -> torch.Tensor:
        from tensor_bridge.checkpoint.read._slices import Piece, join

        return join(
            self.shape,
            dtype,
            [Piece(piece.place, piece.copier(dtype)) for piece in self.pieces],
            lambda message: damaged(self.bundle.index, message, entry=self.key),
        )

    def _strings(self) -> StringTensor:
        import torch

        # Not above: it brings every kind of composite value, 20 ms of the first `load`.
        from tensor_bridge.composite import StringTensor

        if self.pieces:
            raise self.unsupported("a partitioned variable of strings")
        count = prod(self.shape)
        data, offsets, begin = self._string_offsets(count)
        return StringTensor(data[begin:], offsets, torch.Size(self.shape))

    def _string_offsets(self, count: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        import torch

        file = self._checked_file()
        if count > self.nbytes:
            raise damaged(
                self.file,
                f"expected {self.nbytes} bytes to hold {count} strings, they cannot",
                entry=self.key,
                offset=self.offset,
            )
        data = file.bytes(self.offset, self.nbytes)
        offsets = torch.zeros(count + 1, dtype=torch.int64, device="cpu")
        if self.nbytes == 0:  # of a tensor without elements TensorFlow may write no bytes
            return data, offsets, 0
        try:
            begin = _C.bundle_strings(data.data_ptr(), self.nbytes, count, offsets.data_ptr())
        except CheckpointError as e:
            raise damaged(
                self.file, str(e), entry=self.key, offset=self.offset + max(e.offset, 0)
            ) from None
        return data, offsets, begin

    def extent(self) -> Extent | None:
        row = self._known_row()
        if self.pieces or row.kind != "shared" or row.name in ("string", "bool"):
            return None
        return Extent(self._checked_file(), self.offset, self.nbytes)

    @property
    def has_checksum(self) -> bool:
        return True

    def problems(self) -> Iterator[Exception]:
        if self.pieces:
            for piece in self.pieces:
                yield from piece.problems()
            return
        try:
            found = _crc.mask(self._crc())
        except TensorBridgeError as e:
            yield e
            return
        if found != self.crc:
            yield damaged(
                self.file, _crc.mismatch(self.crc, found), entry=self.key, offset=self.offset
            )

    def _crc(self) -> int:
        crc = _crc.crc_function()
        file = self._checked_file()
        value, begin = 0, 0
        if self.row is not None and self.row.name == "string" and self.nbytes:
            # Of the lengths as integers of 4 bytes, or 8 where one needs them, not as they are
            # stored.
            _, offsets, begin = self._string_offsets(prod(self.shape))
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
        """What writes the bytes, which are known to be in the file."""
        import torch

        file = self._checked_file()

        def copy(into: torch.Tensor) -> None:
            # As bytes, which are at home at any address.
            into.copy_(file.stored(self.offset, (*self.shape, dtype.itemsize), torch.uint8))
            file.drop()

        return copy
