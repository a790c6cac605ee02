"""TensorFlow tensors of any dtype from stored bytes, and the bytes behind a torch tensor.

Nothing here relies on tensor_bridge for values: TensorFlow parses a TensorProto, memory is read
with ctypes, and references come from NumPy and ml_dtypes. A new row of the dtype table needs no
code here.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Sequence
from math import prod
from typing import Any

import ml_dtypes
import needs
import numpy as np
import pytest
import tensorflow as tf
import torch
from tensorflow.core.framework import tensor_pb2

import tensor_bridge
from tensor_bridge import DtypeRow

ROWS = [row for row in needs.rows() if row.tf_enum]
"""Every row that TensorFlow has."""

NUMERIC = [row for row in ROWS if row.itemsize]
"""The rows whose elements are plain bytes."""

QUANTIZED = [row for row in ROWS if row.kind == "quantized"]

BY_DEFAULT = [row for row in NUMERIC if row.kind in ("shared", "viewed", "converted")]
"""The rows that convert without a keyword."""


def row_named(name: str) -> DtypeRow:
    return next(row for row in tensor_bridge.dtypes() if row.name == name)


def by_name(row: DtypeRow) -> str:
    """The id of a row as a parameter of a test."""
    return row.name


def tensorflow_has_variables_of(row: DtypeRow) -> bool:
    try:
        tf.Variable(random_tensor(row))
    except tf.errors.OpError:
        return False
    return True


def used_bits(row: DtypeRow) -> int:
    """Bits of a stored element that carry its value: fewer than 8 for int4 and the like."""
    dtype = tf.as_dtype(row.tf_enum)
    if row.kind in ("viewed", "converted"):
        info = ml_dtypes.iinfo if dtype.is_integer else ml_dtypes.finfo
        return int(info(dtype.as_numpy_dtype).bits)
    return 1 if dtype == tf.bool else 8 * row.itemsize


def as_stored(row: DtypeRow, data: bytes) -> bytes:
    """``data`` with the bits cleared that TensorFlow never sets in elements of this dtype."""
    mask = (1 << min(used_bits(row), 8)) - 1
    return data if mask == 0xFF else bytes(byte & mask for byte in data)


def random_bytes(row: DtypeRow, count: int, seed: int = 0) -> bytes:
    """``count`` elements as TensorFlow stores them; every bit pattern that fits may occur."""
    generator = random.Random(f"{row.name} {seed}")
    return as_stored(row, generator.randbytes(count * row.itemsize))


def tf_tensor(row: DtypeRow, shape: Sequence[int], data: bytes) -> tf.Tensor:
    """An eager tensor with these bytes in memory of its own."""
    if not needs.tf_has(row):
        pytest.skip(f"TensorFlow {tf.__version__} has no {row.name}")
    proto = tensor_pb2.TensorProto(dtype=row.tf_enum, tensor_content=data)
    for size in shape:
        proto.tensor_shape.dim.add().size = size
    return tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(row.tf_enum))


def random_tensor(row: DtypeRow, shape: Sequence[int] = (2, 3), seed: int = 0) -> tf.Tensor:
    return tensor_and_bytes(row, shape, seed)[0]


def tensor_and_bytes(
    row: DtypeRow, shape: Sequence[int] = (2, 3), seed: int = 0
) -> tuple[tf.Tensor, bytes]:
    """A tensor, and what was put into it."""
    data = random_bytes(row, prod(shape), seed)
    return tf_tensor(row, shape, data), data


def tf_memory(t: Any) -> bytes:
    """The bytes behind a TensorFlow tensor or variable right now."""
    if not isinstance(t, tf.Tensor):
        t = t.read_value()
    size = prod(t.shape) * t.dtype.size
    return ctypes.string_at(tensor_bridge.testing.tf_data_address(t), size) if size else b""


def torch_memory(x: torch.Tensor) -> bytes:
    """The bytes behind a contiguous torch tensor, read without materialising it."""
    assert x.is_contiguous()
    size = x.numel() * x.element_size()
    return ctypes.string_at(tensor_bridge.testing.torch_data_address(x), size) if size else b""


def torch_dtype(name: str) -> torch.dtype:
    """The dtype for "torch.float32"."""
    dtype = getattr(torch, name.removeprefix("torch."))
    assert isinstance(dtype, torch.dtype)
    return dtype


def torch_tensor(row: DtypeRow, shape: tuple[int, ...], data: bytes) -> torch.Tensor:
    """A torch tensor with these bytes in aligned memory of its own."""
    x = torch.zeros(len(data), dtype=torch.uint8)
    x.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    return x.view(torch_dtype(row.torch_name)).view(shape)


def reference_values(row: DtypeRow, data: bytes) -> list[Any]:
    """The values of stored elements according to NumPy and ml_dtypes."""
    dtype = tf.as_dtype(row.tf_enum)
    if row.kind == "quantized":
        dtype = tf.as_dtype(row.nearest.removeprefix("torch."))
    array = np.frombuffer(data, dtype.as_numpy_dtype)
    if dtype.is_floating:
        with np.errstate(invalid="ignore"):  # signalling NaNs
            array = array.astype(np.float64)
    elif dtype.is_integer and array.dtype.kind == "V":
        array = array.astype(np.int64)
    return array.tolist()


def torch_values(x: torch.Tensor) -> list[Any]:
    """The values of a torch tensor, as comparable with `reference_values`."""
    if x.is_quantized:
        x = x.int_repr()
    if x.dtype.is_floating_point:
        x = x.to(torch.float64)
    return x.reshape(-1).tolist()


def same_values(left: Sequence[Any], right: Sequence[Any]) -> bool:
    """Equality that distinguishes 0.0 from -0.0 and treats all NaNs as equal."""
    return list(map(repr, left)) == list(map(repr, right))
