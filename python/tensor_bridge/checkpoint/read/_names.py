"""From the keys of a checkpoint to names for people: object paths, slots and counters apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tensor_bridge.errors import CheckpointError

if TYPE_CHECKING:
    from tensor_bridge.checkpoint.read._graph_kinds import GraphKinds

__all__ = ["ATTRIBUTES", "GRAPH_KEY", "VALUE", "Name", "Stored", "escape", "names_of", "slice_key"]

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""The entry of an object-based checkpoint that describes its objects."""

ATTRIBUTES = "/.ATTRIBUTES/"
VALUE = "VARIABLE_VALUE"
"""The attribute of an object that is a variable's value."""
_SLOT = "/.OPTIMIZER_SLOT/"
_METADATA = {"OBJECT_CONFIG_JSON"}
# Where an iterator of tf.data, or an object of Python, stands.
_POSITIONS = {"ITERATOR_STATE", "py_state"}
_COUNTERS = {"save_counter", "global_step"}
# What training loops put beside the model into a tf.train.Checkpoint, which counts how often it is
# saved (TensorFlow's guide to checkpoints).
_BESIDE = {"step", "epoch", "iteration"}
_SAVES = f"save_counter{ATTRIBUTES}{VALUE}"
# What Keras 3's ``model.export()`` refers to twice, under two numbers.
_EXPORTED, _AGAIN = "variables/", "_all_variables/"


class Name(NamedTuple):
    """How an entry is called.

    Attributes:
      name: For people; unique in its kind.
      kind: "variable", "slot" (an optimizer's, of a variable), "counter", "state" or "metadata".
    """

    name: str
    kind: str


class Stored(NamedTuple):
    """What an index says of an entry.

    Attributes:
      shape: Its sizes.
      content: Equal for two entries only if they hold the same bytes as the same dtype; None if
        that is not known.
    """

    shape: tuple[int, ...]
    content: Hashable = None


def _unescape(path: str) -> str:
    return re.sub(r"\.([.S])", lambda m: "/" if m[1] == "S" else ".", path)


def _parts(path: str) -> list[str]:
    return [_unescape(part) for part in path.split("/")]


def escape(part: str) -> str:
    """One attribute name as TensorFlow writes it into a key."""
    return part.replace(".", "..").replace("/", ".S")


def names_of(stored: Mapping[str, Stored], graph: bytes = b"") -> dict[str, Name]:
    """The name of each key of a checkpoint.

    Args:
      stored: What the index says of each.
      graph: The object graph of an object-based checkpoint. Without it, and with one that is
        damaged, the keys alone tell the kinds.
    """
    objects = any(ATTRIBUTES in key for key in stored)
    plain = any(ATTRIBUTES not in key and key != GRAPH_KEY for key in stored)
    by_object = _named_by_objects(graph, stored) if objects else None
    by_key = _named_by_keys(stored) if plain else None
    found: dict[str, Name] = {}
    for key in stored:
        if key == GRAPH_KEY:
            name = Name(key, "metadata")
        else:
            named = by_object if ATTRIBUTES in key else by_key
            assert named is not None
            name = named(key)
        found[key] = name
    return _distinct(found)


def _distinct(found: dict[str, Name]) -> dict[str, Name]:
    """The same, with keys, which differ, as the names of all but the first of those that meet.

    Attributes whose names hold a slash can meet, and one can be called as the key of another is:
    that other has its key for a name before it.
    """
    while True:
        holders: dict[Name, list[str]] = {}
        for key, name in found.items():
            holders.setdefault(name, []).append(key)
        meeting = [(name, keys) for name, keys in holders.items() if len(keys) > 1]
        if not meeting:
            return found
        for name, keys in meeting:
            stays = name.name if name.name in keys else keys[0]
            found.update((key, Name(key, name.kind)) for key in keys if key != stays)


def _named_by_keys(stored: Mapping[str, Stored]) -> Callable[[str], Name]:
    from tensor_bridge.checkpoint.read._name_kinds import kind_of_key

    shapes = {key: item.shape for key, item in stored.items()}
    return lambda key: Name(key, kind_of_key(key, shapes))


def _named_by_objects(graph: bytes, stored: Mapping[str, Stored]) -> Callable[[str], Name]:
    from tensor_bridge.checkpoint.read._graph_kinds import GraphKinds
    from tensor_bridge.checkpoint.read._object_graph import read_graph

    try:
        kinds = GraphKinds(read_graph(graph))
    except CheckpointError:  # `variable_names` tells
        kinds = GraphKinds([])
    return _Objects(kinds, stored).name


class _Objects:
    """Names of the keys of an object-based checkpoint."""

    def __init__(self, graph: GraphKinds, stored: Mapping[str, Stored]) -> None:
        self._graph, self._stored = graph, stored
        self._copies = _copies(graph.called, stored)
        self._beside = _BESIDE if _SAVES in stored else set()

    def name(self, key: str) -> Name:
        """The path of the object, of a slot with that of its variable behind it."""
        path, _, attribute = key.rpartition(ATTRIBUTES)
        of, is_slot, rest = path.partition(_SLOT)
        if is_slot:
            # The optimizer's path, and the name of the slot as its last part.
            return Name(f"{_unescape(rest)}/{'/'.join(self._path(of))}", "slot")
        parts = _parts(path)
        if attribute in _METADATA:
            return Name("/".join([*parts, attribute]), "metadata")
        if attribute != VALUE:
            # Tables of strings are a model's own; where a reader of data stands is not.
            kind = "state" if attribute in _POSITIONS else "variable"
            return Name("/".join([*parts, attribute]), kind)
        if parts[-1] in _COUNTERS or (path in self._beside and self._stored[key].shape == ()):
            return Name("/".join(parts), "counter")
        kind = "state" if key in self._copies else self._graph.kinds.get(key, "variable")
        return Name("/".join(self._path(path) if kind == "variable" else parts), kind)

    def _path(self, path: str) -> Sequence[str]:
        return self._graph.path(f"{path}{ATTRIBUTES}{VALUE}", _parts(path))


def _copies(called: Mapping[str, str], stored: Mapping[str, Stored]) -> set[str]:
    """Variables that Keras 3's ``model.export()`` stores a second time.

    They are copies where one of those stored first had the same name and holds the same bytes.
    """
    again = [key for key in stored if key.startswith(_AGAIN) and called.get(key)]
    if not again:
        return set()
    first = {(called.get(key), stored[key]) for key in stored if key.startswith(_EXPORTED)}
    known = (key for key in again if stored[key].content is not None)
    return {key for key in known if (called[key], stored[key]) in first}


def _signed(value: int) -> bytes:
    """An integer so that comparing bytes compares integers: its length in the leading bits."""
    magnitude = ~value if value < 0 else value
    length = next(n for n in range(1, 11) if magnitude < 1 << 7 * n - 1)
    # `length` ones (of a negative number: zeros) above the two's complement.
    bits = (1 << 8 * length) - (1 << 7 * length)
    return ((value & (1 << 8 * length) - 1) ^ bits).to_bytes(length, "big")


def slice_key(name: bytes, extents: tuple[int, ...]) -> bytes:
    """Key of a slice of a partitioned variable; ``extents`` are pairs (start, length)."""
    ndim = len(extents) // 2
    count = ndim.to_bytes((ndim.bit_length() + 7) // 8, "big")
    escaped = re.sub(rb"[\x00\xff]", lambda m: b"\0\xff" if m[0] == b"\0" else b"\xff\0", name)
    # 0 stands first: no name begins with it.
    return b"".join((b"\0", escaped, b"\0\1", bytes([len(count)]), count, *(map(_signed, extents))))
