"""Serializes torch values as Examples, by the spec that reads them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from math import prod
from typing import Any

from tensor_bridge import _refusals
from tensor_bridge.composite import Ragged, StringTensor
from tensor_bridge.errors import (
    InvalidOptionError,
    MismatchError,
    UnsupportedDtypeError,
    UnsupportedTypeError,
)
from tensor_bridge.records._features import (
    FixedLenFeature,
    FixedLenSequenceFeature,
    RaggedFeature,
    SequenceFeatures,
    SparseFeature,
    as_feature,
)
from tensor_bridge.records._spec_parser import SpecParser

__all__ = ["encoder_of", "examples_of"]

# Numbers of the fields of Feature.
_BYTES, _FLOAT, _INT64 = 1, 2, 3


# ---- protobuf ----------------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    out = bytearray()
    number &= 0xFFFFFFFFFFFFFFFF
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + _varint(len(content)) + content


def _map(entries: Mapping[str, bytes]) -> bytes:
    """A protobuf map from keys to messages, in field 1."""
    return b"".join(
        _field(1, _field(1, key.encode("utf-8", "surrogateescape")) + _field(2, value))
        for key, value in entries.items()
    )


# ---- values ------------------------------------------------------------------------------------


def _strings(key: str, value: Any) -> list[bytes]:
    if isinstance(value, str):
        return [value.encode()]
    if isinstance(value, (bytes, bytearray)):
        return [bytes(value)]
    if isinstance(value, StringTensor):
        return value.reshape(-1).to_bytes()
    if isinstance(value, (list, tuple)):
        return [each for item in value for each in _strings(key, item)]
    raise UnsupportedTypeError(
        f"feature {key!r}: expected bytes, a list of bytes or a StringTensor, got a "
        f"{type(value).__name__}"
    )


def _numbers(key: str, value: Any, dtype: str) -> Any:
    """The values as a dense CPU tensor of float32 or int64, if the dtype holds them exactly."""
    import torch

    try:
        tensor = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as e:
        raise UnsupportedTypeError(f"feature {key!r}: expected {dtype} values, got {e}") from e
    if not tensor.numel():
        return tensor.to(torch.float32 if dtype == "float32" else torch.int64)
    if dtype == "float32":
        if not isinstance(value, torch.Tensor) and not tensor.is_complex():
            return tensor.to(torch.float32)  # Python numbers, rounded as by torch.tensor()
        if tensor.dtype in (torch.float32, torch.float16, torch.bfloat16):
            return tensor.to(torch.float32)
        remedy = "convert it with .float() if the loss of precision is meant"
    else:
        integers = not tensor.is_floating_point() and not tensor.is_complex()
        too_large = tensor.dtype == torch.uint64 and bool((tensor.view(torch.int64) < 0).any())
        if integers and not too_large:
            return tensor.to(torch.int64)
        remedy = "convert it with .long() if the loss is meant"
    raise UnsupportedDtypeError(
        f"feature {key!r}: expected values that {dtype} holds exactly, got {tensor.dtype}; {remedy}"
    )


def _list(dtype: str, values: Any) -> bytes:
    """A serialized Feature of strings, or of a flat tensor of numbers."""
    if dtype == "bytes":
        return _field(_BYTES, b"".join(_field(1, value) for value in values))
    if dtype == "float32":
        flat = values.contiguous()
        data = ctypes.string_at(flat.data_ptr(), 4 * flat.numel()) if flat.numel() else b""
        return _field(_FLOAT, _field(1, data) if data else b"")
    data = b"".join(map(_varint, values.tolist()))
    return _field(_INT64, _field(1, data) if data else b"")


def _flat(key: str, feature: Any, value: Any) -> tuple[Any, int]:
    """A feature's values for `_list`, and their number."""
    decode = getattr(feature, "decode", None)
    if decode is not None and hasattr(decode, "encode"):
        value = decode.encode(value)
    if feature.dtype == "bytes":
        strings = _strings(key, value.values if isinstance(value, Ragged) else value)
        return strings, len(strings)
    import torch

    if isinstance(value, torch.Tensor) and value.layout is torch.sparse_coo:
        value = _coalesced(value).values()
    values = _numbers(key, value, feature.dtype).reshape(-1)
    return values, values.numel()


def _coalesced(value: Any) -> Any:
    return value if value.is_coalesced() else value.coalesce()


