"""Values of both frameworks beside their model, and the comparisons after each operation.

The operations themselves are in `random_operations`, the rules of sharing in `sharing_model`.
"""

from __future__ import annotations

import ctypes
import gc
import queue
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import sharing_model as model
import tensorflow as tf
import torch
from sharing_model import Buffer, Memory, Node, Reference, Rules, Storage, itemsize

import tensor_bridge
from tensor_bridge.testing import live_owners, tf_data_address, torch_data_address


class Failure(AssertionError):
    """The library and the model disagree.

    Attributes:
      what: A few words without numbers, so that equal failures can be recognised.
    """

    def __init__(self, what: str, text: str = "") -> None:
        super().__init__(f"{what}: {text}" if text else what)
        self.what = what


class NotThereError(Exception):
    """An operand is missing, or the operation does not take its kind."""


# ---- the library ---------------------------------------------------------------------------------


class Library:
    """The tested calls. A test of the fuzzer puts a fault into one of them."""

    interfaces: Mapping[str, Any] = MappingProxyType(
        {"module": tensor_bridge, "ctypes": tensor_bridge.TensorBridge()}
    )

    def to_torch(self, interface: str, t: Any, **options: Any) -> Any:
        return self.interfaces[interface].to_torch(t, **options)

    def to_tf(self, interface: str, x: Any, **options: Any) -> Any:
        return self.interfaces[interface].to_tf(x, **options)

    def assign(self, variable: Any, x: Any, copy: bool | None) -> None:
        tensor_bridge.assign(variable, x, copy=copy)

    def release_previous(self, x: Any) -> int:
        return tensor_bridge.release_previous(x)

    def export(self, t: Any) -> Any:
        return tensor_bridge.dlpack.exporter(t).__dlpack__(max_version=(1, 0))

    def from_dlpack(self, x: Any, **options: Any) -> Any:
        return tensor_bridge.dlpack.from_dlpack(x, **options)

    def save(self, state: Any, prefix: Path) -> str:
        return tensor_bridge.checkpoint.save(state, prefix, object_based=False, overwrite=True)

    def load(self, path: Any) -> Any:
        return tensor_bridge.checkpoint.load(path)

    def convert(self, path: Any, target: Path) -> None:
        tensor_bridge.checkpoint.convert(path, target, skip_strings=True, overwrite=True)


