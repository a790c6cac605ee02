"""Keras' weight files: .keras archives, .weights.h5, .weights.json with its files, older .h5."""

from __future__ import annotations

import json
import re
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tensor_bridge.checkpoint.read._crc import PIECE
from tensor_bridge.checkpoint.read._entry import Entry
from tensor_bridge.checkpoint.read._hdf5 import Hdf5File
from tensor_bridge.checkpoint.read._mapped import MappedFile, damaged
from tensor_bridge.errors import CheckpointError

__all__ = ["KerasWeights", "open_keras", "open_sharded"]

_MEMBER = "model.weights.h5"
# Groups that only say what kind of children follow.
_GROUPING = {"layers", "vars", "_layer_checkpoint_dependencies"}
_OPTIMIZER = {"optimizer", "optimizer_weights"}
# The list of files that hold a model in pieces; a million groups take less.
_MAX_LIST = 256 << 20


class KerasWeights:
    """The data sets of one weight file, or of the pieces of one, under the names of their layers.

    Attributes:
      entries: In the order of the model's layers where the file has it.
    """

    def __init__(self, *files: Hdf5File, crc: tuple[int, int, int] | None = None) -> None:
        """Reads the structure; ``crc`` is (begin, size, CRC-32) of an archive's member."""
        hdf5 = files[0]
        self._hdf5, self._crc = hdf5, crc
        legacy = hdf5.has("model_weights") or hdf5.texts("/", "layer_names") is not None
        self.entries: list[Entry] = []
        taken: set[tuple[str, str]] = set()
        named = _LegacyNames(hdf5) if legacy else _Names(files)
        for file in files:
            for path, data_set in file.data_sets():
                kind = "slot" if path.split("/")[0] in _OPTIMIZER else "variable"
                name = named.name(path)
                if (name, kind) in taken:
                    name = path
                taken.add((name, kind))
                self.entries.append(file.entry(path, name, kind, data_set))
        self.entries.sort(key=lambda entry: named.position(entry.key))

    def problems(self) -> Iterator[CheckpointError]:
        """What the archive's checksum says; HDF5 has none."""
        if self._crc is None:
            return
        begin, size, expected = self._crc
        found, at = 0, begin
        while at < begin + size:
            count = min(PIECE, begin + size - at)
            with self._hdf5.file.piece(at, count) as piece:
                found = zlib.crc32(piece, found)
            self._hdf5.file.drop()
            at += count
        if found != expected:
            yield damaged(
                self._hdf5.file.path,
                f"expected the CRC-32 {expected:08x} of {_MEMBER}, got {found:08x}; the bytes are "
                "damaged",
                offset=begin,
            )


class _Names:
    """Names in files of Keras 3: a layer's name, and the number of the variable in it."""

    def __init__(self, files: Sequence[Hdf5File]) -> None:
        self._files = files
        self._called: dict[str, str] = {}

    def _name_of(self, group: str, own: str) -> str:
        # The group is called for the class ("conv2d_1"), its attribute has the layer's name. Of
        # several files that have the group the first has the attribute.
        if group not in self._called:
            variables = f"{group}/vars"
            found = (f.texts(variables, "name") for f in self._files if f.has(variables))
            self._called[group] = next((names[0] for names in found if names), own)
        return self._called[group]

    def name(self, path: str) -> str:
        parts = path.split("/")
        *groups, last = parts
        out = [
            self._name_of("/".join(parts[: i + 1]), part)
            for i, part in enumerate(groups)
            if part not in _GROUPING
        ]
        return "/".join([*out, last])

    def position(self, path: str) -> tuple[object, ...]:
        """Variables by their numbers, 10 after 9."""
        pieces = re.split(r"(\d+)", path)
        return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in pieces)


