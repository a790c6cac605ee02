"""Checks the form of a saved TensorFlow iterator state before TensorFlow reads it.

Each part is a TensorProto of one variant, "tensorflow::Iterator": names, and as many tensors, which
TensorFlow packs with Snappy into one CompressedElement (IteratorStateVariant in
tensorflow/core/kernels/data/iterator_ops.cc, TensorFlow 2.21). TensorFlow's own reader checks
little of that: of 150 states with a few flipped bits 24 ended the process, and one ran for good.

Not for: what the values mean; only the operations of the pipeline know that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from math import prod
from typing import Any

from tensor_bridge import _C
from tensor_bridge._dtypes import row_of
from tensor_bridge.errors import ResumeError

_STRING, _INT64, _VARIANT = 7, 9, 21  # tensorflow/core/framework/types.proto
_COMPLEX = (8, 18)
_SAVED = "tensorflow::Iterator"
_PACKED = "tensorflow.data.CompressedElement"
# The separator between names; the text before the first one is common to all names of the part.
_BETWEEN = b"@@"
# Names of counts. TensorFlow allocates memory for that many values before it reads them.
_COUNTS = (b"size", b"num_elements", b"num_components")
# A count up to this is allowed for any size of the state.
_FEW = 1 << 20
_DEEPEST = 8


class _BadFormError(Exception):
    """Never leaves this module."""


def check(parts: Sequence[bytes]) -> None:
    """Checks each length, shape and count in the parts of a state.

    Raises:
      ResumeError: TensorFlow does not write such parts.
    """
    most = max(_FEW, sum(map(len, parts)))
    for number, part in enumerate(parts):
        try:
            _check_part(part, most)
        except _BadFormError as e:
            raise ResumeError(
                f"iterator[{number}]: expected a part of TensorFlow's state of an iterator, got {e}"
            ) from None


@cache
def _protos() -> tuple[Any, Any, Any]:
    from tensorflow.core.framework import dataset_pb2, tensor_pb2

    tensor = tensor_pb2
    return tensor.TensorProto, tensor.VariantTensorDataProto, dataset_pb2.CompressedElement


def _size_of(dtype: int) -> int:
    """Bytes per element."""
    row = row_of(dtype)
    if row is None or not row.itemsize:  # strings and similar dtypes have no fixed size
        raise _BadFormError(f"a value of dtype {dtype}")
    return row.itemsize


def _need(condition: bool, otherwise: str) -> None:
    if not condition:
        raise _BadFormError(otherwise)


def _parsed(kind: Any, data: bytes) -> Any:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        message = kind.FromString(data)
    except DecodeError:
        raise _BadFormError(f"bytes that are no {kind.DESCRIPTOR.name}") from None
    # TensorFlow writes no duplicate or unknown fields, and no overlong numbers.
    written = message.SerializeToString(deterministic=True)
    _need(written == data, f"a {kind.DESCRIPTOR.name} in another form")
    return message


def _count(shape: Any) -> int:
    sizes = [dim.size for dim in shape.dim]
    _need(not shape.unknown_rank and all(size >= 0 for size in sizes), f"the shape {sizes}")
    return prod(sizes)


def _check_part(part: bytes, most: int) -> None:
    tensor, _, _ = _protos()
    variants = list(_variants(_parsed(tensor, part)))
    _need(len(variants) == 1, f"{len(variants)} variants")
    saved = variants[0]
    _need(saved.type_name == _SAVED, f"a variant {saved.type_name!r}")
    names = saved.metadata.split(_BETWEEN)
    _need(all(names) and len(set(names)) == len(names), "names that are empty or double")
    packed: Any = saved.tensors[0].variant_val if len(saved.tensors) == 1 else ()
    if len(packed) == 1 and packed[0].type_name == _PACKED:
        _need(len(list(_variants(saved.tensors[0]))) == 1, "two values")
        _need(not packed[0].tensors, "tensors beside packed ones")
        values = list(_unpacked(packed[0].metadata))
    else:  # TensorFlow stores plain tensors if packing fails
        _need(
            all(value.dtype != _VARIANT for value in saved.tensors), "variants that are not packed"
        )
        values = [_checked(value, 0) for value in saved.tensors]
    _need(len(values) == len(names) - 1, f"{len(values)} values for {len(names) - 1} names")
    for name, value in zip(names[1:], values, strict=True):
        if name.endswith(_COUNTS) and value is not None:
            _need(0 <= value <= most, f"a {name.decode(errors='replace')} of {value}")


def _variants(tensor: Any) -> Iterator[Any]:
    """The values of a tensor of variants: separate fields, or lengths and bytes."""
    _, variant, _ = _protos()
    count = _count(tensor.tensor_shape)
    _need(tensor.dtype == _VARIANT, f"a tensor of dtype {tensor.dtype}")
    if tensor.variant_val:
        _need(len(tensor.variant_val) == count and not tensor.tensor_content, "another shape")
        yield from tensor.variant_val
        return
    content, lengths = tensor.tensor_content, []
    _need(count <= len(content), "another shape")
    place = 0
    for _ in range(count):
        length, place = _varint(content, place)
        lengths.append(length)
    _need(place + sum(lengths) == len(content), "variants of another length")
    for length in lengths:
        yield _parsed(variant, content[place : place + length])
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of at most 32 bits, and the position after it."""
    number = 0
    for shift, byte in zip(range(0, 35, 7), data[place : place + 5], strict=False):
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place + shift // 7 + 1
    raise _BadFormError("a length without an end")


