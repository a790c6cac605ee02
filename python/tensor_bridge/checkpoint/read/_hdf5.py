"""HDF5 files through h5py: names, types and places. The only file of the package that imports it.

h5py imports NumPy, which the rest of the package does not use. No data set becomes a NumPy array
here: a data set in one piece is mapped at its place in the file; a data set in chunks is read chunk
by chunk, and unpacked with zlib and torch.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from tensor_bridge._dtypes import DtypeRow, named, row_of
from tensor_bridge.checkpoint.read._damage import damaged, reading
from tensor_bridge.checkpoint.read._entry import Entry, Extent
from tensor_bridge.checkpoint.read._files import HDF5_MAGIC
from tensor_bridge.checkpoint.read._hdf5_heaps import Heaps
from tensor_bridge.checkpoint.read._mapped import MappedFile
from tensor_bridge.errors import FrameworkError, TensorBridgeError

if TYPE_CHECKING:
    import torch

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
# Deflate makes at most 1032 bytes of one; a larger claim cannot be stored data.
_MAX_RATIO, _SMALL = 1032, 1 << 20
# A link takes more bytes than that, and no group in a file of Keras is deeper: a layer in a model
# in a model is at depth four. Lists of links may be shared, so a small file could describe the same
# groups any number of times, and h5py needs the square of the depth to visit them.
_BYTES_PER_LINK, _MAX_DEPTH = 8, 200
_TEXT_PER_BYTE = 16
_MAX_READ = 64 << 20


class Window(io.RawIOBase):
    """A range of a mapped file as a file object, from which h5py reads the structure.

    With ``heaps`` the range is HDF5, and its heaps are checked.
    """

    def __init__(self, file: MappedFile, begin: int, size: int, heaps: Heaps | None = None) -> None:
        super().__init__()
        self._file, self._begin, self._size, self._at = file, begin, size, 0
        self._heaps = heaps

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        at = offset + (0, self._at, self._size)[whence]
        if at < 0:
            raise OSError(f"expected a place in the file, got {at}")
        self._at = at
        return at

    def read(self, count: int | None = -1) -> bytes:
        left = max(0, self._size - self._at)
        count = left if count is None or count < 0 else min(count, left)
        if count > _MAX_READ:  # no structure that we read is so large
            raise OSError(f"expected a part of at most {_MAX_READ} bytes, got {count}")
        return super().read(count) or b""

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        with memoryview(buffer)[:count] as view:
            self._file.read_into(view, self._begin + self._at)
            if self._heaps is not None:
                self._look_at(bytes(view), self._heaps)
        self._at += count
        return count

    def _look_at(self, read: bytes, heaps: Heaps) -> None:
        """Refuses a heap in which HDF5 would loop forever.

        HDF5 1.14.6 skips free space in a heap by its stored size, which may be 0 (H5HGcache.c,
        H5HG__cache_heap_deserialize), and cannot be interrupted.
        """
        at = -1
        while (at := read.find(b"GCOL\1", at + 1)) >= 0:
            if self._at + at + 16 <= self._size:
                heaps.heap(self._at + at)


def _text(stored: Any) -> str:
    """A name or a text of the file; h5py returns bytes if it is not UTF-8."""
    return stored.decode("utf-8", "surrogateescape") if isinstance(stored, bytes) else str(stored)


def _stored(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


class Hdf5File:
    """An HDF5 file that is a range of a mapped file.

    Attributes:
      file: The mapped file.
      begin: Where in it the HDF5 file begins.
      groups: Paths of the groups.
      data_sets: Path and h5py data set of each, in the order of their names. Links that are not
        hard are not followed: they may lead to any file.
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
        self.data_sets: list[tuple[str, Any]] = []
        # What lists of links, names and data sets may still use, limited by the size of the file.
        self._size = self._data_left = size
        self._links_left, self._text_left = size // _BYTES_PER_LINK, _TEXT_PER_BYTE * size
        head = file.content(begin, min(size, 16))
        # HDF5 also searches for it elsewhere, and allows addresses and lengths of other sizes.
        sizes = head[13:15] if head[8:9] < b"\2" else head[9:11]
        if head[:8] != HDF5_MAGIC or sizes != b"\x08\x08":
            raise damaged(
                file.path, "expected HDF5 with addresses and lengths of 8 bytes", offset=begin
            )
        self._heaps = Heaps(file, begin, size)
        self._texts: dict[tuple[str, str], list[str] | None] = {}
        with reading(file.path, begin=begin, expected="an HDF5 file"):
            self._h5 = h5py.File(Window(file, begin, size, self._heaps), "r")
            self._walk()
        self._paths = {"", *self.groups, *(path for path, _ in self.data_sets)}

    def _walk(self) -> None:
        """Finds groups and data sets, each once, in the order in which h5py visits them."""
        import h5py

        met: set[int] = set()
        waiting = [("", self._h5.id, b"/")]
        while waiting:
            path, outer, name = waiting.pop()
            item = h5py.h5o.open(outer, name)
            address = h5py.h5o.get_info(item).addr
            if address in met:
                continue
            met.add(address)
            if isinstance(item, h5py.h5d.DatasetID):
                self.data_sets.append((path, h5py.Dataset(item)))
            elif isinstance(item, h5py.h5g.GroupID):
                if path:
                    self.groups.append(path)
                waiting += [
                    (f"{path}/{_text(link)}".lstrip("/"), item, link)
                    for link in reversed(self._links(path, item))
                ]

    def _links(self, path: str, group: Any) -> list[bytes]:
        """The names of the hard links in a group."""
        import h5py

        found: list[bytes] = []

        def add(name: bytes, info: Any) -> None:
            self._links_left -= 1
            self._text_left -= len(path) + len(name)
            if self._links_left < 0 or self._text_left < 0:
                raise damaged(
                    self.file.path,
                    f"expected groups that {self._size} bytes can describe once, got more",
                    entry=path,
                )
            if info.type == h5py.h5l.TYPE_HARD:
                found.append(name)

        group.links.iterate(add, info=True)
        if found and path.count("/") >= _MAX_DEPTH:
            raise damaged(
                self.file.path, f"expected groups at most {_MAX_DEPTH} deep, got more", entry=path
            )
        return found

    def texts(self, path: str, attribute: str) -> list[str] | None:
        """An attribute of strings, in one piece or in Keras' numbered ones; None without one."""
        place = plain_path(path)
        if place not in self._paths:
            return None
        if (place, attribute) not in self._texts:
            with reading(self.file.path, place, expected="attributes"):
                self._texts[place, attribute] = self._read_texts(place, attribute)
        return self._texts[place, attribute]

    def _read_texts(self, place: str, attribute: str) -> list[str] | None:
        item = self._h5[_stored(place) or b"/"]
        if attribute in item.attrs:
            return self._value(item, attribute)
        count, texts = 0, []
        while f"{attribute}{count}" in item.attrs:  # HDF5 stores no attribute above 64 KiB
            texts += self._value(item, f"{attribute}{count}") or []
            count += 1
        return texts if count else None

    def _value(self, item: Any, name: str) -> list[str] | None:
        import h5py

        found = item.attrs.get_id(name)
        kind, shape = found.get_type(), found.shape
        # A number, or a damaged type, for which h5py 3.14 ends the process.
        if kind.get_class() != h5py.h5t.STRING:
            return None
        if shape is None or found.get_space().get_simple_extent_type() == h5py.h5s.NULL:
            return None
        if kind.is_variable_str():
            address = h5py.h5o.get_info(item.id).addr
            stored = self._heaps.texts(address, _stored(name), prod(shape))
        else:
            self._heaps.charge("texts", kind.get_size() * prod(shape))
            value = item.attrs[name]
            stored = value.ravel().tolist() if shape else [value]
        return [_text(text) for text in stored]

    def has(self, path: str) -> bool:
        """Whether there is a group or data set at the path."""
        return plain_path(path) in self._paths

    def entry(self, path: str, name: str, kind: str, data_set: Any, named: bool = True) -> DataSet:
        """The entry for a data set.

        Raises:
          CheckpointError: Its description is damaged.
        """
        with reading(self.file.path, path, expected="a data set"):
            # Checked before the shape, because HDF5 opens the named files to find the shape.
            if data_set.is_virtual:
                raise damaged(
                    self.file.path, "expected the data in this file, it is in others", entry=path
                )
            code = str(data_set.dtype.str)
            shape = tuple(int(size) for size in data_set.shape or ())
            plain = data_set.external is None
            offset = data_set.id.get_offset() if data_set.chunks is None and plain else None
            nbytes = int(data_set.id.get_storage_size())
        self._data_left -= nbytes if plain else 0
        if self._data_left < 0:
            raise damaged(
                self.file.path,
                f"expected data sets that share no bytes, got more than {self._size} in all",
                entry=path,
            )
        # Keras stores dtypes that HDF5 lacks as plain integers, with a note.
        label = (self.texts(path, "dtype") or [""])[0]
        row = row_of(label) if label and code[1:] in _NAMES else None
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
        if self.row is None or self.row.kind != "shared":
            raise self.unsupported(f"torch has nothing for {self.dtype}")
        if not self.plain:
            raise self.damaged("expected the data in this file, it is in others")
        return named(self.row.torch_name), prod(self.shape) * self.row.itemsize

    def _read(self, raw: bool) -> Any:
        import torch

        dtype, size = self._checked()
        if size == 0:
            return torch.empty(self.shape, dtype=dtype, device="cpu")
        if self.offset >= 0:
            self._check_place(size)
            if not self.big_endian or dtype.itemsize == 1:
                return self.source.file.tensor(self.offset, self.shape, dtype)
            stored = self.source.file.copied(self.offset, size)
        elif self.data_set.chunks is None and self.nbytes:
            raise self.damaged(
                "expected data in one piece or in chunks, it is in the header of its data set"
            )
        else:
            stored = self._chunks(size)
        if self.big_endian:
            part = dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
            stored = stored.view(-1, part).flip(1).reshape(-1)
        if dtype == torch.bool:
            stored = stored.clamp_(max=1)  # any byte is a bool in a file
        return stored.view(dtype).view(self.shape)

    def _check_place(self, size: int) -> None:
        if self.nbytes != size:
            raise self.damaged(
                f"expected {size} bytes for the shape {self.shape}, got {self.nbytes}",
                offset=self.offset,
            )
        self.source.file.check(self.offset, size, self.key)

    def _chunks(self, size: int) -> torch.Tensor:
        """The elements as bytes, unpacked."""
        import torch

        assert self.row is not None
        itemsize = self.row.itemsize
        if size > max(self.nbytes * _MAX_RATIO, _SMALL):
            raise self.damaged(f"expected data for the shape {self.shape}, got {self.nbytes} bytes")
        whole = torch.zeros((*self.shape, itemsize), dtype=torch.uint8, device="cpu")
        with reading(self.file, self.key, expected="chunks of data"):
            # Only if it is needed: HDF5 1.14.6 ends the process if it is damaged.
            fill = None if self._is_full() else self.data_set.fillvalue
            if fill is not None and any(fill.tobytes()):
                whole[...] = torch.frombuffer(bytearray(fill.tobytes()), dtype=torch.uint8)
            if self.nbytes:
                self._fill(whole, tuple(int(n) for n in self.data_set.chunks), itemsize)
        return whole.reshape(-1)

    def _is_full(self) -> bool:
        """Whether the chunks cover the whole, so no element has the fill value."""
        if not self.nbytes:
            return False
        sizes = zip(self.shape, self.data_set.chunks, strict=True)
        return bool(
            self.data_set.id.get_num_chunks() == prod(-(-size // int(n)) for size, n in sizes)
        )

    def _fill(self, whole: torch.Tensor, chunk_shape: tuple[int, ...], itemsize: int) -> None:
        """Puts every chunk into its place."""
        filters, size = self._filters(), prod(chunk_shape) * itemsize
        places: set[tuple[int, ...]] = set()
        if size > max(self.nbytes * _MAX_RATIO, _SMALL):
            raise ValueError(f"chunks of {size} bytes in {self.nbytes}")
        for number in range(self.data_set.id.get_num_chunks()):
            info = self.data_set.id.get_chunk_info(number)
            place = tuple(int(n) for n in info.chunk_offset)
            inside = all(start < length for start, length in zip(place, self.shape, strict=True))
            if place in places or not inside or info.size > self.nbytes:
                raise ValueError(f"a chunk of {info.size} bytes at {place}")
            places.add(place)
            # Not with read_direct_chunk of h5py 3.14: without filters it allocates the size of a
            # chunk in memory, and HDF5 1.14.6 writes as much as the file claims.
            offset = self.source.begin + int(info.byte_offset)
            self.source.file.check(offset, int(info.size), self.key)
            packed = bytes(self.source.file.content(offset, int(info.size)))
            chunk = self._unpack(packed, int(info.filter_mask), filters, size)
            self._put(whole, chunk.view(*chunk_shape, itemsize), place)

    def _put(self, whole: torch.Tensor, chunk: torch.Tensor, place: tuple[int, ...]) -> None:
        for axis, start in enumerate(place):
            length = min(chunk.shape[axis], whole.shape[axis] - start)
            whole = whole.narrow(axis, start, length)
            chunk = chunk.narrow(axis, 0, length)
        whole.copy_(chunk)

    def _filters(self) -> list[int]:
        plist = self.data_set.id.get_create_plist()
        codes = [int(plist.get_filter(i)[0]) for i in range(plist.get_nfilters())]
        unknown = set(codes) - {_DEFLATE, _SHUFFLE, _FLETCHER32}
        if unknown:
            raise self.damaged(
                f"expected chunks packed with deflate, shuffle or fletcher32, got filter "
                f"{min(unknown)}; repack the file with h5repack"
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
                # At most the expected size, and the checksum that may follow.
                data = zlib.decompressobj().decompress(data, size + 4)
            elif len(data) >= self.row.itemsize:
                planes = torch.frombuffer(bytearray(data), dtype=torch.uint8)
                itemsize = self.row.itemsize
                usable = len(data) // itemsize * itemsize
                data = bytes_of(planes[:usable].view(itemsize, -1).t()) + data[usable:]
        if len(data) != size:
            raise self.damaged(f"expected a chunk of {size} bytes, got {len(data)}")
        return torch.frombuffer(bytearray(data), dtype=torch.uint8)

    def _checked_sum(self, data: Any) -> Any:
        """The bytes before the checksum of a chunk."""
        data, stored = data[:-4], int.from_bytes(data[-4:], "little")
        # Two sums modulo 65535; HDF5 writes 0 as either 65535 or 0.
        if len(data) and [half % 65535 for half in divmod(stored, 65536)] != fletcher32(data):
            raise self.damaged(
                f"expected a chunk with the Fletcher-32 checksum {stored:08x}, got another; the "
                "bytes are damaged"
            )
        return data

    @property
    def has_checksum(self) -> bool:
        if not self.plain or self.data_set.chunks is None:
            return False
        try:
            with reading(self.file, self.key):
                return _FLETCHER32 in self._filters()
        except TensorBridgeError:  # packed in another way
            return False

    def _problems(self) -> Iterator[Exception]:
        if self.has_checksum:
            self._read(False)
        return iter(())

    def _extent(self) -> Extent | None:
        _, size = self._checked()
        if self.offset < 0 or self.big_endian or self.dtype == "bool" or size == 0:
            return None
        self._check_place(size)
        return Extent(self.source.file, self.offset, size)


def plain_path(path: str) -> str:
    """A path in the form that `Hdf5File` uses."""
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def fletcher32(data: bytes) -> list[int]:
    """Second and first sum of Fletcher's checksum over big-endian words, as HDF5 forms it."""
    import torch

    padded = torch.frombuffer(bytearray(data + b"\0" * (len(data) % 2)), dtype=torch.uint8)
    pairs = padded.view(-1, 2).to(torch.int64)
    words = pairs[:, 0] * 256 + pairs[:, 1]
    # How often each word counts in the second sum.
    times = torch.arange(len(words), 0, -1) % 65535
    return [int((words * times % 65535).sum()) % 65535, int(words.sum()) % 65535]


def bytes_of(x: torch.Tensor) -> bytes:
    """The elements of a uint8 tensor, row by row."""
    import torch

    out = bytearray(x.numel())
    torch.frombuffer(out, dtype=torch.uint8).view(x.shape).copy_(x)
    return bytes(out)