def _check_count(key: str, feature: Any, count: int) -> None:
    if isinstance(feature, FixedLenFeature):
        if count != prod(feature.shape):
            raise MismatchError(
                f"feature {key!r}: expected {prod(feature.shape)} values, of shape "
                f"{feature.shape}, got {count}"
            )
    elif isinstance(feature, FixedLenSequenceFeature) and count % prod(feature.shape):
        raise MismatchError(
            f"feature {key!r}: expected a multiple of {prod(feature.shape)} values, got {count}"
        )


def _features(key: str, feature: Any, value: Any) -> dict[str, bytes]:
    """The serialized Features of one value, by key."""
    if isinstance(feature, SparseFeature):
        return _sparse(key, feature, value)
    if isinstance(feature, RaggedFeature) and feature.partitions:
        return _ragged(key, feature, value)
    values, count = _flat(key, feature, value)
    _check_count(key, feature, count)
    return {getattr(feature, "value_key", None) or key: _list(feature.dtype, values)}


def _sparse(key: str, feature: SparseFeature, value: Any) -> dict[str, bytes]:
    import torch

    axes = len(feature.index_key)
    if not isinstance(value, torch.Tensor) or value.layout is not torch.sparse_coo:
        raise UnsupportedTypeError(
            f"feature {key!r}: expected a sparse COO tensor, got {type(value).__name__}; "
            "tensor.to_sparse() makes one"
        )
    value = _coalesced(value)
    if tuple(value.shape) != tuple(feature.size) or value.indices().shape[0] != axes:
        raise MismatchError(
            f"feature {key!r}: expected the shape {tuple(feature.size)}, got {tuple(value.shape)}"
        )
    made = {
        index_key: _list("int64", indices)
        for index_key, indices in zip(feature.index_key, value.indices().cpu(), strict=True)
    }
    made[feature.value_key] = _list(
        feature.dtype, _numbers(key, value.values(), feature.dtype).reshape(-1)
    )
    return made


def _ragged(key: str, feature: RaggedFeature, value: Any) -> dict[str, bytes]:
    import torch

    if isinstance(value, torch.Tensor) and value.is_nested and value.layout is torch.jagged:
        flat, splits = value.values(), [value.offsets()]
    elif isinstance(value, Ragged):
        flat, splits = value.values, list(value.row_splits)
    else:
        raise UnsupportedTypeError(
            f"feature {key!r}: expected a Ragged or a nested tensor of jagged layout, got a "
            f"{type(value).__name__}"
        )
    if len(splits) != len(feature.partitions):
        raise MismatchError(
            f"feature {key!r}: expected {len(feature.partitions)} ragged dimensions, got "
            f"{len(splits)}"
        )
    made: dict[str, bytes] = {}
    for partition, rows in zip(feature.partitions, splits, strict=True):
        lengths = rows.diff()
        kind = type(partition).__name__
        if kind == "UniformRowLength":
            if bool((lengths != partition.length).any()):
                raise MismatchError(f"feature {key!r}: expected rows of {partition.length} values")
            continue
        if kind == "ValueRowIds":
            written = torch.arange(len(lengths)).repeat_interleave(lengths)
        elif kind == "RowLengths":
            written = lengths
        else:
            written = {"RowSplits": rows, "RowStarts": rows[:-1], "RowLimits": rows[1:]}[kind]
        made[partition.key] = _list("int64", _numbers(key, written, "int64"))
    values = (
        _strings(key, flat)
        if feature.dtype == "bytes"
        else _numbers(key, flat, feature.dtype).reshape(-1)
    )
    made[feature.value_key or key] = _list(feature.dtype, values)
    return made


def _rows(key: str, feature: Any, value: Any) -> bytes:
    """A serialized FeatureList, which has a Feature for each row."""
    import torch

    if isinstance(value, Ragged):
        ends = value.row_splits[0].tolist()
        rows: Any = [value.values[a:b] for a, b in pairwise(ends)]
    elif isinstance(value, torch.Tensor) and value.layout is torch.sparse_coo:
        rows = [_coalesced(value)[i] for i in range(value.shape[0])]
    else:
        rows = value
    made = []
    for row in rows:
        values, count = _flat(key, feature, row)
        if isinstance(feature, FixedLenSequenceFeature) and count != prod(feature.shape):
            raise MismatchError(
                f"feature {key!r}: expected rows of {prod(feature.shape)} values, got {count}"
            )
        made.append(_field(1, _list(feature.dtype, values)))
    return b"".join(made)


