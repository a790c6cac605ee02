"""Files that can only be read from front to back: compressed files and URLs."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from tensor_bridge.records._damage import damaged
from tensor_bridge.records._mapping import open_file
from tensor_bridge.records._paths import is_url, open_url

__all__ = ["PIECE", "begins_like", "chunks"]

PIECE = 1 << 20
"""Number of bytes that are read, or decompressed, at once."""

_GZIP, _ZLIB = "GZIP", "ZLIB"
_WINDOW_BITS = {_GZIP: 31, _ZLIB: 15}


def begins_like(head: bytes) -> str:
    """The compression by the first bytes: "GZIP", "ZLIB" or "".

    Call it only for a file that does not begin with a record.
    """
    if head[:3] == b"\x1f\x8b\x08":
        return _GZIP
    if len(head) >= 2 and head[0] == 0x78 and (head[0] << 8 | head[1]) % 31 == 0:
        return _ZLIB
    return ""


def open_binary(path: str) -> BinaryIO:
    """Opens a file or a URL. Raises the errors of `open_file` and `open_url`."""
    if is_url(path):
        opened: BinaryIO = open_url(path)
        return opened
    return os.fdopen(open_file(path), "rb", buffering=0)


def _pieces(path: str) -> Iterator[bytes]:
    with open_binary(path) as file:
        while True:
            try:
                piece = file.read(PIECE)
            except OSError as e:
                raise damaged(path, f"expected bytes of the file, got {e}") from e
            if not piece:
                return
            yield piece


def chunks(path: str, compression: str) -> Iterator[bytes]:
    """Yields the decompressed bytes of a file in pieces that are not empty.

    Raises:
      RecordError: The file cannot be opened or read, or the compressed data is damaged. The bytes
        before the damage have then been yielded.
    """
    if not compression:
        yield from _pieces(path)
        return
    make = _unpacker(compression)
    unpacker = make()
    finished = False
    for piece in _pieces(path):
        left = piece
        while left:
            if finished:
                # A GZIP file may have several consecutive streams, and padding of zeros.
                if compression != _GZIP or not left.strip(b"\0"):
                    if left.strip(b"\0"):
                        raise _damaged_stream(path, compression, "other bytes follow its end")
                    break
                unpacker, finished = make(), False
            before = unpacker.copy()
            try:
                unpacked = unpacker.decompress(left, PIECE)
            except zlib.error as e:
                if unpacked := _until_damage(before, left):
                    yield unpacked
                raise _damaged_stream(path, compression, str(e)) from None
            if unpacked:
                yield unpacked
            finished = unpacker.eof
            left = unpacker.unused_data if finished else unpacker.unconsumed_tail
    if not finished:
        if unpacked := unpacker.flush():
            yield unpacked
        raise _damaged_stream(path, compression, "it ends early; the file is truncated")


def _unpacker(compression: str) -> Callable[[], Any]:
    return lambda: zlib.decompressobj(_WINDOW_BITS[compression])


def _damaged_stream(path: str, compression: str, reason: str) -> Exception:
    return damaged(path, f"expected a stream of {compression}, got a damaged one: {reason}")


def _until_damage(unpacker: Any, data: bytes) -> bytes:
    """The decompressed bytes before the damage, which zlib drops when a call fails."""
    step, unpacked = len(data), []
    while data:
        before = unpacker.copy()
        try:
            unpacked.append(unpacker.decompress(data[:step]))
        except zlib.error:
            if step == 1:
                break
            unpacker, step = before, max(1, step // 16)
            continue
        data = data[step:]
    return b"".join(unpacked)
