"""Keras' weight files: .keras archives, .weights.h5, .weights.json with its files, older .h5."""

from __future__ import annotations

import json
import re
import struct
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import IO, cast

from tensor_bridge.checkpoint.read._crc import PIECE
from tensor_bridge.checkpoint.read._damage import damaged, reading
from tensor_bridge.checkpoint.read._entry import Entry
from tensor_bridge.checkpoint.read._files import first_bytes, is_there, read_small
from tensor_bridge.checkpoint.read._hdf5 import Hdf5File, Window, plain_path
from tensor_bridge.checkpoint.read._keras_config import (
    MAX_BYTES,
    MAX_PATH,
    Node,
    layers_of,
    parse,
)
from tensor_bridge.checkpoint.read._keras_names import Group, find_names
from tensor_bridge.checkpoint.read._layer import Layer
from tensor_bridge.checkpoint.read._mapped import MappedFile
from tensor_bridge.checkpoint.read._name_kinds import kind_of_data_set
from tensor_bridge.errors import CheckpointError

_MEMBER = "model.weights.h5"
# Limit of the list of a model's files: a million groups take less. JSON takes up to 30 times its
# bytes in memory.
_MAX_LIST = 64 << 20
# Limit of an unpacked archive. Deflate makes at most 1032 bytes from one, all equal. Trained
# weights shrink to half; weights with 99 zeros in 100 values shrink to a 60th. Zeros take no space
# on the disk, so a model of zeros only is read at any size.
_MAX_RATIO, _MAX_WRITTEN, _SMALL = 1032, 128, 64 << 20
_BLOCK = 64 << 10
_ZEROS = bytes(_BLOCK)
# Keras writes about a hundred bytes there.
_MAX_METADATA = 64 << 10


@dataclass(frozen=True)
class _Stored:
    """The texts that an archive holds beside the weights; empty if missing."""

    config: bytes = b""
    metadata: bytes = b""

    def version(self) -> int:
        """The first number of the version of Keras, or 0."""
        try:
            return int(str(json.loads(self.metadata)["keras_version"]).partition(".")[0])
        except (ValueError, KeyError, TypeError, RecursionError):
            return 0


class KerasWeights:
    """The data sets of one weight file, or of the pieces of one, under the names of their layers.

    Attributes:
      checks_all: Whether a checksum covers all of them: that of an archive's member.
      entries: In the order of the model's layers where the file has it.
    """

    format = "hdf5"

    def __init__(
        self,
        *files: Hdf5File,
        crc: tuple[int, int, int] | None = None,
        stored: _Stored | None = None,
    ) -> None:
        """Reads the structure; ``crc`` is (begin, size, CRC-32) of an archive's member."""
        hdf5 = files[0]
        self._hdf5, self._crc, self._stored = hdf5, crc, stored or _Stored()
        self.checks_all = crc is not None
        self._legacy = legacy = (
            hdf5.has("model_weights") or hdf5.texts("/", "layer_names") is not None
        )
        found = [
            file.entry(path, path, "variable", data_set)
            for file in files
            for path, data_set in file.data_sets
        ]
        named: _LegacyNames | _Names
        named = _LegacyNames(hdf5) if legacy else _Names(files, self._model, self._stored.version())
        paths = [entry.key.replace("\\", "/") for entry in found]  # as Windows wrote them
        shapes = {path: entry.shape for path, entry in zip(paths, found, strict=True)}
        integers = {p for p, entry in zip(paths, found, strict=True) if "int" in entry.dtype}
        kinds = [kind_of_data_set(path, shapes, integers, legacy) for path in paths]
        groups = [named.group(entry.key) for entry in found]
        taken = Counter((group.name, kind) for group, kind in zip(groups, kinds, strict=True))
        self.entries: list[Entry] = []
        for entry, group, kind in zip(found, groups, kinds, strict=True):
            if taken[group.name, kind] > 1:
                group = Group(entry.key, legacy)
            self.entries.append(replace(entry, name=group.name, kind=kind, named=group.named))
        self.entries.sort(key=lambda entry: named.position(entry.key))

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """The layers by the beginning of their entries' names.

        Raises:
          CheckpointError: The configuration is damaged.
        """
        model = self._config()
        try:
            found = {} if model is None else layers_of(model, by_name=self._legacy)
        except ValueError as e:
            raise self._no_config(e) from None
        return _as_entries_have_it(found, [entry.name for entry in self.entries])

    @property
    def backend(self) -> str | None:
        """Keras' backend; of Keras 1 only TensorFlow is known, by its names, which end in ":0"."""
        if said := self._attribute("backend"):
            return said
        return "tensorflow" if any(entry.key.endswith(":0") for entry in self.entries) else None

    @property
    def keras_version(self) -> str | None:
        """The version of Keras; older files do not have it."""
        return self._attribute("keras_version")

    def _attribute(self, name: str) -> str | None:
        for place in ("/", "model_weights"):
            if found := self._hdf5.texts(place, name):
                return found[0]
        return None

    def _config(self) -> Node | None:
        """The model that the file describes; None if it does not.

        Raises:
          CheckpointError: The configuration is damaged.
        """
        text: str | bytes = self._stored.config
        if not text:
            text = "".join(self._hdf5.texts("/", "model_config") or ())
        if not text:
            return None
        try:
            return parse(text)
        except ValueError as e:
            raise self._no_config(e) from None

    def _no_config(self, error: ValueError) -> CheckpointError:
        return damaged(self._hdf5.file.path, f"expected the configuration of a model: {error}")

    def _model(self) -> Node | None:
        """Like `_config`, but for names: a damaged configuration leaves them unknown."""
        try:
            return self._config()
        except CheckpointError:
            return None

    def problems(self) -> Iterator[CheckpointError]:
        """Damage that the archive's checksum shows (HDF5 has none), and a damaged configuration."""
        try:
            _ = self.layers
        except CheckpointError as e:
            yield e
        if self._crc is None:
            return
        begin, size, expected = self._crc
        found = 0
        for piece in self._hdf5.file.pieces(begin, size):
            found = zlib.crc32(piece, found)
        if found != expected:
            yield damaged(
                self._hdf5.file.path,
                f"expected the CRC-32 {expected:08x} of {_MEMBER}, got {found:08x}; the bytes are "
                "damaged",
                offset=begin,
            )


