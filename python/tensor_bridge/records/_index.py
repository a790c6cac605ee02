"""RecordIndex: the place of each record in some files, for random access; it can be saved.

The saved file has a magic number, the length of a header as uint64, the header in JSON, and the
offset of each record in its file as int64. All numbers are little-endian.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensor_bridge._output import outputs
from tensor_bridge.records._damage import damaged, not_found
from tensor_bridge.records._mapping import open_file
from tensor_bridge.records._paths import is_url
from tensor_bridge.records._record_file import HEADER, RecordFile, RecordStats

if TYPE_CHECKING:
    import torch

__all__ = ["RecordIndex", "index_of"]

_MAGIC = b"TBRECIX1"
_MOST_HEADER = 1 << 30
_AT_ONCE = 1 << 16


@dataclass(frozen=True, eq=False)
class RecordIndex:
    """The places of records in files.

    Attributes:
      paths: The files.
      stamps: For each file its size in bytes, and its modification time in nanoseconds.
      ends: For each file the number of records up to its end, int64 of shape ``(files,)``.
      offsets: Offset of each record in its file, int64 of shape ``(records,)``.
      skip: Whether damaged records were left out.
      stats: How many records there are and were left out, and their bytes.
    """

    paths: list[str]
    stamps: list[tuple[int, int]]
    ends: torch.Tensor
    offsets: torch.Tensor
    skip: bool
    stats: RecordStats

    def __len__(self) -> int:
        return int(self.offsets.shape[0])

    def check(self, file: int, size: int) -> None:
        """Raises RecordError unless the file of that number has the size of the indexed one."""
        if size != self.stamps[file][0]:
            message = "the file has changed since its index was made; open it again"
            raise damaged(self.paths[file], message)

    def save(self, path: str) -> None:
        """Writes the index to a file. An existing file is replaced when the new one is complete."""
        data = memoryview(_bytes_of(self.offsets))
        files = [
            {"name": Path(name).name, "size": size, "mtime_ns": mtime, "end": end}
            for name, (size, mtime), end in zip(
                self.paths, self.stamps, self.ends.tolist(), strict=True
            )
        ]
        said = {"files": files, "skip": self.skip, "stats": vars(self.stats)}
        header = json.dumps({**said, "crc32": _sum(said, data)}).encode()
        with outputs([Path(path)], overwrite=True) as (file,):
            file.write(_MAGIC + len(header).to_bytes(8, "little") + header)
            file.write(data)


def _sum(said: dict[str, Any], data: bytes | bytearray | memoryview) -> int:
    """The checksum of a header, without that sum, and of the offsets."""
    return zlib.crc32(data, zlib.crc32(json.dumps(said).encode()))


def _bytes_of(tensor: torch.Tensor) -> bytes:
    import ctypes

    return ctypes.string_at(tensor.data_ptr(), 8 * tensor.numel()) if tensor.numel() else b""


def _stamp(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 - ten times as fast, for thousands of files
    except FileNotFoundError:
        raise not_found(path) from None
    except (OSError, ValueError) as e:
        raise damaged(path, f"expected a file that can be opened: {e}") from None
    return found.st_size, found.st_mtime_ns


def index_of(
    paths: list[str], saved: str | None = None, *, skip: bool = False, progress: Any = None
) -> RecordIndex:
    """Returns the index of files, made in one pass over the lengths of their records.

    Args:
      paths: Uncompressed files on this machine.
      saved: The file of a saved index. It is written if it is missing or damaged, or if the names,
        sizes or times of the files differ from it.
      skip: Whether to leave out damaged records, which needs all bytes of the files.
      progress: Called with each path before the file is read.

    Raises:
      RecordError: A file is damaged, compressed or a URL, or `saved` is not an index.
      RecordNotFoundError: A file is missing.
    """
    stamps = [_stamp(path) if not is_url(path) else (0, 0) for path in paths]
    if saved is not None and (found := _load(saved, paths, stamps, skip)) is not None:
        return found
    index = _built(paths, stamps, skip, progress)
    if saved is not None:
        index.save(saved)
    return index


def _load(
    saved: str, paths: list[str], stamps: list[tuple[int, int]], skips: bool
) -> RecordIndex | None:
    """The saved index, or None if it does not match these files or `skips`."""
    import torch

    try:
        descriptor = open_file(saved)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        start = file.read(16)
        length = int.from_bytes(start[8:], "little")
        if start[:8] != _MAGIC:
            if start:
                raise damaged(saved, "expected an index of records to replace, got another file")
            return None
        if length > min(_MOST_HEADER, os.fstat(descriptor).st_size):
            return None
        text, data = file.read(length), bytearray(file.read())
    try:
        header = json.loads(text)
        crc = header.pop("crc32")
        files = header["files"]
        names = [(f["name"], f["size"], f["mtime_ns"]) for f in files]
        ends = torch.tensor([f["end"] for f in files], dtype=torch.int64, device="cpu")
        skip, stats = header["skip"], RecordStats(**header["stats"])
    except (
        AttributeError,
        ValueError,
        TypeError,
        KeyError,
        RuntimeError,
        OverflowError,
        RecursionError,
    ):
        return None
    wanted = [
        (Path(path).name, size, mtime) for path, (size, mtime) in zip(paths, stamps, strict=True)
    ]
    count = len(data) // 8
    if names != wanted or len(data) % 8 or _sum(header, data) != crc:
        return None
    if int(ends[-1]) != count or int(ends[0]) < 0 or bool((ends.diff() < 0).any()):
        return None
    # An index made with skip leaves records out, and a dataset that raises must not miss them.
    if skip != skips and (skips or stats.skipped_records):
        return None
    offsets = (
        torch.frombuffer(data, dtype=torch.int64)
        if count
        else torch.empty(0, dtype=torch.int64, device="cpu")
    )
    return RecordIndex(paths, stamps, ends, offsets, skip, stats)


def _built(
    paths: list[str], stamps: list[tuple[int, int]], skip: bool, progress: Any
) -> RecordIndex:
    import torch

    parts, ends, total, stats = [], [], 0, RecordStats()
    for path in paths:
        if progress is not None:
            progress(path)
        file = RecordFile(path, verify=skip, on_error="skip" if skip else "raise")
        for part in _offsets(file):
            parts.append(part)
            total += len(part)
        stats.add(file.stats())
        ends.append(total)
    offsets = torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64, device="cpu")
    ends_of = torch.tensor(ends, dtype=torch.int64, device="cpu")
    return RecordIndex(paths, stamps, ends_of, offsets, skip, stats)


def _offsets(file: RecordFile) -> list[torch.Tensor]:
    """The offsets of a file's records."""
    if file.compression or is_url(file.path):
        what = f"compressed with {file.compression}" if file.compression else "a URL"
        raise damaged(
            file.path,
            "expected an uncompressed file on this machine for random access, got one that is "
            f"{what}; decompress or copy it, or use records.IterableRecordDataset",
        )
    return [batch.begins - HEADER for batch in file.batches(_AT_ONCE)]
