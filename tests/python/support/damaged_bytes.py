"""Damage to the bytes of a file, drawn."""

from __future__ import annotations

import random


def damage(data: bytes, draw: random.Random) -> bytes:
    """One of: a flipped bit, missing bytes, additional bytes, an early end."""
    at, size = draw.randrange(len(data)), draw.randrange(1, 40)
    kind = draw.randrange(4)
    if kind == 0:
        return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + data[at + size :]
    if kind == 2:
        return data[:at] + draw.randbytes(size) + data[at:]
    return data[:at]
