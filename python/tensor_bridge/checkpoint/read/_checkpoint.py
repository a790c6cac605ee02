"""`load`, and the mapping that it returns."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tensor_bridge._options import checks_keywords
from tensor_bridge._printable import printable
from tensor_bridge.checkpoint.read._bundle import Bundle
from tensor_bridge.checkpoint.read._damage import damaged, reading
from tensor_bridge.checkpoint.read._entry import Entry
from tensor_bridge.checkpoint.read._files import HDF5_MAGIC, first_bytes, is_folder, is_there
from tensor_bridge.checkpoint.read._names import GRAPH_KEY
from tensor_bridge.checkpoint.read._paths import local_path
from tensor_bridge.checkpoint.read._table import is_table
from tensor_bridge.checkpoint.read._verification import Verification
from tensor_bridge.errors import CheckpointNotFoundError, InvalidOptionError

if TYPE_CHECKING:
    import torch

    from tensor_bridge.checkpoint.read._layer import Layer

_Value_co = TypeVar("_Value_co", covariant=True)

Progress = Callable[[int, int], None]
# The suffix of the variable's name under which TensorFlow 1 stores its moving average.
_AVERAGE = "/ExponentialMovingAverage"
_ZIP_MAGIC = b"PK\x03\x04"
# Bytes at the beginning of a file that show its format.
_HEAD = 1024
_EMPTY_ZIP = b"PK\x05\x06"


def near_misses(name: str, names: Any) -> str:
    """``; did you mean ...?`` with the most similar names, or nothing."""
    from difflib import get_close_matches

    found = get_close_matches(name, list(names), n=3, cutoff=0.6)
    return f"; did you mean {', '.join(map(repr, found))}?" if found else ""


def check_progress(progress: Any) -> None:
    """Raises InvalidOptionError if it is neither None nor a function."""
    if progress is not None and not callable(progress):
        raise InvalidOptionError(
            f"progress must be None or a function of two ints, got {progress!r}; give one that "
            "shows the bytes done and their total: progress=lambda done, total: print(done, total)"
        )


class Entries(Mapping[str, _Value_co]):
    """A mapping from names to tensors, which are made when they are used.

    Attributes:
      entries: Names to `Entry`: dtype, shape and place in the file, without reading the tensor.
    """

    def __init__(self, entries: dict[str, Entry], what: str, raw: bool) -> None:
        self.entries: Mapping[str, Entry] = entries
        self._what = what
        self._raw = raw

    def __getitem__(self, name: str) -> _Value_co:
        entry = self.entries.get(name)
        if entry is None:
            raise KeyError(f"{name!r} is no {self._what} of the checkpoint{self._hint(name)}")
        value: _Value_co = entry.read(self._raw)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __repr__(self) -> str:
        return f"<{len(self)} of kind {self._what}>"

    def _hint(self, name: Any) -> str:
        return near_misses(str(name), self.entries)


class Checkpoint(Entries["torch.Tensor"]):
    """A checkpoint as a mapping from the names of its variables to torch tensors.

    Nothing is read before a tensor is used, and each access makes a new tensor on the CPU. If the
    bytes can be used directly, it is a view of the privately mapped file: then only the pages that
    are used are read; writes to it stay in this process, and later accesses see them. Otherwise it
    is an ordinary copy. Strings are `tensor_bridge.StringTensor`, which type checkers are not told:
    they see a torch.Tensor until an ``isinstance``. Tensors keep the files open.

    Attributes:
      path: The path that was opened.
      format: "bundle" (TensorFlow's checkpoints and SavedModels), "v1" (checkpoints of its first
        format), "hdf5" (Keras), "frozen_graph" or "tflite".
      raw: As given to `load`.
      slots: State of optimizers for each variable, "optimizer/slot/variable".
      counters: The save counter, TensorFlow 1's global step and so on.
      state: Other state of training: metrics, settings of optimizers, loss scales, random
        generators; and the copies that Keras 3's ``model.export()`` stores.
      metadata: The object graph, configurations.
    """

    def __init__(self, source: Any, path: str, raw: bool) -> None:
        by_kind: dict[str, dict[str, Entry]] = {
            kind: {} for kind in ("variable", "slot", "counter", "state", "metadata")
        }
        for entry in source.entries:
            if entry.name in by_kind[entry.kind]:
                raise damaged(path, "expected names that differ, got one twice", entry=entry.name)
            by_kind[entry.kind][entry.name] = entry
        super().__init__(by_kind["variable"], "variable", raw)
        self._source = source
        self._layers: Mapping[str, Layer] | None = None
        self.path = path
        self.raw = raw
        self.format: str = source.format
        self.slots: Entries[torch.Tensor] = Entries(by_kind["slot"], "slot", raw)
        self.counters: Entries[torch.Tensor] = Entries(by_kind["counter"], "counter", raw)
        self.state: Entries[Any] = Entries(by_kind["state"], "state", raw)
        self.metadata: Entries[Any] = Entries(by_kind["metadata"], "piece of metadata", raw)

    def __repr__(self) -> str:
        return printable(f"<Checkpoint {self.path}: {self.summary}>")

    @property
    def summary(self) -> str:
        """The number of variables and of other entries, as text."""
        if not self:
            if is_there(Path(self.path, "saved_model.pb")):
                return "a SavedModel without variables, nor weights among its graph's constants"
            if is_there(Path(self.path, "saved_model.pbtxt")):
                return "a SavedModel without variables, whose graph is text and is not read"
            return "no variables"
        others = (("slots", self.slots), ("counters", self.counters), ("state", self.state))
        parts = [f"{len(self)} variables", *(f"{len(group)} {n}" for n, group in others if group)]
        return ", ".join(parts)

    def _hint(self, name: Any) -> str:
        for kind in ("slots", "counters", "state", "metadata"):
            if name in getattr(self, kind):
                return f"; it is among its {kind}: checkpoint.{kind}[{name!r}]"
        return super()._hint(name)

    @property
    def all_entries(self) -> list[Entry]:
        """Entries of every kind."""
        return [
            entry
            for group in (self, self.slots, self.counters, self.state, self.metadata)
            for entry in group.entries.values()
        ]

    @property
    def backend(self) -> str | None:
        """The backend of Keras that wrote the file, such as "theano"; None if it is not stored."""
        with reading(self.path):
            backend: str | None = getattr(self._source, "backend", None)
            return backend

    @property
    def keras_version(self) -> str | None:
        """The version of Keras that wrote a .h5 file; None if it is not stored."""
        with reading(self.path):
            version: str | None = getattr(self._source, "keras_version", None)
            return version

    @property
    def averages(self) -> Mapping[str, torch.Tensor]:
        """The variables; those with a moving average in the file have that as their value.

        A source for `load_into`, by the names of the variables. The averages are those of
        TensorFlow 1's `tf.train.ExponentialMovingAverage`, with which such models are evaluated;
        among `slots` they are "variable/ExponentialMovingAverage".

        Raises:
          CheckpointError: The checkpoint has no averages.
        """
        found = {
            name.removesuffix(_AVERAGE): entry
            # The average of a variable that was not saved itself counts as a variable.
            for entries in (self.entries, self.slots.entries)
            for name, entry in entries.items()
            if name.endswith(_AVERAGE)
        }
        if not found:
            raise damaged(
                self.path,
                f"expected moving averages, entries named variable{_AVERAGE}, got none; the "
                "variables are in the checkpoint itself",
            )
        plain = {n: e for n, e in self.entries.items() if not n.endswith(_AVERAGE)}
        return Entries({**plain, **found}, "variable", self._raw)

    @property
    def layers(self) -> Mapping[str, Layer]:
        """The Keras layers that the file describes, by the common beginning of their variables.

        For a .keras archive, an .h5 file with a model and a SavedModel of Keras 2; else empty.

        Raises:
          CheckpointError: The configuration is damaged.
        """
        with reading(self.path):
            if self._layers is None:
                self._layers = getattr(self._source, "layers", None)
            if self._layers is None:
                from tensor_bridge.checkpoint.read._saved_layers import saved_layers

                self._layers = saved_layers(Path(self.path))
        return self._layers

    @property
    def names_known(self) -> bool:
        """Whether the file has the name of each variable's layer; see `Entry.named`."""
        return all(entry.named for entry in self.entries.values())

    @property
    def variable_names(self) -> dict[str, str]:
        """The variables' names in TensorFlow ("dense/kernel"), by their names here.

        For an object-based checkpoint; else empty.

        Raises:
          CheckpointError: The object graph is damaged.
        """
        from tensor_bridge.checkpoint.read._object_graph import variable_names

        if GRAPH_KEY not in self.metadata:
            return {}
        entry = self.metadata.entries[GRAPH_KEY]
        graph = entry.read(False)
        if entry.dtype != "string" or entry.shape != ():
            raise damaged(entry.file, "expected the object graph as one string", entry=entry.key)
        with reading(entry.file, entry.key, entry.offset):
            by_key = variable_names(bytes(graph.bytes.tolist()))
        return {n: by_key[e.key] for n, e in self.entries.items() if e.key in by_key}

    def problems(self, progress: Progress | None = None) -> Iterator[Exception]:
        """Reads every byte and yields an exception for each entry or block that is damaged.

        Writes to tensors of the checkpoint are not in its files, and are not checked.

        Args:
          progress: Called with the number of bytes done and the total, after each entry.

        Raises:
          FrameworkError: The package crc32c is not installed.
          InvalidOptionError: ``progress`` is no function.
        """
        check_progress(progress)
        return self._problems(progress)

    def _problems(self, progress: Progress | None) -> Iterator[Exception]:
        entries = self.all_entries
        done, total = 0, sum(entry.nbytes for entry in entries)
        if progress is not None:
            progress(done, total)
        with reading(self.path):
            yield from self._source.problems()
        for entry in entries:
            yield from entry.problems()
            done += entry.nbytes
            if progress is not None:
                progress(done, total)

    def verify(self, progress: Progress | None = None) -> Verification:
        """Reads every byte and compares all checksums.

        Args:
          progress: As for `problems`.

        Returns:
          How many tensors have a checksum, which matches their bytes, and how many have none.

        Raises:
          CheckpointError: An entry is damaged; the error has the file, entry and offset of the
            first.
          CheckpointNotFoundError: A data file is missing.
          FrameworkError: The package crc32c is not installed.
        """
        for problem in self.problems(progress):
            raise problem
        return self.checksums()

    def checksums(self) -> Verification:
        """How many tensors have a checksum. None is compared."""
        entries = self.all_entries
        covered = getattr(self._source, "checks_all", False)
        compared = len(entries) if covered else sum(entry.has_checksum for entry in entries)
        return Verification(compared, len(entries) - compared)


