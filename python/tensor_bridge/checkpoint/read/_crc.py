"""Masked CRC-32C, as TensorFlow's checkpoints have it; computed by the package crc32c.

It uses the processor's instruction where there is one and lets other threads run meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensor_bridge.errors import FrameworkError

__all__ = ["PIECE", "crc_function", "mask"]

PIECE = 16 << 20
"""Bytes looked at in one go, so that an interrupt is soon heard."""


def crc_function() -> Callable[[Any, int], int]:
    """``crc(data, crc_of_what_came_before)`` of any bytes-like object.

    Raises:
      FrameworkError: The package is not installed.
    """
    try:
        from crc32c import crc32c
    except ModuleNotFoundError as e:
        raise FrameworkError(
            "crc32c is not installed; checksums of checkpoints need it. Install it: "
            "pip install 'tf-torch-tensor-bridge[checkpoint]'",
            name="crc32c",
        ) from e
    function: Callable[[Any, int], int] = crc32c
    return function


def mask(crc: int) -> int:
    """What is stored: a checksum of bytes that hold their own checksum would be weak."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
