"""A plain model of memory that two frameworks share: who uses what, and the effect of a write.

Bytes are Python's, never those of a framework. Only the functions of `Rules` decide about sharing:
change them when the rules of the package change. The rest is bookkeeping.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

ALIGNMENT = 64

# ---- elements ------------------------------------------------------------------------------------

_FORMATS = {
    "bool": "?",
    "uint8": "B",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "float16": "e",
    "float32": "f",
    "float64": "d",
    "bfloat16": "",
}
DTYPES = tuple(_FORMATS)


def itemsize(dtype: str) -> int:
    return struct.calcsize(_FORMATS[dtype]) or 2


def encode(dtype: str, value: int) -> bytes:
    """A small number as an element of the dtype."""
    if dtype == "bfloat16":
        return struct.pack("<f", value)[2:]
    return struct.pack(f"<{_FORMATS[dtype]}", value)


def plus_one(dtype: str, element: bytes) -> bytes | None:
    """The element after `add_(1)`; None if this model does not know."""
    if dtype in ("bfloat16", "bool"):
        return None
    (value,) = struct.unpack(f"<{_FORMATS[dtype]}", element)
    if dtype.startswith("float"):
        # Exact in all dtypes. Other numbers come from bytes of another dtype.
        exact = 0 <= value < 1000 and value == int(value)
        return encode(dtype, value + 1) if exact else None
    bits = 8 * len(element)
    return ((int.from_bytes(element, "little") + 1) % (1 << bits)).to_bytes(bits // 8, "little")


# ---- memory --------------------------------------------------------------------------------------


@dataclass(eq=False)
class Memory:
    """A block: its address, and the bytes that it must hold."""

    address: int
    content: bytearray


_nowhere = itertools.count(1)


def nowhere(content: bytes) -> Memory:
    """A block whose address cannot be asked for."""
    return Memory(-(next(_nowhere) << 20), bytearray(content))


@dataclass(eq=False)
class Node:
    """Something that keeps memory alive.

    Attributes:
      keeps: The nodes that it keeps alive.
      counted: How often `live_owners` counts it.
    """

    memory: Memory | None = None
    keeps: list[Node] = field(default_factory=list)
    counted: int = 0

    @property
    def here(self) -> Memory:
        """Its memory, which there is."""
        assert self.memory is not None
        return self.memory


class Buffer(Node):
    """A TensorFlow buffer: its own memory, or memory that it keeps alive."""


class Reference(Node):
    """A counted reference of the other framework to a buffer, a capsule or torch's bytes."""

    def __init__(self, target: Node) -> None:
        super().__init__(target.memory, [target], 1)


class SharedBytes(Node):
    """The bytes of a torch storage that TensorFlow shares."""


class Storage(Node):
    """A torch storage.

    Attributes:
      start, nbytes: The part of the memory that it covers.
      shows: The Reference or SharedBytes under it; None for its own memory.
      taken: The counted owner of its own memory that was TensorFlow's.
      left: The memory that it left at its last move, and keeps.
      on_write: "copy", "raise" or "through".
      handle: Shape, dtype and address of the TensorFlow tensor that it came from.
      slice: Whether TensorFlow cut that tensor out of another.
      hook_left_behind: The on_write of a storage that was resized, until its next write.
      resizable: False once an array shares it.
      of_file: Whether it is a mapping of a file, which others may use.
      barred: Whether it is never shared again; None if only the result tells.
    """

    def __init__(
        self, memory: Memory, start: int, nbytes: int, shows: Node | None = None, on_write: str = ""
    ) -> None:
        super().__init__(memory)
        self.start, self.nbytes = start, nbytes
        self.shows, self.on_write = shows, on_write
        self.taken: Node | None = None
        self.left: Node | None = None
        self.handle: tuple[Any, ...] | None = None
        self.slice = False
        self.hook_left_behind = ""
        self.resizable = True
        self.barred: bool | None = False
        self.of_file = False
        self.update()

    def update(self) -> None:
        self.keeps = [n for n in (self.shows, self.taken, self.left) if n is not None]

    def bytes(self) -> bytes:
        return bytes(self.here.content[self.start : self.start + self.nbytes])


def reached(roots: Iterable[Node]) -> list[Node]:
    """All that the roots keep alive, themselves included."""
    found: dict[int, Node] = {}
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        if id(node) not in found:
            found[id(node)] = node
            waiting += node.keeps
    return list(found.values())


def owners(nodes: Iterable[Node]) -> int:
    """The expected result of `live_owners`: the number of counted buffers."""
    return sum(node.counted for node in nodes)


# ---- the rules -----------------------------------------------------------------------------------


