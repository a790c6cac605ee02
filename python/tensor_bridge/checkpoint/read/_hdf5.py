"""HDF5 files through h5py: names, types and places. The only file of the package that imports it.

h5py imports NumPy, which the package does without elsewhere. No array of NumPy's is made of a data
set here: one in one piece is mapped at its place in the file, of one in chunks the stored bytes are
read chunk by chunk and unpacked with zlib and torch.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from tensor_bridge._dtypes import DtypeRow
from tensor_bridge.checkpoint.read._elements import row_of
from tensor_bridge.checkpoint.read._entry import Entry, Extent
from tensor_bridge.checkpoint.read._mapped import MappedFile, damaged
from tensor_bridge.errors import FrameworkError, TensorBridgeError

if TYPE_CHECKING:
    import torch

__all__ = ["DataSet", "Hdf5File"]

_NAMES = {
    "f2": "float16",
    "f4": "float32",
    "f8": "float64",
    "i1": "int8",
    "i2": "int16",
    "i4": "int32",
    "i8": "int64",
    "u1": "uint8",
    "u2": "uint16",
    "u4": "uint32",
    "u8": "uint64",
    "b1": "bool",
    "c8": "complex64",
    "c16": "complex128",
}
_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
# Deflate makes at most 1032 bytes of one; what claims to be larger is no data that somebody stored.
_MAX_RATIO, _SMALL = 1032, 1 << 20


class _Window(io.RawIOBase):
    """A stretch of a mapped file as a file of its own, for h5py to read the structure from."""

    def __init__(self, file: MappedFile, begin: int, size: int) -> None:
        self._file, self._begin, self._size, self._at = file, begin, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        with self._file.piece(self._begin + self._at, count) as piece:
            buffer[:count] = piece
        self._at += count
        return count


def _text(stored: Any) -> str:
    """A name or a text of the file; h5py gives bytes for what is not UTF-8."""
    return stored.decode("utf-8", "surrogateescape") if isinstance(stored, bytes) else str(stored)


def _stored(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


class Hdf5File:
    """An HDF5 file that is a stretch of a mapped one.

    Attributes:
      file: The mapped file.
      begin: Where in it the HDF5 file begins.
      groups: Paths of the groups that `data_sets` came through.
    """

    def __init__(self, file: MappedFile, begin: int, size: int) -> None:
        """Opens it.

        Raises:
          FrameworkError: h5py is not installed.
          CheckpointError: HDF5 cannot read the file.
        """
        try:
            import h5py
        except ModuleNotFoundError as e:
            raise FrameworkError(
                "h5py is not installed; Keras' weight files need it. Install it: pip install h5py",
                name="h5py",
            ) from e
        self.file, self.begin = file, begin
        self.groups: list[str] = []
        try:
            self._h5 = h5py.File(_Window(file, begin, size), "r")
        except (OSError, ValueError, RuntimeError, KeyError) as e:
            raise damaged(file.path, f"expected an HDF5 file: {e}", offset=begin) from None
        self._dataset_class = h5py.Dataset

    def texts(self, path: str, attribute: str) -> list[str] | None:
        """An attribute of strings, in one piece or in Keras' numbered ones; None without one."""
        attributes = self._h5[_stored(path)].attrs
        if attribute in attributes:
            value = attributes[attribute]
        elif f"{attribute}0" in attributes:  # HDF5 holds no attribute beyond 64 KiB
            value = []
            while f"{attribute}{len(value)}" in attributes:
                value.append(attributes[f"{attribute}{len(value)}"])
            value = [text for part in value for text in part]
        else:
            return None
        items = [value] if isinstance(value, (str, bytes)) else list(value)
        return [_text(i) for i in items]

    def data_sets(self) -> Iterator[tuple[str, Any]]:
        """Path and h5py data set of each, in the order of their names; links are not followed."""
        found: list[tuple[str, Any]] = []

        def visit(path: str | bytes, item: Any) -> None:
            if isinstance(item, self._dataset_class):
                found.append((_text(path), item))
            else:
                self.groups.append(_text(path))

        try:
            self._h5.visititems(visit)
        except (OSError, ValueError, RuntimeError, KeyError) as e:
            raise damaged(self.file.path, f"expected groups and data sets: {e}") from None
        return iter(found)

    def has(self, path: str) -> bool:
        """Whether there is a group or data set at the path."""
        return self._h5.get(_stored(path)) is not None

    def entry(self, path: str, name: str, kind: str, data_set: Any, named: bool = True) -> DataSet:
        """The entry for a data set.

        Raises:
          CheckpointError: Its description is damaged.
        """
        try:
            code = str(data_set.dtype.str)
            # Keras stores what HDF5 lacks as plain integers and says so.
            label = data_set.attrs.get("dtype", "")
            shape = tuple(int(size) for size in data_set.shape or ())
            plain = data_set.external is None and not data_set.is_virtual
            offset = data_set.id.get_offset() if data_set.chunks is None and plain else None
            nbytes = int(data_set.id.get_storage_size())
        except (OSError, ValueError, RuntimeError, TypeError, KeyError) as e:
            raise damaged(self.file.path, f"expected a data set: {e}", entry=path) from None
        text = label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)
        row = row_of(text) if text else None
        row = row or row_of(_NAMES.get(code[1:], ""))
        return DataSet(
            name=name,
            kind=kind,
            key=path,
            dtype=row.name if row is not None else code,
            shape=shape,
            nbytes=nbytes,
            file=self.file.path,
            offset=-1 if offset is None else self.begin + int(offset),
            named=named,
            source=self,
            row=row,
            big_endian=code[0] == ">",
            plain=plain,
            data_set=data_set,
        )


