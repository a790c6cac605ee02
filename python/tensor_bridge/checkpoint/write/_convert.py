"""`convert`: a checkpoint into .safetensors or torch.save's format, entry by entry."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensor_bridge._dtypes import named, row_of
from tensor_bridge._options import checks_keywords
from tensor_bridge._output import Output, dense_bytes, naming, outputs
from tensor_bridge._stored_dtypes import stored_dtype
from tensor_bridge.checkpoint.read._checkpoint import Checkpoint, Progress, check_progress, load
from tensor_bridge.checkpoint.read._entry import Entry
from tensor_bridge.checkpoint.read._mapped import MappedFile
from tensor_bridge.checkpoint.read._paths import local_path
from tensor_bridge.checkpoint.write._shards import index_path, shards
from tensor_bridge.errors import CheckpointError, InvalidOptionError, UnsupportedDtypeError

if TYPE_CHECKING:
    import torch

# safetensors' names of torch's dtypes.
_SAFETENSORS = {
    "torch.bool": "BOOL",
    "torch.uint8": "U8",
    "torch.int8": "I8",
    "torch.int16": "I16",
    "torch.uint16": "U16",
    "torch.int32": "I32",
    "torch.uint32": "U32",
    "torch.int64": "I64",
    "torch.uint64": "U64",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.float32": "F32",
    "torch.float64": "F64",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e5m2": "F8_E5M2",
    "torch.complex64": "C64",
}
# The largest header that safetensors reads (MAX_HEADER_SIZE of its src/tensor.rs, 0.8.0), and the
# header's key that is not a tensor.
_MAX_HEADER, _NOT_A_TENSOR = 100_000_000, "__metadata__"
# Bytes of the mapping that torch.save may have read before the pages are released.
_KEPT = 64 << 20


@dataclass(frozen=True)
class _Item:
    entry: Entry
    raw: bool
    dtype: torch.dtype
    nbytes: int


@checks_keywords
def convert(
    source: str | os.PathLike[str] | Checkpoint,
    target: str | os.PathLike[str],
    *,
    max_shard_bytes: int | None = None,
    skip_strings: bool = False,
    verify: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Writes the variables of a checkpoint as ``.safetensors``, ``.pt`` or ``.pth``.

    Names, shapes, dtypes and values stay the same. The kernel copies bytes that need no change from
    file to file. Other tensors are made one at a time, so memory never holds more than the largest;
    for ``.pt`` they are stored meanwhile in a file without a name beside the target. A file gets
    its name when it is complete.

    Args:
      source: A path as for `load`, or an open checkpoint. Its files are read, so writes to its
        tensors are not stored. If it was opened with ``raw=True``, the plain integers are stored.
      target: The file. Its ending decides the format.
      max_shard_bytes: Splits ``.safetensors`` into files with at most that many bytes of tensors,
        and an index ``<target>.index.json`` for Hugging Face's libraries. If it replaces an index,
        the files get new names, and the files of the old index are removed.
      skip_strings: Skips strings, which neither format can store, instead of refusing them.
      verify: Compares all checksums first.
      overwrite: Replaces existing files, and keeps their modes.
      progress: Called with the number of bytes done and the total.

    Returns:
      The paths of the files, an index last.

    Raises:
      UnsupportedDtypeError: The format does not have a dtype.
      InvalidOptionError: The format cannot store a name or a shape, a file exists, its folder does
        not exist, or the ending is unknown.
      CheckpointError: The checkpoint has no variables, or as `load`.
      CheckpointNotFoundError, FrameworkError: As `load`.
    """
    check_progress(progress)
    path = local_path(target)
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise InvalidOptionError(
            f"expected a target .safetensors, .pt or .pth, got {path.name!r}; save() writes "
            "checkpoints of TensorFlow"
        )
    if max_shard_bytes is not None and (max_shard_bytes < 1 or path.suffix != ".safetensors"):
        raise InvalidOptionError("max_shard_bytes is a positive number, for .safetensors")
    checkpoint = source if isinstance(source, Checkpoint) else load(source)
    if not checkpoint:
        raise CheckpointError(
            f"{checkpoint.path}: expected variables to write, got {checkpoint.summary}"
        )
    report = (lambda done, total: None) if progress is None else progress
    if verify:
        checkpoint.verify(progress=report)
    entries = [
        entry
        for entry in checkpoint.entries.values()
        if not (skip_strings and entry.dtype == "string")
    ]
    if not entries:
        raise InvalidOptionError(
            f"{checkpoint.path}: without strings there is nothing to write; skip_strings=True left "
            "out all variables"
        )
    items = [_item(entry, checkpoint.raw) for entry in entries]
    if path.suffix != ".safetensors":
        return _write_torch(items, path, overwrite, report)
    return _write_safetensors(items, path, max_shard_bytes, overwrite, report)