# ---- records -----------------------------------------------------------------------------------


def encoder_of(spec: Any) -> Callable[[Any], bytes]:
    """Returns a function that serializes a record's values.

    Raises:
      InvalidOptionError: The spec has an invalid feature.
    """
    SpecParser(spec)  # checks the spec
    if isinstance(spec, SequenceFeatures):
        context = {key: as_feature(feature, key) for key, feature in spec.context.items()}
        lists = {key: as_feature(feature, key) for key, feature in spec.sequence.items()}

        def sequence(record: Any) -> bytes:
            given = _checked(record, {"context", "sequence", "lengths"})
            made = _map(_of(context, given.get("context") or {}))
            values = _checked(given.get("sequence") or {}, set(lists))
            rows = {
                key: _rows(key, feature, values[key])
                for key, feature in lists.items()
                if values.get(key) is not None
            }
            return _field(1, made) + _field(2, _map(rows))

        return sequence
    features = {key: as_feature(feature, key) for key, feature in spec.items()}
    return lambda record: _field(1, _map(_of(features, record)))


def _checked(record: Any, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(record, Mapping):
        raise UnsupportedTypeError(
            f"expected a dict of values by feature, got {_refusals.a_class(record)}"
        )
    if unknown := set(record) - known:
        raise InvalidOptionError(f"the spec has no feature {sorted(map(str, unknown))[0]!r}")
    return record


def _of(features: Mapping[str, Any], record: Any) -> dict[str, bytes]:
    values = _checked(record, set(features))
    made: dict[str, bytes] = {}
    for key, feature in features.items():
        if values.get(key) is not None:
            made.update(_features(key, feature, values[key]))
    return made


def examples_of(batch: Any, *, sequence: bool = False) -> Iterator[Any]:
    """Yields the values of each record of a batch.

    Args:
      batch: Values by key; for SequenceExamples the dicts "context", "sequence" and "lengths".
      sequence: Whether the records are SequenceExamples.

    Raises:
      MismatchError: The values have different leading dimensions.
      UnsupportedTypeError: The batch is not a dict of values.
    """
    if not isinstance(batch, Mapping):
        raise UnsupportedTypeError(f"expected a dict of values, got {_refusals.a_class(batch)}")
    if sequence:
        yield from _sequence_examples_of(_checked(batch, {"context", "sequence", "lengths"}))
        return
    if any(isinstance(value, Mapping) for value in batch.values()):
        raise UnsupportedTypeError("expected a tensor for each feature of a batch, got a dict")
    counts = {key: _length(value) for key, value in batch.items() if value is not None}
    if len(set(counts.values())) > 1:
        raise MismatchError(f"expected values of one leading dimension, got {counts}")
    for i in range(next(iter(counts.values()), 0)):
        yield {key: _item(batch[key], i) for key in counts}


def _sequence_examples_of(batch: Mapping[str, Any]) -> Iterator[Any]:
    parts = {name: batch.get(name) or {} for name in ("context", "sequence", "lengths")}
    flat = {
        (name, key): value
        for name, part in parts.items()
        for key, value in _checked(part, set(part)).items()
    }
    for values in examples_of(flat):
        record: dict[str, dict[str, Any]] = {"context": {}, "sequence": {}}
        for (name, key), value in values.items():
            if name == "lengths":
                continue
            length = values.get(("lengths", key)) if name == "sequence" else None
            # Rows behind the record's own are padding.
            record[name][key] = value if length is None else value[: int(length)]
        yield record


def _length(value: Any) -> int:
    return len(value.row_splits[0]) - 1 if isinstance(value, Ragged) else len(value)


def _item(value: Any, index: int) -> Any:
    if not isinstance(value, Ragged):
        return value[index]
    begin, end = value.row_splits[0][index : index + 2].tolist()
    inner: Any = value.values
    if len(value.row_splits) == 1:
        return inner[begin:end]
    # The rows of this record, counted from its first value.
    splits = []
    for rows in value.row_splits[1:]:
        part = rows[begin : end + 1]
        begin, end = int(part[0]), int(part[-1])
        splits.append(part - begin)
    return Ragged(inner[begin:end], tuple(splits))