class Rules:
    """The documented rules of what is shared, copied and refused."""

    @staticmethod
    def to_torch(copy: bool | None, on_write: str, variable: str = "") -> str:
        """The verdict for a tensor, a "variable", or one that TensorFlow "copies" at each read."""
        if variable and on_write == "alias":
            return "InvalidOptionError"
        if variable == "copies" and copy is False:
            return "CopyRequiredError"
        return "copied" if copy else "shared"

    @staticmethod
    def to_tf(
        storage: Storage, *, elements: int, row_major: bool, address: int, copy: bool | None
    ) -> str:
        """The verdict: copied or shared; "either" if both are allowed."""
        if not elements:
            return "copied"
        fits = row_major and address % ALIGNMENT == 0
        own = storage.shows is None
        behind = storage.hook_left_behind or (storage.of_file and storage.left is not None)
        watched = storage.on_write != "through" and not storage.barred and storage.resizable
        if not fits or not watched or (own and behind):
            found = "copied"
        elif storage.barred is None:
            found = "either"
        else:
            found = "shared"
        if copy is False and found == "copied":
            return "CopyRequiredError"
        return "copied" if copy else found

    @staticmethod
    def at_write(storage: Storage, roots: Sequence[Node]) -> str:
        """The effect of the next write: "stays", "moves", "takes back", "through", "BufferError".

        Or "let go": nobody else has the memory, so it becomes torch's without a move, or it moves
        if TensorFlow has the memory without our knowing.

        `roots` are all reachable values, including the storage itself.
        """
        alive = reached(roots)
        if storage.shows is None:
            return "stays"
        if storage.on_write == "through":
            return "through"
        if isinstance(storage.shows, SharedBytes):
            held = any(isinstance(node, Buffer) and storage.shows in node.keeps for node in alive)
            return "moves" if held else "takes back"
        if storage.on_write == "raise":
            return "BufferError"
        (target,) = storage.shows.keeps
        others = (node for node in alive if node is not storage.shows)
        held = target in roots or any(target in node.keeps for node in others)
        own = isinstance(target, Buffer) and not target.keeps
        return "let go" if own and not held else "moves"

    @staticmethod
    def keeps_previous(storage: Storage) -> bool:
        """Whether it never releases the memory that it left: others may use a mapped file."""
        return storage.of_file

    @staticmethod
    def tensorflow_writes(node: Node, *, sliced: bool) -> bool:
        """Whether TensorFlow may update a variable in place although others use its memory.

        After the whole is gone, TensorFlow treats a slice of foreign memory as its own, because its
        `SubBuffer` does not forward `OwnsMemory`.
        """
        return sliced and bool(node.keeps)


def move(storage: Storage, address: int) -> None:
    """The storage gets a copy of its bytes, and keeps one generation of the memory that it left."""
    left = storage.shows
    if isinstance(left, SharedBytes):
        left.keeps = []
    storage.memory, storage.start = Memory(address, bytearray(storage.bytes())), 0
    storage.shows, storage.left, storage.on_write, storage.handle = None, left, "", None
    storage.update()


def take_over(storage: Storage) -> None:
    """The storage takes over memory that nobody else has, and holds it as before."""
    storage.shows, storage.taken = None, Node(counted=1)
    storage.on_write, storage.handle = "", None
    storage.update()


def take_back(storage: Storage) -> None:
    """The storage owns the bytes that TensorFlow shared, and releases what they had left."""
    assert storage.shows is not None
    storage.taken = Node(counted=1) if storage.shows.counted else None
    storage.shows = storage.left = None
    storage.update()


def release_previous(storage: Storage) -> int:
    """The storage releases the memory that it left; returns the number of buffers."""
    if Rules.keeps_previous(storage):
        return 0
    if isinstance(storage.shows, SharedBytes):
        released, storage.shows.keeps = len(storage.shows.keeps), []
    else:
        released, storage.left = int(storage.left is not None), None
    storage.update()
    return released


def share(storage: Storage) -> Buffer:
    """TensorFlow's buffer over the bytes of a storage."""
    shows = storage.shows
    if isinstance(shows, Reference):
        return Buffer(storage.memory, [Reference(shows.keeps[0])])
    if shows is None:
        shows = SharedBytes(storage.memory, [] if storage.left is None else [storage.left])
        shows.counted = 0 if storage.taken is None else 1
        storage.shows, storage.taken, storage.left, storage.on_write = shows, None, None, "copy"
        storage.update()
    return Buffer(storage.memory, [shows], 1)


# ---- places --------------------------------------------------------------------------------------


def positions(shape: Sequence[int], strides: Sequence[int], offset: int) -> Iterator[int]:
    """The positions of the elements, row by row."""
    for index in itertools.product(*map(range, shape)):
        yield offset + sum(i * stride for i, stride in zip(index, strides, strict=True))


def row_major(shape: Sequence[int], strides: Sequence[int]) -> bool:
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
