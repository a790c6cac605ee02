"""Texts of variable length in HDF5 files, read without HDF5. Not for: what h5py reads (_hdf5).

HDF5 1.14.6 allocates as many bytes as the descriptor of a text claims, up to 4 GiB, before it
checks them, and again for each descriptor of the same bytes (H5T__conv_vlen). It does not expose
the claimed size, so attributes are looked up here in the headers of their objects, and their bytes
in the heaps. In a valid file headers share no bytes, nor do heaps, nor texts; so each of the three
may use as many bytes as the file has.

The format: "HDF5 File Format Specification Version 3.0", III.E, IV.A.1 and IV.A.2.m.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tensor_bridge.checkpoint.read._mapped import MappedFile

_ATTRIBUTE, _CONTINUATION = 0x0C, 0x10
_SHARED = 2  # a flag of a message: it is elsewhere
_HEAP_HEADER = _OBJECT_HEADER = _DESCRIPTOR = 16


class Heaps:
    """Headers and heaps of an HDF5 file whose addresses and lengths have 8 bytes.

    Damaged ones raise OSError.
    """

    def __init__(self, file: MappedFile, begin: int, size: int) -> None:
        self._file, self._begin, self._size = file, begin, size
        self._left = dict.fromkeys(("headers", "heaps", "texts"), size)
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}
        self._headers: dict[int, list[tuple[bytes, bytes]]] = {}

    def texts(self, address: int, name: bytes, count: int) -> list[bytes]:
        """The texts of an attribute of the object at an address."""
        if address not in self._headers:
            self._headers[address] = list(self._attributes(address))
        found = [value for other, value in self._headers[address] if other == name]
        if len(found) != 1:
            raise OSError(
                f"{len(found)} attributes {name!r} in the header of their object; more than 8 of "
                "one object may be elsewhere: write them with h5py's libver='earliest' and without "
                "track_order, or as texts of a fixed length"
            )
        if len(found[0]) < count * _DESCRIPTOR:
            raise OSError(f"{count} texts in {len(found[0])} bytes of descriptors")
        descriptors = [
            struct.unpack_from("<IQI", found[0], at * _DESCRIPTOR) for at in range(count)
        ]
        self.charge("texts", sum(length for length, _, _ in descriptors))
        return [self._text(*one) for one in descriptors]

    def charge(self, what: str, size: int) -> None:
        """Counts the bytes read from parts that must not share bytes."""
        self._left[what] -= size
        if self._left[what] < 0:
            raise OSError(f"{what} of more bytes than the {self._size} of the file")

    def heap(self, place: int) -> dict[int, tuple[int, int]]:
        """Place and size of each object of a heap, by its number."""
        if place in self._heaps:
            return self._heaps[place]
        head = self._content(place, _HEAP_HEADER)
        if head[:5] != b"GCOL\1":
            raise OSError(f"no heap at {place}")
        size = min(int.from_bytes(head[8:], "little"), self._size - place)
        self.charge("heaps", size)
        heap, at = self._content(place, size), _HEAP_HEADER
        objects: dict[int, tuple[int, int]] = {}
        while at + _OBJECT_HEADER <= size:
            index, _, _, length = struct.unpack_from("<HHIQ", heap, at)
            if not index and not length:
                raise OSError(f"a heap at {place} with free space of no bytes")
            if index:
                objects[index] = place + at + _OBJECT_HEADER, length
            at += _OBJECT_HEADER + _aligned(length) if index else length
        self._heaps[place] = objects
        return objects

    def _text(self, length: int, heap: int, index: int) -> bytes:
        if not length:
            return b""
        place, size = self.heap(heap).get(index, (0, -1))
        if size != length:
            raise OSError(f"a text of {length} bytes, of which the heap at {heap} has {size}")
        # As h5py does: a text ends with its first null.
        return bytes(self._content(place, length)).split(b"\0", 1)[0]

    def _attributes(self, address: int) -> Iterator[tuple[bytes, bytes]]:
        """Name and value of each attribute in the header at an address."""
        for kind, flags, message in self._messages(address):
            if kind != _ATTRIBUTE or flags & _SHARED:
                continue
            version = message[0] if message else 0
            if version not in (1, 2, 3) or len(message) < 8:
                raise OSError(f"an attribute of version {version} in {len(message)} bytes")
            sizes = struct.unpack_from("<HHH", message, 2)
            at = 9 if version == 3 else 8
            name = message[at : at + sizes[0]].split(b"\0", 1)[0]
            yield name, message[at + sum(map(_aligned, sizes) if version == 1 else sizes) :]

    def _messages(self, address: int) -> Iterator[tuple[int, int, bytes]]:
        """Kind, flags and content of each message of the header at an address."""
        head = self._content(address, 8)
        if second := head[:4] == b"OHDR":
            flags = head[5]
            at = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
            width = 1 << (flags & 3)
            waiting = [(at + width, int.from_bytes(self._content(at, width), "little"))]
            fields = "<BHB2x" if flags & 4 else "<BHB"
        elif head[0] == 1:
            waiting = [(address + 16, int.from_bytes(self._content(address + 8, 4), "little"))]
            fields = "<HHB3x"
        else:
            raise OSError(f"no header of an object at {address}")
        while waiting:
            place, size = waiting.pop()
            self.charge("headers", max(size, 1))
            chunk, at = bytes(self._content(place, size)), 0
            while at + struct.calcsize(fields) <= size:
                kind, length, flags = struct.unpack_from(fields, chunk, at)
                at += struct.calcsize(fields)
                message = chunk[at : at + length]
                at += length
                if kind == _CONTINUATION and len(message) >= 16:
                    where, long = struct.unpack_from("<QQ", message)
                    # Version 2 has a signature before and a checksum after it.
                    waiting.append((where + 4, long - 8) if second else (where, long))
                yield kind, flags, message

    def _content(self, place: int, size: int) -> bytearray:
        if size < 0 or place + size > self._size:
            raise OSError(f"{size} bytes at {place} of {self._size}")
        return self._file.content(self._begin + place, size)


def _aligned(size: int) -> int:
    return size + 7 & ~7