class Hand:
    """Another thread that runs one function at a time, and keeps no reference to its result."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (work := self._jobs.get()) is not None:
            function, out = work
            try:
                out.append((function(), None))
            except BaseException as e:
                out.append((None, e.with_traceback(None)))
            # Dropped before the waiter is notified: this thread must not hold the last reference.
            del work, function, out
            self._done.put(None)

    def start(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """Starts the function; returns a function that waits for its result."""
        out: list[Any] = []
        self._jobs.put((function, out))

        def wait() -> Any:
            self._done.get()
            result, error = out.pop()
            if error is None:
                return result
            try:
                raise error
            finally:
                del error

        return wait

    def stop(self) -> None:
        self._jobs.put(None)
        self._thread.join()


# ---- what there is -------------------------------------------------------------------------------


@dataclass(eq=False)
class Thing:
    """A value of the frameworks beside its model."""

    value: Any
    node: Node

    def check(self) -> None:
        raise NotImplementedError


def memory_at(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size) if size else b""


def compare(what: str, found: bytes, expected: bytes) -> None:
    if found != expected:
        raise Failure(what, f"expected {expected.hex()}, got {found.hex()}")


@dataclass(eq=False)
class Dense(Thing):
    """A TensorFlow tensor; `slice` if TensorFlow cut it out of another."""

    start: int
    shape: tuple[int, ...]
    dtype: str
    slice: bool = False

    @property
    def memory(self) -> Memory:
        return self.node.here

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * itemsize(self.dtype)

    def content(self) -> bytes:
        return bytes(self.memory.content[self.start : self.start + self.nbytes])

    def check(self) -> None:
        if not self.nbytes:
            return
        address = tf_data_address(self.value)
        if address != self.memory.address + self.start:
            raise Failure("TensorFlow's tensor is elsewhere")
        compare("TensorFlow's values", memory_at(address, self.nbytes), self.content())


class Variable(Dense):
    """A variable; `copies` if TensorFlow copies it at each read."""

    copies = False

    def check(self) -> None:
        now = self.value.read_value()
        address = tf_data_address(now)
        if not self.copies and address != self.memory.address + self.start:
            raise Failure("a variable is elsewhere")
        compare("a variable's values", memory_at(address, self.nbytes), self.content())


@dataclass(eq=False)
class Torch(Thing):
    """A torch tensor: a view of its storage.

    Attributes:
      live: A LiveView or a Checkpoint that lives as long.
      variable: The variable that the live view keeps.
    """

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    live: Any = None
    variable: Variable | None = None

    @property
    def storage(self) -> Storage:
        assert isinstance(self.node, Storage)
        return self.node

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def address(self) -> int:
        """The expected address of the first element."""
        return self.storage.here.address + self.storage.start + self.offset * itemsize(self.dtype)

    @property
    def writable(self) -> bool:
        spread = all(
            stride or size < 2 for size, stride in zip(self.shape, self.strides, strict=True)
        )
        return self.elements > 0 and spread

    def places(self) -> Iterator[slice]:
        """The positions of the elements in the memory, row by row."""
        size, start = itemsize(self.dtype), self.storage.start
        for i in model.positions(self.shape, self.strides, self.offset):
            yield slice(start + i * size, start + (i + 1) * size)

    def content(self) -> bytes:
        memory = self.storage.here
        return b"".join(bytes(memory.content[place]) for place in self.places())

    def check(self) -> None:
        if not self.elements:
            return
        address = torch_data_address(self.value)
        if address != self.address:
            raise Failure("torch's tensor is elsewhere", self.storage.on_write)
        first = address - self.offset * itemsize(self.dtype)
        compare("torch's values", memory_at(first, self.storage.nbytes), self.storage.bytes())


@dataclass(eq=False)
class Capsule(Thing):
    start: int
    shape: tuple[int, ...]
    dtype: str

    def check(self) -> None:
        pass


@dataclass(eq=False)
class Text(Thing):
    """TensorFlow strings, or a StringTensor."""

    items: list[bytes]

    def check(self) -> None:
        if isinstance(self.value, tf.Tensor):
            found = [bytes(item) for item in self.value.numpy().reshape(-1)]
        else:
            found = self.value.to_bytes()
        if found != self.items:
            raise Failure("strings", f"expected {self.items}, got {found}")


def torch_dtype(name: str) -> torch.dtype:
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


def row_major_strides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


# ---- the machine ---------------------------------------------------------------------------------


class Machine:
    """Runs operations on the library and on the model, and compares after each."""

    def __init__(self, folder: Path, library: Library | None = None, *, alone: bool = True) -> None:
        self.folder = folder
        self.library = library or Library()
        self.alone = alone
        self.things: dict[int, Thing] = {}
        self.common: set[int] = set()
        self.before = live_owners()
        self.hands = (Hand(), Hand())
        self.ran = 0
        self.taken_over = 0

    # -- running --

    def run(self, operation: Any) -> None:
        number, name, arguments = operation
        try:
            getattr(self, f"do_{name}")(number, **arguments)
        except NotThereError:
            return
        except Failure:
            raise
        except Exception as e:
            raise Failure(f"{name} raised {type(e).__name__}", str(e)) from e
        self.ran += 1
        self.check(variables=name in ("assign", "update", "live") or self.ran % 16 == 0)

    def check(self, *, variables: bool) -> None:
        """Checks addresses and bytes of everything, that no blocks overlap, and the owners."""
        for thing in self.things.values():
            if isinstance(thing, Variable):
                if variables:
                    thing.check()
            else:
                thing.check()
        blocks: dict[int, Memory] = {}
        nodes = self.alive()
        for node in nodes:
            if node.memory is not None and node.memory.content:
                blocks[id(node.memory)] = node.memory
        ordered = sorted(blocks.values(), key=lambda block: block.address)
        for one, other in pairwise(ordered):
            if one.address + len(one.content) > other.address:
                raise Failure("two that must not share do")
        if self.alone:
            self.check_owners(model.owners(nodes))

    def check_owners(self, expected: int) -> None:
        found = live_owners() - self.before
        if found != expected:
            gc.collect()
            found = live_owners() - self.before
        if found != expected:
            raise Failure("owners", f"expected {expected}, got {found}")

    def alive(self, without: Thing | None = None) -> list[Node]:
        """Everything reachable by something other than ``without``."""
        return model.reached(self.roots(without))

    def roots(self, without: Thing | None = None) -> list[Node]:
        roots = []
        for thing in self.things.values():
            if thing is not without:
                roots.append(thing.node)
            variable = thing.variable if isinstance(thing, Torch) else None
            if variable is not None and variable is not without:
                roots.append(variable.node)
        return roots

    def finish(self) -> None:
        """Checks everything a last time and releases it."""
        try:
            self.check(variables=True)
            for number in [n for n in self.things if n not in self.common]:
                del self.things[number]
            if self.alone:
                self.check_owners(0)
        finally:
            self.close()

    def close(self) -> None:
        self.things.clear()
        for hand in self.hands:
            hand.stop()
        if self.alone and live_owners() != self.before:
            gc.collect()  # or the next machine would count what this one left

    # -- help --

    def get(self, number: int, *kinds: type[Any]) -> Any:
        thing = self.things.get(number)
        if thing is None or not isinstance(thing, kinds) or type(thing) not in kinds:
            raise NotThereError
        return thing

    def all_of(self, *kinds: type[Any]) -> list[int]:
        """The numbers of all things of these kinds."""
        found = [n for n, thing in self.things.items() if type(thing) in kinds]
        if not found:
            raise NotThereError
        return found

    def some(self, rng: random.Random, *kinds: type[Any]) -> int:
        return rng.choice(self.all_of(*kinds))

    def call(self, function: Callable[[], Any], elsewhere: bool) -> Any:
        return self.hands[0].start(function)() if elsewhere else function()

    def expect(self, verdict: str, function: Callable[[], Any], elsewhere: bool) -> Any:
        """The result, or None after the expected error of the verdict."""
        refused = verdict.endswith("Error")
        try:
            result = self.call(function, elsewhere)
        except Exception as e:
            if refused and type(e).__name__ == verdict:
                return None
            raise
        if refused:
            raise Failure(f"no {verdict}")
        return result

    def add_dense(
        self,
        number: int,
        t: Any,
        expected: bytes,
        shape: Sequence[int],
        dtype: str,
        among: Sequence[Node] = (),
    ) -> Dense:
        """Adds a tensor that TensorFlow made, in new memory or in the memory of one of these."""
        address = tf_data_address(t)
        for node in among:
            memory = node.here
            if memory.address <= address < memory.address + max(len(memory.content), 1):
                thing = Dense(t, node, address - memory.address, tuple(shape), dtype)
                break
        else:
            node = Buffer(Memory(address, bytearray(expected)))
            thing = Dense(t, node, 0, tuple(shape), dtype)
        if (tuple(t.shape), t.dtype.name) != (thing.shape, dtype):
            raise Failure("TensorFlow's shape or dtype", f"{t.shape} {t.dtype.name}")
        compare("TensorFlow's values", memory_at(address, thing.nbytes), expected)
        self.things[number] = thing
        return thing

    def add_torch(self, number: int, x: Any, storage: Storage, **more: Any) -> Torch:
        """Adds a torch tensor, with the layout that torch reports."""
        dtype = str(x.dtype).removeprefix("torch.")
        thing = Torch(x, storage, x.storage_offset(), tuple(x.shape), x.stride(), dtype, **more)
        self.things[number] = thing
        return thing

    def own_storage(self, x: Any, content: bytes) -> Storage:
        return Storage(Memory(torch_data_address(x), bytearray(content)), 0, len(content))

    def add_converted(
        self, number: int, x: Any, source: Dense | Capsule, verdict: str, on_write: str, **more: Any
    ) -> Torch:
        """Adds the result of a conversion to torch."""
        if not isinstance(x, torch.Tensor):
            raise Failure("no tensor", type(x).__name__)
        strides = row_major_strides(source.shape)
        found = tuple(x.shape), str(x.dtype), x.storage_offset(), x.is_contiguous()
        if found != (source.shape, f"torch.{source.dtype}", 0, True):
            raise Failure("torch's shape or dtype", f"{x.shape} {x.dtype} {x.stride()}")
        memory = source.node.here
        nbytes = prod(source.shape) * itemsize(source.dtype)
        if verdict == "copied":
            content = bytes(memory.content[source.start : source.start + nbytes])
            storage = self.own_storage(x, content)
        else:
            storage = Storage(memory, source.start, nbytes, Reference(source.node), on_write)
            storage.handle = (source.shape, source.dtype, memory.address + source.start)
            storage.slice = isinstance(source, Dense) and source.slice
        thing = Torch(x, storage, 0, source.shape, strides, source.dtype, **more)
        self.things[number] = thing
        return thing

    def add_sent(self, number: int, t: Any, source: Torch, verdict: str, content: bytes) -> Dense:
        """Adds the result of a conversion to TensorFlow."""
        if not isinstance(t, tf.Tensor):
            raise Failure("no tensor", type(t).__name__)
        storage = source.storage
        if verdict == "either":
            here = tf_data_address(t) == source.address
            verdict = "shared" if here else "copied"
            if here and storage.shows is None:
                storage.barred = False
        if (tuple(t.shape), t.dtype.name) != (source.shape, source.dtype):
            raise Failure("TensorFlow's shape or dtype", f"{t.shape} {t.dtype.name}")
        node: Node
        cut = False
        if verdict == "copied":
            node, start = Buffer(Memory(tf_data_address(t), bytearray(content))), 0
        else:
            memory = storage.here
            start = source.address - memory.address
            same = storage.handle == (source.shape, source.dtype, source.address)
            if same and isinstance(storage.shows, Reference):
                node, cut = storage.shows.keeps[0], storage.slice
            else:
                node = model.share(storage)
        thing = Dense(t, node, start, source.shape, source.dtype, cut)
        self.things[number] = thing
        return thing

    def row_major(self, x: Torch) -> bool:
        return x.elements == 0 or model.row_major(x.shape, x.strides)

    def to_tf_verdict(self, x: Torch, copy: bool | None) -> str:
        layout = {"elements": x.elements, "row_major": self.row_major(x), "address": x.address}
        return Rules.to_tf(x.storage, **layout, copy=copy)

    def told(self, verdict: str, explanation: Any) -> None:
        action = "refused" if verdict.endswith("Error") else verdict
        found = explanation.action
        if action not in ("either", found):
            raise Failure("explain", f"expected {action}, got {found}: {explanation.reason}")

    def exported(self, storage: Storage) -> bool:
        """Whether torch's own DLPack exported the memory: such holders do not follow a move."""
        return any(isinstance(n, Reference) and storage in n.keeps for n in self.alive())

    # -- a write, on the model --

    def verdict_of_write(self, storage: Storage) -> str:
        if id(storage) in self.untouchable():
            raise NotThereError
        return Rules.at_write(storage, self.roots())

    def untouchable(self) -> set[int]:
        return {id(self.things[n].node) for n in self.common if isinstance(self.things[n], Torch)}

    def after_write(self, x: Torch, verdict: str) -> None:
        """Moves the model according to the verdict, to the address that torch now reports."""
        storage = x.storage
        if verdict in ("moves", "let go"):
            first = torch_data_address(x.value) - x.offset * itemsize(x.dtype)
            old = storage.here
            if first == old.address + storage.start:
                if verdict == "let go":
                    model.take_over(storage)
                    self.taken_over += 1
                    return
                raise Failure("a write did not move torch", storage.on_write)
            model.move(storage, first)
        elif verdict == "takes back":
            model.take_back(storage)
        elif verdict == "stays" and storage.hook_left_behind:
            storage.hook_left_behind = ""