def _item(entry: Entry, raw: bool) -> _Item:

    if entry.quantization is not None and not raw:
        raise UnsupportedDtypeError(
            f"{entry.name!r} is quantized, which the format cannot hold; convert(load(path, "
            "raw=True), ...) writes the plain integers, whose scales are in entries"
        )

    row = row_of(entry.dtype)
    if row is None or row.name == "string":
        raise UnsupportedDtypeError(
            f"{entry.name!r} is of dtype {entry.dtype}, which the format cannot hold; "
            "skip_strings=True leaves strings out"
        )
    dtype = stored_dtype(row, raw)
    if row.kind == "converted" and not (raw and entry.quantization is None):
        dtype = named(row.nearest)
    # Even with a size of zero among them: torch and safetensors multiply the others.
    if prod(max(size, 1) for size in entry.shape) >= 1 << 63:
        raise InvalidOptionError(
            f"{entry.name!r}: neither format can hold the shape {entry.shape}, whose sizes overflow"
        )
    return _Item(entry, raw, dtype, prod(entry.shape) * dtype.itemsize)


def _append(item: _Item, file: Output) -> None:
    extent = item.entry.extent() if item.nbytes else None
    if extent is not None:
        with naming(file.path):
            extent.file.copy_to(file.fd, extent.offset, extent.size)
    elif item.nbytes:
        tensor, view = dense_bytes(item.entry.read(item.raw))
        file.write(view)
        del tensor


class _Stream:
    """The file for torch.save: counts bytes, and releases the pages that were read for them."""

    def __init__(self, file: Output, sources: list[MappedFile], total: int, report: Progress):
        self._file, self._sources, self._total, self._report = file, sources, total, report
        self._done = self._kept = 0
        self.error: BaseException | None = None

    def write(self, data: Any) -> int:
        try:
            return self._write(data)
        except BaseException as e:  # torch.save raises its own error instead
            self.error = e
            raise

    def _write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._file.write(data)
        self._done += size
        self._kept += size
        if self._kept >= _KEPT:
            for source in self._sources:
                source.drop()
            self._kept = 0
        # torch.save's framing does not count as progress.
        self._report(min(self._done, self._total), self._total)
        return size

    def flush(self) -> None:
        """Does nothing: no bytes are buffered."""


def _write_torch(items: list[_Item], path: Path, overwrite: bool, report: Progress) -> list[Path]:
    import torch

    total = sum(item.nbytes for item in items)
    with outputs([path], overwrite) as [file], file.scratch() as unnamed:
        report(0, total)
        places = [_place(item, unnamed) for item in items]
        made = MappedFile(f"{path.parent}, a file without a name", unnamed.fd)
        state = {}
        for item, (source, offset) in zip(items, places, strict=True):
            # Stored as bytes, which need no aligned address; copies would double the memory.
            stored = (source or made).stored(offset, item.entry.shape, item.dtype)
            state[item.entry.name] = stored
        sources = {id(source): source for source, _ in places if source is not None}
        stream = _Stream(file, [*sources.values(), made], total, report)
        try:
            torch.save(state, stream)
        except RuntimeError as e:
            if stream.error is not None:
                raise stream.error from None
            if isinstance(e.__context__, KeyboardInterrupt):  # between two calls of the stream
                raise e.__context__ from None
            raise
        report(total, total)
    return [path]


