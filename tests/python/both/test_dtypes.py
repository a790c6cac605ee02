"""Bits that arithmetic does not show: NaNs with payloads, negative zeros, subnormals."""

from __future__ import annotations

from typing import Any

import needs
import pytest
from tf_bytes import row_named, tf_memory, tf_tensor, torch_memory, torch_tensor

BITS = [
    ("float32", 0x7FC12345),  # a NaN with a payload
    ("float32", 0x7F812345),  # a signalling NaN
    ("float32", 0x80000000),  # -0.0
    ("float32", 0x00000001),  # the smallest subnormal
    ("float64", 0x7FF8DEADBEEF0001),
    ("float64", 0x7FF0000000000001),
    ("float64", 0x8000000000000000),
    ("float16", 0x7E01),
    ("float16", 0x7C01),
    ("bfloat16", 0x7F81),
    ("bfloat16", 0x8000),
    pytest.param("float8_e5m2", 0x7D, marks=needs.dtype("float8_e5m2")),
    pytest.param("float8_e4m3fnuz", 0x80, marks=needs.dtype("float8_e4m3fnuz")),
    ("complex64", 0x7FC1234580000000),
    ("complex128", 0x7FF8DEADBEEF00018000000000000000),
    ("uint64", 0xFFFFFFFFFFFFFFFF),
    ("int64", 0x8000000000000000),
]


@pytest.mark.parametrize(("name", "bits"), BITS)
@pytest.mark.parametrize("copy", [None, True])
def test_bits_survive_to_torch(name: str, bits: int, copy: bool | None, interface: Any) -> None:
    row = row_named(name)
    data = bits.to_bytes(row.itemsize, "little")
    x = interface.to_torch(tf_tensor(row, (), data), copy=copy)
    assert torch_memory(x) == data


@pytest.mark.parametrize(("name", "bits"), BITS)
@pytest.mark.parametrize("view", ["shared", "copied", "strided"])
def test_bits_survive_to_tf(name: str, bits: int, view: str, interface: Any) -> None:
    row = row_named(name)
    data = bits.to_bytes(row.itemsize, "little") * 4
    x = torch_tensor(row, (2, 2), data)
    if view == "strided":
        x = x[:, :1]
    t = interface.to_tf(x, copy=True if view == "copied" else None)
    assert tf_memory(t) == data[: x.numel() * row.itemsize]
