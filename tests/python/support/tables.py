"""TensorFlow's tables, unpacked and packed again by the tests; a random Snappy encoder."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from bundles import MAGIC, varint
from crc32c import crc32c

from tensor_bridge.checkpoint.read._crc import mask

Records = list[tuple[bytes, bytes]]
NONE, SNAPPY = 0, 1


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


def _records(data: bytes, at: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    assert data[at + size] == NONE
    end = at + size - 4 - 4 * int.from_bytes(data[at + size - 4 : at + size], "little")
    key = b""
    while at < end:
        shared, at = _read_varint(data, at)
        own, at = _read_varint(data, at)
        length, at = _read_varint(data, at)
        key = key[:shared] + data[at : at + own]
        at += own + length
        yield key, data[at - length : at]


def records_of(table: bytes) -> Records:
    """The records of a table without packed blocks."""
    at = len(table) - 48
    for _ in range(2):
        _, at = _read_varint(table, at)
    offset, at = _read_varint(table, at)
    size, _ = _read_varint(table, at)
    found = []
    for _, handle in _records(table, offset, size):
        begin, used = _read_varint(handle, 0)
        found.extend(_records(table, begin, _read_varint(handle, used)[0]))
    return found


def snappy(data: bytes, dice: random.Random) -> bytes:
    """Packs with random elements of all kinds, including ones that no sensible encoder uses."""
    out = bytearray(varint(len(data)))
    seen: dict[bytes, list[int]] = {}
    at = 0

    def learn(until: int) -> None:
        for place in range(at, until):
            seen.setdefault(data[place : place + 4], []).append(place)

    while at < len(data):
        places = seen.get(data[at : at + 4], [])
        if places and dice.random() < 0.8:
            offset = at - dice.choice(places)
            most = min(dice.randint(4, 64), len(data) - at)
            length = 4
            while length < most and data[at + length - offset] == data[at + length]:
                length += 1
            out += _copy(offset, length, dice)
        else:
            length = min(dice.choice([1, 3, 60, 61, 300]), len(data) - at)
            out += _literal(data[at : at + length], dice)
        learn(at + length)
        at += length
    return bytes(out)


def _literal(data: bytes, dice: random.Random) -> bytes:
    rest = len(data) - 1
    fitting = [size for size in (0, 1, 2, 3, 4) if rest < (60 if size == 0 else 1 << 8 * size)]
    size = dice.choice(fitting)
    tag = rest if size == 0 else 59 + size
    return bytes([tag << 2]) + (rest.to_bytes(size, "little") if size else b"") + data


def _copy(offset: int, length: int, dice: random.Random) -> bytes:
    kinds = [4]
    if offset < 1 << 16:
        kinds.append(2)
    if offset < 1 << 11 and 4 <= length <= 11:
        kinds.append(1)
    size = dice.choice(kinds)
    if size == 1:
        return bytes([offset >> 8 << 5 | length - 4 << 2 | 1, offset & 0xFF])
    return bytes([length - 1 << 2 | (2 if size == 2 else 3)]) + offset.to_bytes(size, "little")


def _block(records: Records, dice: random.Random) -> bytes:
    """Records with shared prefixes, and their restart points."""
    body, restarts, last = bytearray(), [], b""
    for number, (key, value) in enumerate(records):
        shared = 0
        if number % 16 == 0:
            restarts.append(len(body))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
            shared = dice.choice([shared, dice.randint(0, shared)])
        body += (
            varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        )
        last = key
    restarts = restarts or [0]
    return bytes(body) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def _store(table: bytearray, stored: bytes, compression: int) -> bytes:
    """Adds a block; returns its handle."""
    handle = varint(len(table)) + varint(len(stored))
    table.extend(stored + bytes([compression]))
    table.extend(struct.pack("<I", mask(crc32c(stored + bytes([compression])))))
    return handle


def _end(table: bytearray, metaindex: bytes, index: bytes) -> bytes:
    return bytes(table) + (metaindex + index).ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def pack(records: Records, dice: random.Random, packed: float = 0.7) -> bytes:
    """A table of these records in blocks of drawn sizes, a share of them packed by Snappy."""
    table = bytearray()

    def store(contents: bytes) -> bytes:
        compression = SNAPPY if dice.random() < packed else NONE
        stored = snappy(contents, dice) if compression == SNAPPY else contents
        return _store(table, stored, compression)

    index, at = [], 0
    while at < len(records):
        part = records[at : at + dice.choice([1, 2, 5, 17, 40])]
        index.append((part[-1][0], store(_block(part, dice))))
        at += len(part)
    return _end(table, store(_block([], dice)), store(_block(index, dice)))


def with_zeros(blocks: list[Records], zeros: int) -> bytes:
    """A table of these blocks, packed by Snappy, each with a last record of ``zeros`` zeros."""
    table, index, dice = bytearray(), [], random.Random(1)
    for records in blocks:
        last = records[-1][0] + b"\0"
        head = b"".join(
            varint(0) + varint(len(key)) + varint(len(value)) + key + value
            for key, value in [*records, (last, b"")]
        )
        head = head[: -len(last) - 1] + varint(zeros) + last + b"\0"
        copies = b"\xfe\1\0" * (zeros // 64)  # 64 bytes each, of those a byte before
        rest = b"\0" * (zeros % 64 - 1) + struct.pack("<II", 0, 1)
        stored = varint(len(head) + zeros // 64 * 64 + len(rest)) + _literal(head, dice)
        stored += copies + _literal(rest, dice)
        index.append((last, _store(table, stored, SNAPPY)))
    return _end(
        table, _store(table, _block([], dice), NONE), _store(table, _block(index, dice), NONE)
    )