@checks_keywords
def load(path: str | os.PathLike[str], *, verify: bool = False, raw: bool = False) -> Checkpoint:
    """Opens a checkpoint of TensorFlow or Keras, without TensorFlow.

    Args:
      path: The prefix of a checkpoint, its ``.index`` file, a checkpoint of TensorFlow's first
        format (one file, or the prefix of several), a folder with a ``checkpoint`` file (the
        latest one is used), a SavedModel, a file ``.keras``, ``.weights.h5``, ``.weights.json``
        (with its pieces beside it) or ``.h5``, which need the extra ``h5``; a frozen graph
        (``.pb``, ``.meta``) or a model of TensorFlow Lite (``.tflite``). The content of a file
        decides its format, not its name.
      verify: Reads all files now and compares their checksums. HDF5 files usually have none; a
        ``.keras`` archive has one.
      raw: Returns the stored bytes as uint8 of a dtype that torch lacks, and the plain integers of
        a quantized one.

    Returns:
      A lazy mapping from names to torch tensors on the CPU, with the shapes of the file and torch's
      dtype of the same name, or the nearest one that holds all values.

    Raises:
      CheckpointNotFoundError: There is no checkpoint at the path.
      UnsupportedFileError: The format of a file is not supported; the message names it.
      CheckpointError: A file is damaged or truncated.
      UnsupportedTypeError, InvalidOptionError: path is not a path of a local file.
      FrameworkError: torch, crc32c (``verify``) or h5py is not installed.

    Example:
      >>> import tensorflow as tf, tensor_bridge
      >>> layer = tf.Module()
      >>> layer.w = tf.Variable([[1.0, 2.0]])
      >>> prefix = tf.train.Checkpoint(layer=layer).write("step-1")
      >>> checkpoint = tensor_bridge.checkpoint.load(prefix)
      >>> dict(checkpoint)
      {'layer/w': tensor([[1., 2.]])}
    """
    hint = "; load_into(module, path) puts a checkpoint into a module"
    local = local_path(path, hint)
    with reading(str(local)):
        source, found = _open(local)
    checkpoint = Checkpoint(source, found, raw)
    if verify:
        checkpoint.verify()
    return checkpoint


