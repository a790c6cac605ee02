"""From the keys of a checkpoint to names for people: object paths, slots and counters apart."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["GRAPH_KEY", "Name", "escape", "names_of", "slice_key"]

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""The entry of an object-based checkpoint that describes its objects."""

_ATTRIBUTES = "/.ATTRIBUTES/"
_SLOT = "/.OPTIMIZER_SLOT/"
_VALUE = "VARIABLE_VALUE"
_METADATA = {"OBJECT_CONFIG_JSON"}
_COUNTERS = {"save_counter", "global_step"}
# What the optimizers of TensorFlow 1 call the variables they make beside a model's.
_TF1_SLOT = re.compile(
    r"(?P<of>.+)/(?P<slot>(?:Adam|AdamW|Adamax|Nadam|Momentum|RMSProp|Adagrad|AdagradDA|Adadelta"
    r"|Ftrl|LARS|LAMB|ExponentialMovingAverage|adam_[mv])(?:_\d+)?)"
)
_TF1_COUNTERS = {"beta1_power", "beta2_power"}


class Name(NamedTuple):
    """How an entry is called.

    Attributes:
      name: For people; unique in its kind.
      kind: "variable", "slot" (an optimizer's, of a variable), "counter" or "metadata".
    """

    name: str
    kind: str


def _unescape(path: str) -> str:
    return re.sub(r"\.([.S])", lambda m: "/" if m[1] == "S" else ".", path)


def escape(part: str) -> str:
    """One attribute name as TensorFlow writes it into a key."""
    return part.replace(".", "..").replace("/", ".S")


def _object_name(key: str) -> Name:
    path, _, attribute = key.rpartition(_ATTRIBUTES)
    if attribute in _METADATA:
        return Name(f"{_unescape(path)}/{attribute}", "metadata")
    of, is_slot, rest = path.partition(_SLOT)
    if is_slot:
        # The optimizer's path, and the name of the slot as its last part.
        return Name(f"{_unescape(rest)}/{_unescape(of)}", "slot")
    name = _unescape(path) if attribute == _VALUE else f"{_unescape(path)}/{attribute}"
    return Name(name, "counter" if path.rsplit("/", 1)[-1] in _COUNTERS else "variable")


def names_of(keys: list[str]) -> dict[str, Name]:
    """The name of each key of a bundle; of a name-based checkpoint that is the key."""
    known = set(keys)
    found: dict[str, Name] = {}
    taken: set[Name] = set()
    for key in keys:
        if key == GRAPH_KEY:
            name = Name(key, "metadata")
        elif _ATTRIBUTES in key:
            name = _object_name(key)
        else:
            slot = _TF1_SLOT.fullmatch(key)
            last = key.rsplit("/", 1)[-1]
            if slot is not None and slot["of"] in known:
                name = Name(key, "slot")
            elif last in _COUNTERS or last in _TF1_COUNTERS:
                name = Name(key, "counter")
            else:
                name = Name(key, "variable")
        # Attributes whose names hold a slash can meet; the key as it is cannot.
        if name in taken:
            name = Name(key, name.kind)
        taken.add(name)
        found[key] = name
    return found


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