def _place(item: _Item, unnamed: Output) -> tuple[MappedFile | None, int]:
    """Where the bytes of a tensor are in a file; None means the end of the unnamed file."""
    extent = item.entry.extent() if item.nbytes else None
    if extent is not None:
        return extent.file, extent.offset
    offset = unnamed.size
    if item.nbytes:
        tensor, view = dense_bytes(item.entry.read(item.raw))
        unnamed.write(view)
        del tensor
    return None, offset


def _parts(items: list[_Item], limit: int | None) -> list[list[_Item]]:
    parts: list[list[_Item]] = [[]]
    size = 0
    for item in items:
        if parts[-1] and limit is not None and size + item.nbytes > limit:
            parts.append([])
            size = 0
        parts[-1].append(item)
        size += item.nbytes
    return parts


def _header(items: list[_Item]) -> bytes:
    entries: dict[str, Any] = {_NOT_A_TENSOR: {"format": "pt"}}
    at = 0
    for item in items:
        entries[item.entry.name] = {
            "dtype": _SAFETENSORS[str(item.dtype)],
            "shape": list(item.entry.shape),
            "data_offsets": [at, at + item.nbytes],
        }
        at += item.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _refuse_what_safetensors_lacks(item: _Item) -> None:
    name = item.entry.name
    if str(item.dtype) not in _SAFETENSORS:
        raise UnsupportedDtypeError(f"{name!r}: .safetensors has nothing for {item.dtype}; .pt has")
    if name == _NOT_A_TENSOR or not _is_utf8(name):
        raise InvalidOptionError(
            f"{name!r} cannot be the name of a tensor in .safetensors, which keeps "
            f"{_NOT_A_TENSOR!r} for itself and has its names in UTF-8; .pt holds any name"
        )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _write_safetensors(
    items: list[_Item], path: Path, limit: int | None, overwrite: bool, report: Progress
) -> list[Path]:
    for item in items:
        _refuse_what_safetensors_lacks(item)
    total = sum(item.nbytes for item in items)
    # The widest dtypes first, so that each tensor begins at a multiple of its element size.
    parts = [
        sorted(part, key=lambda item: (-item.dtype.itemsize, item.entry.name))
        for part in _parts(items, limit)
    ]
    if len(parts) > 1 and not _is_utf8(path.name):
        raise InvalidOptionError(
            f"{path}: expected a name in UTF-8, as the index of several files names them in JSON"
        )
    headers = [_header(part) for part in parts]
    if (longest := max(map(len, headers))) > _MAX_HEADER + 8:
        raise InvalidOptionError(
            f"{path}: expected names and shapes that take at most {_MAX_HEADER} bytes, which is "
            f"what safetensors reads, got {longest}; max_shard_bytes makes several files, .pt "
            "holds all"
        )

    def index_of(names: list[str]) -> bytes:
        where = {i.entry.name: name for part, name in zip(parts, names, strict=True) for i in part}
        index = {"metadata": {"total_size": total}, "weight_map": where}
        return json.dumps(index, indent=2).encode()

    done = 0
    report(0, total)
    if len(parts) == 1:
        opened = outputs([path], overwrite)
    else:
        opened = shards(path, len(parts), overwrite, index_of)
    with opened as files:
        for part, header, file in zip(parts, headers, files, strict=True):
            file.write(header)
            for item in part:
                _append(item, file)
                done += item.nbytes
                report(done, total)
    return [*(file.path for file in files), *([index_path(path)] if len(parts) > 1 else [])]