class _NoVariables:
    """The variables of a SavedModel that has none."""

    format = "bundle"
    entries: tuple[Entry, ...] = ()

    def problems(self) -> Iterator[Exception]:
        return iter(())


def _open(path: Path) -> tuple[Any, str]:
    text = str(path)
    prefix = re.sub(r"(\.index|\.data-\d{5}-of-\d{5})$", "", text)
    if is_there(prefix + ".index"):
        return Bundle(prefix), prefix
    if not is_there(path):
        if is_folder(path):
            return _open_folder(path)
        if (found := _at_prefix(text)) is not None:
            return found
        raise CheckpointNotFoundError(
            f"{text}: expected the prefix of a checkpoint, a folder, or a .keras, .h5 or "
            f".weights.json file, got no such file or folder, and no {prefix}.index"
            f"{_siblings(path) or '; correct the path, or name the folder of the checkpoint'}"
        )
    head = first_bytes(path, _HEAD)
    if head.startswith((HDF5_MAGIC, _ZIP_MAGIC, _EMPTY_ZIP)):
        from tensor_bridge.checkpoint.read._keras import open_keras

        return open_keras(text, zipped=not head.startswith(HDF5_MAGIC)), text
    if text.endswith(".weights.json"):
        from tensor_bridge.checkpoint.read._keras import open_sharded

        return open_sharded(text), text
    if is_table(text) and (found := _at_prefix(text)) is not None:
        return found
    from tensor_bridge.checkpoint.read._stored_files import open_stored

    stored = open_stored(text, head)
    if stored is not None:
        return stored, text
    from tensor_bridge.checkpoint.read._other_formats import refused_file

    raise refused_file(text, head)