def _as_entries_have_it(layers: dict[str, Layer], names: list[str]) -> dict[str, Layer]:
    """The layers under Keras 2's names for layers of nested models: only "outer/dense"."""
    beginnings = {name[:at] for name in names for at, c in enumerate(name) if c == "/"}
    called = {}
    for path in layers:
        outer, _, last = path.partition("/")
        short = f"{outer}/{last.rpartition('/')[2]}"
        called[path] = short if path not in beginnings and short in beginnings else path
    times = Counter(called.values())
    called = {path: short if times[short] == 1 else path for path, short in called.items()}
    return {
        called[path]: replace(layer, inputs=tuple(called[name] for name in layer.inputs))
        for path, layer in layers.items()
    }


class _Names:
    """Names in files of Keras 3: a layer's name, and the number of the variable in it."""

    def __init__(
        self, files: Sequence[Hdf5File], model: Callable[[], Node | None], version: int
    ) -> None:
        self._places: dict[str, list[tuple[Hdf5File, str]]] = {}
        for file in files:
            for path in file.groups:
                # Keras on Windows joined the parts of a group's path with backslashes.
                outer, _, last = f"/{path}".replace("\\", "/").rpartition("/")
                if last == "vars":
                    self._places.setdefault(outer.lstrip("/"), []).append((file, path))
        self._groups = find_names(self._places, self._name_of, cache(model), version)

    def _name_of(self, group: str) -> str | None:
        # If several files have the group, the first one has the attribute.
        found = (file.texts(path, "name") for file, path in self._places.get(group, ()))
        name = next((names[0] for names in found if names), None)
        return name if name is None or len(name) <= MAX_PATH else None

    def group(self, path: str) -> Group:
        plain = "/" + path.replace("\\", "/")
        at = plain.find("/vars/")
        group = self._groups.get(plain[1:at] if at > 0 else "") if at >= 0 else None
        if group is None:
            return Group(path, True)
        last = plain[at + len("/vars/") :]
        return Group(f"{group.name}/{last}" if group.name else last, group.named)

    def position(self, path: str) -> tuple[object, ...]:
        """Variables by their numbers, 10 after 9."""
        pieces = re.split(r"(\d+)", path)
        return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in pieces)


class _LegacyNames:
    """Names in files of Keras 1 and 2: those of the variables, "layer/kernel"."""

    def __init__(self, hdf5: Hdf5File) -> None:
        root = "model_weights" if hdf5.has("model_weights") else ""
        self._order: dict[str, int] = {}
        for layer in dict.fromkeys(hdf5.texts(root or "/", "layer_names") or ()):
            group = f"{root}/{layer}".lstrip("/")
            # The path is normalized: a path with another spelling is a prefix of no data set.
            if plain_path(group) != group:
                continue
            for weight in hdf5.texts(group, "weight_names") or ():
                self._order.setdefault(f"{group}/{weight}", len(self._order))

    def group(self, path: str) -> Group:
        parts = path.removeprefix("model_weights/").removeprefix("optimizer_weights/").split("/")
        # Keras puts the layer's name before a name that already holds it: dense/dense/kernel,
        # dense/sequential/dense/kernel.
        layer, *rest = parts
        if layer in rest[:-1]:
            parts = rest[rest.index(layer) :]
        return Group(re.sub(r":\d+$", "", "/".join(parts)), True)

    def position(self, path: str) -> tuple[object, ...]:
        return (self._order.get(path, len(self._order)), path)


