"""Makes readable names from the keys of a checkpoint, with slots and counters separate."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tensor_bridge.errors import CheckpointError

if TYPE_CHECKING:
    from tensor_bridge.checkpoint.read._graph_kinds import GraphKinds

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""The entry of an object-based checkpoint that describes its objects."""

ATTRIBUTES = "/.ATTRIBUTES/"
VALUE = "VARIABLE_VALUE"
"""The attribute of an object that is a variable's value."""
_SLOT = "/.OPTIMIZER_SLOT/"
_METADATA = {"OBJECT_CONFIG_JSON"}
# The position of a tf.data iterator, or the state of a Python object.
_POSITIONS = {"ITERATOR_STATE", "py_state"}
_COUNTERS = {"save_counter", "global_step"}
# Counters that training loops put beside the model into a tf.train.Checkpoint (TensorFlow's guide
# to checkpoints).
_BESIDE = {"step", "epoch", "iteration"}
_SAVES = f"save_counter{ATTRIBUTES}{VALUE}"
# Variables to which Keras 3's ``model.export()`` refers twice, with two numbers.
_EXPORTED, _AGAIN = "variables/", "_all_variables/"


class Name(NamedTuple):
    """The name of an entry.

    Attributes:
      name: The readable name, unique in its kind.
      kind: "variable", "slot" (an optimizer's, of a variable), "counter", "state" or "metadata".
    """

    name: str
    kind: str


class Stored(NamedTuple):
    """The record of an entry in an index.

    Attributes:
      shape: Its sizes.
      content: Equal for two entries only if they have the same bytes and dtype; None if unknown.
    """

    shape: tuple[int, ...]
    content: Hashable = None


def _unescape(path: str) -> str:
    return re.sub(r"\.([.S])", lambda m: "/" if m[1] == "S" else ".", path)


def _parts(path: str) -> list[str]:
    return [_unescape(part) for part in path.split("/")]


def escape(part: str) -> str:
    """An attribute name in TensorFlow's form in a key."""
    return part.replace(".", "..").replace("/", ".S")


def names_of(stored: Mapping[str, Stored], graph: bytes = b"") -> dict[str, Name]:
    """Returns the name of each key of a checkpoint.

    Args:
      stored: The record of each key in the index.
      graph: The object graph of an object-based checkpoint. Without it, or if it is damaged, only
        the keys decide the kinds.
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
    """Returns the same names, but unique: of equal names, all but the first become the key.

    Names of attributes that contain a slash can be equal, and one can be equal to another's key:
    that other then gets its key as its name first.
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
        """The path of the object; for a slot followed by that of its variable."""
        path, _, attribute = key.rpartition(ATTRIBUTES)
        of, is_slot, rest = path.partition(_SLOT)
        if is_slot:
            # The optimizer's path, and the name of the slot as its last part.
            return Name(f"{_unescape(rest)}/{'/'.join(self._path(of))}", "slot")
        parts = _parts(path)
        if attribute in _METADATA:
            return Name("/".join([*parts, attribute]), "metadata")
        if attribute != VALUE:
            # Tables of strings belong to a model; the position of a reader of data does not.
            kind = "state" if attribute in _POSITIONS else "variable"
            return Name("/".join([*parts, attribute]), kind)
        if parts[-1] in _COUNTERS or (path in self._beside and self._stored[key].shape == ()):
            return Name("/".join(parts), "counter")
        kind = "state" if key in self._copies else self._graph.kinds.get(key, "variable")
        return Name("/".join(self._path(path) if kind == "variable" else parts), kind)

    def _path(self, path: str) -> Sequence[str]:
        return self._graph.path(f"{path}{ATTRIBUTES}{VALUE}", _parts(path))


def _copies(called: Mapping[str, str], stored: Mapping[str, Stored]) -> set[str]:
    """Returns the variables that Keras 3's ``model.export()`` stores a second time.

    A variable is a copy if one stored before has the same name and the same bytes.
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
    # 0 comes first: no name begins with it.
    return b"".join((b"\0", escaped, b"\0\1", bytes([len(count)]), count, *(map(_signed, extents))))
