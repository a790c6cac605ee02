"""Masked CRC-32C, as in TensorFlow's checkpoints; computed by the package crc32c.

The package uses the processor's instruction if there is one, and releases the GIL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tensor_bridge.errors import FrameworkError

if TYPE_CHECKING:
    from tensor_bridge.checkpoint.read._mapped import MappedFile

PIECE = 16 << 20
"""Bytes per call, so that an interrupt is handled soon."""


def crc_function() -> Callable[[Any, int], int]:
    """Returns the function ``crc(data, crc_of_previous_data)`` for any bytes-like object.

    Raises:
      FrameworkError: The package is not installed.
    """
    try:
        from crc32c import crc32c
    except ModuleNotFoundError as e:
        raise FrameworkError(
            "crc32c is not installed; checksums of checkpoints need it. Install it: "
            "pip install crc32c",
            name="crc32c",
        ) from e
    function: Callable[[Any, int], int] = crc32c
    return function


def mask(crc: int) -> int:
    """The stored form: a checksum of bytes that contain their own checksum would be weak."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def crc_of(file: MappedFile, offset: int, size: int, value: int = 0) -> int:
    """The checksum of a range of a file, after bytes whose checksum is ``value``."""
    crc = crc_function()
    for piece in file.pieces(offset, size):
        value = crc(piece, value)
    return value


def mismatch(stored: int, found: int) -> str:
    """The text of an error about two masked checksums."""
    return f"expected the masked CRC-32C {stored:08x}, got {found:08x}; the bytes are damaged"
