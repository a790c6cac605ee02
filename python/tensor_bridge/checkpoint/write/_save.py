"""`save`: torch tensors as a checkpoint of TensorFlow."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _dense, _refusals
from tensor_bridge._dtypes import row_of
from tensor_bridge._options import checks_keywords
from tensor_bridge._output import Output, dense_bytes, outputs
from tensor_bridge.checkpoint.read import _crc
from tensor_bridge.checkpoint.read._names import ATTRIBUTES, GRAPH_KEY, VALUE, escape
from tensor_bridge.checkpoint.read._object_graph import message, varint
from tensor_bridge.checkpoint.read._one_save import (
    MARK_SIZE,
    DataMark,
    bytes_of_mark,
    digest_of_entries,
    index_record,
)
from tensor_bridge.checkpoint.read._paths import local_path
from tensor_bridge.checkpoint.read._table import MAGIC
from tensor_bridge.composite import StringTensor
from tensor_bridge.errors import (
    InvalidOptionError,
    UnsupportedDeviceError,
    UnsupportedDtypeError,
    UnsupportedTypeError,
)

if TYPE_CHECKING:
    import torch

# TensorFlow does not require alignment; with it tensors can be views of the mapped file.
_ALIGNMENT = 64
_BLOCK = 16 << 10
_MAX_DIMS = 254  # TensorShape::MaxDimensions
_VALUE = ATTRIBUTES + VALUE
_OTHER = re.compile(
    r"\.(keras|h5|hdf5|safetensors|pth?|bin|pb|pbtxt|tflite|onnx|np[yz]|pkl|json|zip|gguf)$", re.I
)


@checks_keywords
def save(
    state: Mapping[str, torch.Tensor | StringTensor],
    prefix: str | os.PathLike[str],
    *,
    object_based: bool = True,
    overwrite: bool = False,
) -> str:
    """Writes tensors as a checkpoint that TensorFlow reads.

    Shapes, dtypes and values stay the same: no kernel is transposed.

    Args:
      state: A mapping from names to tensors, such as a ``state_dict``.
      prefix: The common beginning of the two files' names.
      object_based: Whether "layer.weight", or "layer/weight", is the path of an object, which
        ``tf.train.Checkpoint(layer=...).restore`` finds. Otherwise the names are the keys, as in
        TensorFlow 1.
      overwrite: Replaces existing files, and keeps their modes.

    Returns:
      The prefix, for ``tf.train.load_checkpoint`` or ``tf.train.Checkpoint.restore``.

    Raises:
      UnsupportedTypeError: state is not a mapping, or a value is neither a dense torch.Tensor with
        its own memory nor a StringTensor.
      UnsupportedDtypeError: TensorFlow does not have a dtype, or would lose the scale of a
        quantized one.
      UnsupportedDeviceError: A tensor on the meta device has no values.
      InvalidOptionError: A name is empty, not UTF-8, or the same path as another; a file exists,
        its folder does not exist, or the prefix has the ending of another format.
      FrameworkError: The package crc32c is not installed; checksums are part of the format.

    Example:
      >>> import torch, tensor_bridge, tensorflow as tf
      >>> prefix = tensor_bridge.checkpoint.save({"layer.w": torch.ones(2)}, "from-torch")
      >>> layer = tf.Module()
      >>> layer.w = tf.Variable([0.0, 0.0])
      >>> status = tf.train.Checkpoint(layer=layer).restore(prefix)
      >>> layer.w.numpy()
      array([1., 1.], dtype=float32)
    """
    base = _prefix(prefix)
    _check_mapping(state)
    crc = _crc.crc_function()
    keys: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, value in state.items():
        _check_value(name, value)
        key = _object_key(name) if object_based else name
        _check_name(name, key)
        if key in names:
            raise InvalidOptionError(
                f"expected names that differ, got {names[key]!r} and {name!r}, which are one path; "
                "rename one, or object_based=False takes names as they are"
            )
        keys[key], names[key] = value, name
    if object_based:
        keys[GRAPH_KEY] = StringTensor.from_list(_graph(list(keys)))
    data_path = base.with_name(f"{base.name}.data-00000-of-00001")
    index_path = base.with_name(f"{base.name}.index")
    with outputs([data_path, index_path], overwrite) as [data, index]:
        header = message((1, 1), (3, message((1, 1))))
        records = [(b"", header)]
        entries = []
        data.write(b"\0" * MARK_SIZE)
        offset = MARK_SIZE
        for key in sorted(keys, key=str.encode):
            padding = -offset % _ALIGNMENT
            data.write(b"\0" * padding)
            offset += padding
            dtype, shape, size, checksum = _write_tensor(key, keys[key], data, crc)
            records.append((key.encode(), _entry(dtype, shape, offset, size, checksum)))
            entries.append((key.encode(), dtype, shape, offset, size, checksum))
            offset += size
        digest = digest_of_entries(entries)
        data.write_at(0, bytes_of_mark(DataMark(offset, digest)))
        index.write(_table(records, [index_record(digest)], crc))
    return str(base)


def _check_mapping(state: Any) -> None:
    if not isinstance(state, Mapping):
        advice = "; its state_dict() is one" if hasattr(state, "state_dict") else ""
        raise UnsupportedTypeError(
            f"expected a mapping from names to tensors, got {_refusals.a_class(state)}{advice}"
        )
    for name in state:
        if not isinstance(name, str):
            raise UnsupportedTypeError(f"expected names to be texts, got {name!r}")


def _check_name(name: str, key: str) -> None:
    # An empty key is the header's, one that begins with NUL that of a slice.
    if not name or key == GRAPH_KEY or key[0] == "\0":
        raise InvalidOptionError(
            f"expected the name of a tensor, got {name!r}, which TensorFlow keeps for itself"
        )
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidOptionError(
            f"expected names that UTF-8 can hold, as TensorFlow reads no others, got {name!r}; "
            "rename it"
        ) from None


def _check_value(name: str, value: Any) -> None:
    """Refuses what cannot be stored, before anything is written."""
    if isinstance(value, StringTensor):
        _check_dims(name, len(value.shape))
        if bool((value.offsets[1:] < value.offsets[:-1]).any()):
            raise InvalidOptionError(f"{name!r}: expected offsets of strings that do not descend")
        return
    if not _C.is_torch_tensor(value):
        raise UnsupportedTypeError(
            f"{name!r}: expected a torch.Tensor or StringTensor, got {_refusals.a_class(value)}"
        )
    import torch

    if value.layout is not torch.strided or value.is_nested:
        layout = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
        raise UnsupportedTypeError(
            f"{name!r}: expected a dense torch.Tensor, got a {layout} one; make it dense first "
            "(to_dense(), to_padded_tensor())"
        )
    if value.is_meta:
        raise UnsupportedDeviceError(
            f"{name!r}: expected a tensor with values, got one on the meta device, which has none"
        )
    if not _has_memory(value):
        raise UnsupportedTypeError(
            f"{name!r}: expected a tensor with memory of its own, got one that a transform or a "
            "subclass wraps (torch.func, FakeTensor, DTensor, ...); save the plain tensor inside"
        )
    row = row_of(value.dtype)
    if row is None:
        raise UnsupportedDtypeError(f"{name!r}: TensorFlow has nothing for {value.dtype}")
    if row.kind == "quantized":
        raise UnsupportedDtypeError(
            f"{name!r} is quantized, and TensorFlow would lose its scale; save int_repr() for the "
            "integers, or dequantize() for the values"
        )
    _check_dims(name, value.dim())


def _check_dims(name: str, count: int) -> None:
    if count > _MAX_DIMS:
        raise UnsupportedTypeError(
            f"{name!r}: expected at most {_MAX_DIMS} dimensions, as TensorFlow has no more, got "
            f"{count}"
        )


def _has_memory(x: torch.Tensor) -> bool:
    try:
        # A FakeTensor says that it is on the CPU, its storage is not.
        if x.untyped_storage().device != x.device:
            return False
        return x.numel() == 0 or _dense.torch_address(x) != 0
    except (RuntimeError, NotImplementedError):  # "doesn't have storage"
        return False


def _prefix(value: Any) -> Path:
    base = local_path(value)
    if _OTHER.search(base.name):
        raise InvalidOptionError(
            f"{base}: expected a prefix, for what is saved is {base.name}.index and a data file "
            "beside it, which TensorFlow reads; got the name of one file of another format"
        )
    if base.name.endswith(".index") or not base.name:
        raise InvalidOptionError(f"{value}: expected a prefix, such as 'folder/model'")
    return base


def _object_key(name: str) -> str:
    parts = re.split(r"[./]", name)
    if not all(parts):
        raise InvalidOptionError(f"expected names between the dots, got {name!r}")
    return "/".join(map(escape, parts)) + _VALUE


def _graph(keys: list[str]) -> bytes:
    """The objects on the paths, each with its children, and its value if it has one."""
    children: list[dict[str, int]] = [{}]
    values: dict[int, str] = {}
    for key in keys:
        node = 0
        for part in key.removesuffix(_VALUE).split("/"):
            if part not in children[node]:
                children[node][part] = len(children)
                children.append({})
            node = children[node][part]
        values[node] = key
    nodes = []
    for number, named in enumerate(children):
        fields: list[tuple[int, int | bytes]] = [
            (1, message((1, child), (2, part.encode()))) for part, child in named.items()
        ]
        if number in values:
            key = values[number]
            full_name = key.removesuffix(_VALUE)
            parts: list[tuple[int, int | bytes]] = [(1, VALUE.encode())]
            parts += [(2, full_name.encode()), (3, key.encode())]
            fields.append((2, message(*parts)))
        fields.append((5, message((1, 1))))
        nodes.append((1, message(*fields)))
    return message(*nodes)


def _write_tensor(
    key: str, value: Any, file: Output, crc: Any
) -> tuple[int, tuple[int, ...], int, int]:
    """Appends the bytes of a tensor; its dtype, shape, size and masked checksum."""
    if isinstance(value, StringTensor):
        return _write_strings(value, file, crc)
    row = row_of(value.dtype)
    assert row is not None, key
    tensor, view = dense_bytes(value)
    checksum = 0
    for at in range(0, view.nbytes, _crc.PIECE):
        checksum = crc(view[at : at + _crc.PIECE], checksum)
    file.write(view)
    return row.tf_enum, tuple(tensor.shape), view.nbytes, _crc.mask(checksum)


def _write_strings(
    value: StringTensor, file: Output, crc: Any
) -> tuple[int, tuple[int, ...], int, int]:
    offsets = value.offsets.tolist()
    lengths = [end - begin for begin, end in pairwise(offsets)]
    tensor, view = dense_bytes(value.bytes[offsets[0] : offsets[-1]])
    stored = b"".join(varint(n) for n in lengths)
    sizes = b"".join(n.to_bytes(4 if n < 1 << 32 else 8, "little") for n in lengths)
    checksum = crc(sizes, 0)
    own = struct.pack("<I", _crc.mask(checksum))
    checksum = crc(own, checksum)
    checksum = crc(view, checksum)
    for part in (stored, own, view):
        file.write(part)
    row = row_of("string")
    assert row is not None
    size = len(stored) + 4 + view.nbytes
    del tensor
    return row.tf_enum, tuple(value.shape), size, _crc.mask(checksum)


def _entry(dtype: int, shape: tuple[int, ...], offset: int, size: int, checksum: int) -> bytes:
    dims = message(*((2, message((1, n))) for n in shape))
    body = message((1, dtype), (2, dims), (4, offset), (5, size))
    return body + varint(6 << 3 | 5) + struct.pack("<I", checksum)


def _block(records: list[tuple[bytes, bytes]], crc: Any) -> bytes:
    """Records without shared prefixes, each its own restart point, and the trailer."""
    body = bytearray()
    restarts = []
    for key, value in records:
        restarts.append(len(body))
        body += varint(0) + varint(len(key)) + varint(len(value)) + key + value
    restarts = restarts or [0]
    body += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
    body += b"\0"
    return bytes(body) + struct.pack("<I", _crc.mask(crc(bytes(body), 0)))


def _table(
    records: list[tuple[bytes, bytes]], metaindex: list[tuple[bytes, bytes]], crc: Any
) -> bytes:
    out = bytearray()
    index: list[tuple[bytes, bytes]] = []

    def add(block: list[tuple[bytes, bytes]]) -> bytes:
        packed = _block(block, crc)
        handle = varint(len(out)) + varint(len(packed) - 5)
        out.extend(packed)
        return handle

    block: list[tuple[bytes, bytes]] = []
    size = 0
    for record in records:
        block.append(record)
        size += len(record[0]) + len(record[1])
        if size > _BLOCK:
            index.append((block[-1][0], add(block)))
            block, size = [], 0
    if block:
        index.append((block[-1][0], add(block)))
    handles = add(metaindex)
    handles += add(index)
    return bytes(out) + handles.ljust(40, b"\0") + MAGIC