def open_keras(path: str, zipped: bool) -> KerasWeights:
    """Opens a weight file, or the one in an archive.

    Raises:
      CheckpointError: The file is damaged, or an archive without weights.
      FrameworkError: h5py is not installed.
    """
    file = MappedFile(path)
    if not zipped:
        return KerasWeights(Hdf5File(file, 0, file.size))
    with (
        reading(path, expected="an archive of Keras"),
        zipfile.ZipFile(cast("IO[bytes]", Window(file, 0, file.size))) as archive,
    ):
        if _MEMBER not in archive.namelist():
            from tensor_bridge.checkpoint.read._other_formats import refused_archive

            raise refused_archive(path, archive.namelist())
        member = archive.getinfo(_MEMBER)
        most = min(MAX_BYTES, max(1 << 20, _MAX_WRITTEN * file.size))
        stored = _Stored(
            _text(archive, "config.json", most), _text(archive, "metadata.json", _MAX_METADATA)
        )
        if member.compress_type != zipfile.ZIP_STORED:
            return _unpacked(file, archive, member, stored)
        begin = _begin_of(file, member)
        return KerasWeights(
            Hdf5File(file, begin, member.file_size),
            crc=(begin, member.file_size, member.CRC),
            stored=stored,
        )


def open_keras_folder(folder: Path) -> KerasWeights | None:
    """Opens a folder that `model.save(..., zipped=False)` wrote; None for another folder.

    Raises:
      CheckpointError: The weights are damaged.
      FrameworkError: h5py is not installed.
    """
    parts = [folder / name for name in ("config.json", "metadata.json")]
    if not all(is_there(part) for part in (*parts, folder / _MEMBER)):
        return None
    texts = [first_bytes(part, MAX_BYTES + 1) for part in parts]
    file = MappedFile(str(folder / _MEMBER))
    return KerasWeights(Hdf5File(file, 0, file.size), stored=_Stored(*texts))


def open_sharded(path: str) -> KerasWeights:
    """Opens the files that a .weights.json names, beside it.

    Raises:
      CheckpointError: It names no file, or one elsewhere; or a file is damaged.
      CheckpointNotFoundError: A file is missing.
      FrameworkError: h5py is not installed.
    """
    with reading(path, expected="JSON with a weight_map of file names"):
        groups = json.loads(read_small(path, _MAX_LIST))["weight_map"]
        # One name, or several if the variables of a layer are in several files.
        named = {n for of in groups.values() for n in ([of] if isinstance(of, str) else of)}
        names = sorted(map(str, named))
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
    """Where a member's bytes begin: after its own header, not the directory's."""
    file.check(member.header_offset, 30, _MEMBER)
    header = file.content(member.header_offset, 30)
    signature, *_, name, extra = struct.unpack("<4s5H3I2H", header)
    begin = member.header_offset + 30 + int(name) + int(extra)
    if signature != b"PK\x03\x04":
        raise damaged(
            file.path, "expected the header of a member", entry=_MEMBER, offset=member.header_offset
        )
    file.check(begin, member.file_size, _MEMBER)
    return begin


def _text(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """A small member, or nothing; its reader refuses a text that is too long."""
    if name not in archive.namelist():
        return b""
    with archive.open(name) as file:
        return file.read(most + 1)


def _unpacked(
    packed: MappedFile, archive: zipfile.ZipFile, member: zipfile.ZipInfo, stored: _Stored
) -> KerasWeights:
    """A compressed member in a temporary file that nobody else sees; zipfile checks its CRC."""
    if member.file_size > _MAX_RATIO * packed.size:
        raise ValueError(f"{member.file_size} bytes in an archive of {packed.size}")
    with tempfile.TemporaryFile(buffering=0) as target, archive.open(member) as source:
        _write_sparse(source, target, max(_SMALL, _MAX_WRITTEN * packed.size))
        file = MappedFile(f"{packed.path}:{_MEMBER}", target.fileno())
    weights = KerasWeights(Hdf5File(file, 0, file.size), stored=stored)
    weights.checks_all = True
    return weights


def _write_sparse(source: IO[bytes], target: IO[bytes], most: int) -> None:
    """Copies a file; zeros become holes, which take no space, and other bytes are limited.

    Raises:
      ValueError: There are more than ``most`` other bytes.
    """
    while piece := source.read(PIECE):
        for at in range(0, len(piece), _BLOCK):
            block = piece[at : at + _BLOCK]
            if block == _ZEROS[: len(block)]:
                target.seek(len(block), 1)
                continue
            most -= len(block)
            if most < 0:
                raise ValueError(
                    f"more than {_MAX_WRITTEN} times its size, and {_SMALL} bytes, of other bytes "
                    "than zeros; unpack it, and pack it again without compression"
                )
            target.write(block)
    target.truncate()