def _unpacked(data: bytes) -> Iterator[int | None]:
    """The values of a CompressedElement; None for a value that is not a number."""
    tensor, _, element = _protos()
    packed = _parsed(element, data)
    _need(packed.version == 0, f"version {packed.version} of a packed element")
    lengths = [length for item in packed.component_metadata for length in item.uncompressed_bytes]
    try:
        values = memoryview(_C.snappy_unpack(packed.data)) if lengths else memoryview(b"")
    except ValueError as e:
        raise _BadFormError(str(e)) from None
    _need(sum(lengths) == len(values), "values of another length")
    place = 0
    for item in packed.component_metadata:
        count, sizes = _count(item.tensor_shape), list(item.uncompressed_bytes)
        value = None
        if item.dtype == _STRING:
            _need(len(sizes) == count, f"{len(sizes)} strings in place of {count}")
        elif item.dtype == _VARIANT:
            _need(len(sizes) == 1, "a packed variant without a length")
            _checked(_parsed(tensor, bytes(values[place : place + sizes[0]])), 0)
        else:
            size = _size_of(item.dtype)
            _need(sizes == [count * size], f"{sizes} bytes in place of {count * size}")
            if item.dtype == _INT64 and not item.tensor_shape.dim:
                value = int.from_bytes(values[place : place + 8], "little", signed=True)
        place += sum(sizes)
        yield value


# The fields with the values of a TensorProto.
_VALUES = (
    "half_val",
    "float_val",
    "double_val",
    "int_val",
    "string_val",
    "scomplex_val",
    "int64_val",
    "bool_val",
    "dcomplex_val",
    "uint32_val",
    "uint64_val",
)


def _checked(tensor: Any, depth: int) -> int | None:
    """Checks a TensorProto; returns its value if it holds one number."""
    _need(depth < _DEEPEST, "variants in variants")
    if tensor.dtype == _VARIANT:
        for variant in _variants(tensor):
            for inner in variant.tensors:
                _checked(inner, depth + 1)
        return None
    count = _count(tensor.tensor_shape)
    given = sum(len(getattr(tensor, name)) for name in _VALUES)
    if tensor.dtype == _STRING:
        _need(given == len(tensor.string_val) == count, f"{given} strings in place of {count}")
        return None
    size = _size_of(tensor.dtype)
    if tensor.tensor_content:
        _need(given == 0 and len(tensor.tensor_content) == count * size, "values of another length")
    else:
        values = count * 2 if tensor.dtype in _COMPLEX else count
        _need(given == values, f"{given} values in place of {values}")
    if tensor.dtype == _INT64 and not tensor.tensor_shape.dim and tensor.int64_val:
        return int(tensor.int64_val[0])
    return None