class _LegacyNames:
    """Names in files of Keras 1 and 2: those of the variables, "layer/kernel"."""

    def __init__(self, hdf5: Hdf5File) -> None:
        root = "model_weights" if hdf5.has("model_weights") else ""
        self._order: dict[str, int] = {}
        for layer in hdf5.texts(root or "/", "layer_names") or ():
            group = f"{root}/{layer}".lstrip("/")
            if not hdf5.has(group):
                continue
            for weight in hdf5.texts(group, "weight_names") or ():
                self._order.setdefault(f"{group}/{weight}", len(self._order))

    def name(self, path: str) -> str:
        parts = path.removeprefix("model_weights/").removeprefix("optimizer_weights/").split("/")
        # Keras puts the layer's name before one that holds it already: dense/dense/kernel,
        # dense/sequential/dense/kernel.
        layer, *rest = parts
        if layer in rest[:-1]:
            parts = rest[rest.index(layer) :]
        return re.sub(r":\d+$", "", "/".join(parts))

    def position(self, path: str) -> tuple[object, ...]:
        return (self._order.get(path, len(self._order)), path)


def open_keras(path: str, zipped: bool) -> KerasWeights:
    """Opens a weight file, or the one in an archive.

    Raises:
      CheckpointError: The file is damaged, or an archive without weights.
      FrameworkError: h5py is not installed.
    """
    if not zipped:
        file = MappedFile(path)
        return KerasWeights(Hdf5File(file, 0, file.size))
    try:
        with zipfile.ZipFile(path) as archive:
            if _MEMBER not in archive.namelist():
                raise damaged(
                    path,
                    f"expected an archive of Keras with {_MEMBER}, got "
                    f"{', '.join(archive.namelist()[:5])}",
                )
            member = archive.getinfo(_MEMBER)
            if member.compress_type != zipfile.ZIP_STORED:
                return _unpacked(path, archive, member)
            file = MappedFile(path)
            begin = _begin_of(file, member)
            return KerasWeights(
                Hdf5File(file, begin, member.file_size),
                crc=(begin, member.file_size, member.CRC),
            )
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as e:
        raise damaged(path, f"expected an archive of Keras: {e}") from None


def open_sharded(path: str) -> KerasWeights:
    """Opens the files that a .weights.json names, beside it.

    Raises:
      CheckpointError: It names none, or one elsewhere; or one is damaged.
      CheckpointNotFoundError: One is missing.
      FrameworkError: h5py is not installed.
    """
    if Path(path).stat().st_size > _MAX_LIST:
        raise damaged(path, f"expected at most {_MAX_LIST} bytes of JSON")
    try:
        groups = json.loads(Path(path).read_bytes())["weight_map"]
        # One name, or several where the variables of a layer are in several files.
        named = {n for of in groups.values() for n in ([of] if isinstance(of, str) else of)}
        names = sorted(map(str, named))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise damaged(path, f"expected JSON with a weight_map of file names: {e!r}") from None
    if not names:
        raise damaged(path, "expected a weight_map of file names, got an empty one")
    files = []
    for name in names:
        if Path(name).name != name:
            raise damaged(path, f"expected names of files beside it, got {name!r}")
        file = MappedFile(str(Path(path).with_name(name)))
        files.append(Hdf5File(file, 0, file.size))
    return KerasWeights(*files)


def _begin_of(file: MappedFile, member: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: behind a header of its own, not the directory's."""
    file.check(member.header_offset, 30, _MEMBER)
    with file.piece(member.header_offset, 30) as header:
        signature, *_, name, extra = struct.unpack("<4s5H3I2H", header)
    begin = member.header_offset + 30 + int(name) + int(extra)
    if signature != b"PK\x03\x04":
        raise damaged(
            file.path, "expected the header of a member", entry=_MEMBER, offset=member.header_offset
        )
    file.check(begin, member.file_size, _MEMBER)
    return begin


def _unpacked(path: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> KerasWeights:
    """A compressed member in a temporary file that nobody else sees; zipfile checks its CRC."""
    with tempfile.TemporaryFile() as target, archive.open(member) as source:
        while piece := source.read(PIECE):
            target.write(piece)
        target.flush()
        file = MappedFile(f"{path}:{Path(_MEMBER)}", target.fileno())
    return KerasWeights(Hdf5File(file, 0, file.size))