def _at_prefix(prefix: str) -> tuple[Any, str] | None:
    """TensorFlow's checkpoint of that prefix, in its second format or its first, or None."""
    if is_there(prefix + ".index"):
        return Bundle(prefix), prefix
    from tensor_bridge.checkpoint.read._v1 import V1Checkpoint, v1_files

    files = v1_files(prefix)
    return (V1Checkpoint(files), prefix) if files else None


def _siblings(path: Path) -> str:
    if not is_folder(path.parent):
        return ""
    prefixes = {child.name.removesuffix(".index") for child in path.parent.glob("*.index")}
    return near_misses(path.name, sorted(prefixes))


def _open_folder(folder: Path) -> tuple[Any, str]:
    if any(is_there(folder / f"saved_model.{ending}") for ending in ("pb", "pbtxt")):
        return _open_saved_model(folder), str(folder)
    variables = folder / "variables" / "variables"
    if is_there(f"{variables}.index"):
        return Bundle(str(variables)), str(folder)
    if is_there(folder / "model.weights.h5"):
        from tensor_bridge.checkpoint.read._keras import open_keras_folder

        if (weights := open_keras_folder(folder)) is not None:
            return weights, str(folder)
    from tensor_bridge.checkpoint.read._latest import latest_prefixes

    prefixes = latest_prefixes(folder)
    for prefix in prefixes:
        if (found := _at_prefix(prefix)) is not None:
            return found
    if prefixes:
        raise CheckpointNotFoundError(
            f"{folder / 'checkpoint'}: expected the checkpoint that it names, {prefixes[0]}, got "
            "neither that nor its last parts in the folder; name the prefix that is meant"
        )
    indices = sorted(folder.glob("*.index"))
    if len(indices) == 1:
        prefix = str(indices[0]).removesuffix(".index")
        return Bundle(prefix), prefix
    names = ", ".join(i.name.removesuffix(".index") for i in indices[:10])
    raise CheckpointNotFoundError(
        f"{folder}: expected a SavedModel, a checkpoint file or one .index file, got "
        f"{'several checkpoints: ' + names if indices else 'none of them'}"
    )


def _open_saved_model(folder: Path) -> Any:
    prefix = str(folder / "variables" / "variables")
    source = Bundle(prefix) if is_there(f"{prefix}.index") else _NoVariables()
    if any(entry.kind == "variable" for entry in source.entries):
        return source
    model = folder / "saved_model.pb"
    if not is_there(model):
        return source
    from tensor_bridge.checkpoint.read._stored_files import open_stored

    # Frozen before it was saved: its weights are constants of its graph.
    return open_stored(str(model), b"") or source