# Equality and repr are those of Entry.
@dataclass(frozen=True, eq=False, repr=False)
class DataSet(Entry):
    """A data set."""

    source: Hdf5File
    row: DtypeRow | None
    big_endian: bool
    plain: bool
    data_set: Any

    def _checked(self) -> tuple[torch.dtype, int]:
        """The torch dtype, and how many bytes there must be."""
        import torch

        if self.row is None or self.row.kind != "shared":
            raise self.unsupported(f"torch has nothing for {self.dtype}")
        if not self.plain:
            raise damaged(
                self.file, "expected the data in this file, it is in others", entry=self.key
            )
        dtype: torch.dtype = getattr(torch, self.row.torch_name.removeprefix("torch."))
        return dtype, prod(self.shape) * self.row.itemsize

    def read(self, raw: bool) -> Any:
        import torch

        dtype, size = self._checked()
        if size == 0:
            return torch.empty(self.shape, dtype=dtype, device="cpu")
        if self.offset >= 0:
            self._check_place(size)
            if not self.big_endian or dtype.itemsize == 1:
                return self.source.file.tensor(self.offset, self.shape, dtype)
            stored = self.source.file.stored(self.offset, (size,), torch.uint8)
        elif self.data_set.chunks is None and self.nbytes:
            raise damaged(
                self.file,
                "expected data in one piece or in chunks, it is in the header of its data set",
                entry=self.key,
            )
        else:
            stored = self._chunks(size)
        if self.big_endian:
            part = dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
            stored = stored.view(-1, part).flip(1).reshape(-1)
        self.source.file.drop()
        return stored.view(dtype).view(self.shape)

    def _check_place(self, size: int) -> None:
        if self.nbytes != size:
            raise damaged(
                self.file,
                f"expected {size} bytes for the shape {self.shape}, got {self.nbytes}",
                entry=self.key,
                offset=self.offset,
            )
        self.source.file.check(self.offset, size, self.key)

    def _chunks(self, size: int) -> torch.Tensor:
        """The elements as bytes, unpacked."""
        import torch

        assert self.row is not None
        itemsize = self.row.itemsize
        if size > max(self.nbytes * _MAX_RATIO, _SMALL):
            raise damaged(
                self.file,
                f"expected data for the shape {self.shape}, got {self.nbytes} bytes",
                entry=self.key,
            )
        whole = torch.zeros((*self.shape, itemsize), dtype=torch.uint8, device="cpu")
        try:
            fill = self.data_set.fillvalue
            if fill is not None and any(fill.tobytes()):
                whole[...] = torch.frombuffer(bytearray(fill.tobytes()), dtype=torch.uint8)
            if self.nbytes == 0:
                return whole.reshape(-1)
            chunk_shape = tuple(int(n) for n in self.data_set.chunks)
            filters = self._filters()
            count = self.data_set.id.get_num_chunks()
            for number in range(count):
                info = self.data_set.id.get_chunk_info(number)
                place = tuple(int(n) for n in info.chunk_offset)
                mask, packed = self.data_set.id.read_direct_chunk(info.chunk_offset)
                chunk = self._unpack(packed, mask, filters, prod(chunk_shape) * itemsize)
                self._put(whole, chunk.view(*chunk_shape, itemsize), place)
        except (OSError, ValueError, RuntimeError, TypeError, zlib.error) as e:
            if hasattr(e, "entry"):  # our own, with its place
                raise
            raise damaged(self.file, f"expected chunks of data: {e}", entry=self.key) from None
        return whole.reshape(-1)

    def _put(self, whole: torch.Tensor, chunk: torch.Tensor, place: tuple[int, ...]) -> None:
        for axis, start in enumerate(place):
            length = min(chunk.shape[axis], whole.shape[axis] - start)
            if length <= 0:
                return
            whole = whole.narrow(axis, start, length)
            chunk = chunk.narrow(axis, 0, length)
        whole.copy_(chunk)

    def _filters(self) -> list[int]:
        plist = self.data_set.id.get_create_plist()
        codes = [int(plist.get_filter(i)[0]) for i in range(plist.get_nfilters())]
        unknown = set(codes) - {_DEFLATE, _SHUFFLE, _FLETCHER32}
        if unknown:
            raise damaged(
                self.file,
                f"expected chunks packed with deflate, shuffle or fletcher32, got filter "
                f"{min(unknown)}; repack the file with h5repack",
                entry=self.key,
            )
        return codes

    def _unpack(self, packed: bytes, mask: int, filters: list[int], size: int) -> torch.Tensor:
        import torch

        assert self.row is not None
        data: Any = packed
        for position, code in reversed(list(enumerate(filters))):
            if mask >> position & 1:
                continue
            if code == _FLETCHER32:
                data = self._checked_sum(data)
            elif code == _DEFLATE:
                # No more than belongs there, and the checksum that may follow.
                data = zlib.decompressobj().decompress(data, size + 4)
            elif len(data) >= self.row.itemsize:
                planes = torch.frombuffer(bytearray(data), dtype=torch.uint8)
                itemsize = self.row.itemsize
                usable = len(data) // itemsize * itemsize
                data = bytes_of(planes[:usable].view(itemsize, -1).t()) + data[usable:]
        if len(data) != size:
            raise damaged(
                self.file, f"expected a chunk of {size} bytes, got {len(data)}", entry=self.key
            )
        return torch.frombuffer(bytearray(data), dtype=torch.uint8)

    def _checked_sum(self, data: Any) -> Any:
        """What stands before the checksum of a chunk."""
        data, stored = data[:-4], int.from_bytes(data[-4:], "little")
        # Two sums modulo 65535, for which HDF5 writes 65535 or 0 alike.
        if len(data) and [half % 65535 for half in divmod(stored, 65536)] != fletcher32(data):
            raise damaged(
                self.file,
                f"expected a chunk with the Fletcher-32 checksum {stored:08x}, got another; the "
                "bytes are damaged",
                entry=self.key,
            )
        return data

    @property
    def has_checksum(self) -> bool:
        if not self.plain or self.data_set.chunks is None:
            return False
        try:
            return _FLETCHER32 in self._filters()
        except TensorBridgeError:  # packed in another way
            return False

    def problems(self) -> Iterator[Exception]:
        try:
            if self.has_checksum:
                self.read(False)
        except TensorBridgeError as e:
            yield e

    def extent(self) -> Extent | None:
        _, size = self._checked()
        if self.offset < 0 or self.big_endian or self.dtype == "bool" or size == 0:
            return None
        self._check_place(size)
        return Extent(self.source.file, self.offset, size)


def fletcher32(data: bytes) -> list[int]:
    """Second and first sum of Fletcher's checksum over big-endian words, as HDF5 forms it."""
    import torch

    padded = torch.frombuffer(bytearray(data + b"\0" * (len(data) % 2)), dtype=torch.uint8)
    pairs = padded.view(-1, 2).to(torch.int64)
    words = pairs[:, 0] * 256 + pairs[:, 1]
    # How often each word is in the second sum.
    times = torch.arange(len(words), 0, -1) % 65535
    return [int((words * times % 65535).sum()) % 65535, int(words.sum()) % 65535]


def bytes_of(x: torch.Tensor) -> bytes:
    """The elements of a uint8 tensor, row by row."""
    import torch

    out = bytearray(x.numel())
    torch.frombuffer(out, dtype=torch.uint8).view(x.shape).copy_(x)
    return bytes(out)
