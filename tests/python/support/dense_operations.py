"""Operations on dense tensors, variables and DLPack, each on the library and on the model.

`do_x` does an operation on both sides, `draw_x` finds arguments for one, or None.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import sharing_model as model
import tensorflow as tf
import torch
from sharing import from_bytes
from sharing_machine import (
    Capsule,
    Dense,
    Failure,
    Machine,
    NotThereError,
    Torch,
    Variable,
    memory_at,
    torch_dtype,
)
from sharing_model import Buffer, Memory, Node, Reference, Rules, Storage, encode, itemsize

from tensor_bridge.testing import tf_data_address, torch_data_address

Drawn = dict[str, Any]

SHAPES = ((16,), (64,), (4, 16), (2, 3, 8), (3, 5), (8, 32), (1, 16))
DTYPES = ("float32", "float32", "float32", "int64", "uint8", *model.DTYPES)
INTERFACES = ("module", "ctypes")
COPY = (None, None, None, None, False, True)
ON_WRITE = ("copy", "copy", "copy", "raise", "alias")
WRITES = (
    "fill", "zero", "add", "copy", "item", "row", "foreach", "out", "data", "storage", "data_ptr",
    "numpy",
)  # fmt: skip
VIEWS = (
    "slice", "slice", "step", "transpose", "select", "flat", "unsqueeze", "dtype", "spread",
    "empty", "detach",
)  # fmt: skip


def numbers(rng: random.Random, dtype: str, count: int) -> str:
    """Elements with small values, as text."""
    top = 1 if dtype == "bool" else 100
    return b"".join(encode(dtype, rng.randint(0, top)) for _ in range(count)).hex()


def torch_tensor(content: bytes, shape: Sequence[int], dtype: str) -> torch.Tensor:
    flat = torch.empty(len(content), dtype=torch.uint8)
    flat.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    return flat.view(torch_dtype(dtype)).view(tuple(shape))


class DenseOperations(Machine):
    """Operations on single tensors."""

    def add_common(self, values: Sequence[tuple[int, Any, bytes]]) -> None:
        """Adds values that other machines share: they are never written to or dropped."""
        for number, value, content in values:
            if isinstance(value, torch.Tensor):
                self.add_torch(number, value, self.own_storage(value, content))
            else:
                self.add_dense(number, value, content, tuple(value.shape), value.dtype.name)
            self.common.add(number)

    # -- values out of nothing --

    def draw_make_tf(self, rng: random.Random) -> Drawn:
        dtype, shape = rng.choice(DTYPES), rng.choice(SHAPES)
        return {"dtype": dtype, "shape": list(shape), "data": numbers(rng, dtype, prod(shape))}

    def do_make_tf(self, number: int, dtype: str, shape: list[int], data: str) -> None:
        content = self.elements(dtype, shape, data)
        t = from_bytes(content, shape, tf.as_dtype(dtype))
        self.add_dense(number, t, content, shape, dtype)

    def elements(self, dtype: str, shape: Sequence[int], data: str) -> bytes:
        """Bytes for all elements; zeros for elements that are not given."""
        return bytes.fromhex(data).ljust(prod(shape) * itemsize(dtype), b"\0")

    draw_make_torch = draw_make_tf

    def do_make_torch(self, number: int, dtype: str, shape: list[int], data: str) -> None:
        content = self.elements(dtype, shape, data)
        x = torch_tensor(content, shape, dtype)
        self.add_torch(number, x, self.own_storage(x, content))

    # -- TensorFlow alone --

    def draw_make_variable(self, rng: random.Random) -> Drawn:
        return {"t": self.some(rng, Dense)}

    def do_make_variable(self, number: int, t: int) -> None:
        source = self.get(t, Dense)
        value = tf.Variable(source.value)
        self.hold(number, value, source.content(), source.shape, source.dtype, [source.node])
        self.get(number, Variable).slice = source.slice

    def hold(
        self, number: int, value: Any, content: bytes, shape: tuple[int, ...], dtype: str,
        among: Sequence[Node],
    ) -> None:  # fmt: skip
        """A variable after TensorFlow updated it; TensorFlow decides where it is now."""
        had = self.things.get(number)
        found = had if isinstance(had, Variable) else Variable(value, Node(), 0, shape, dtype)
        if found.copies:
            held = Dense(None, Buffer(model.nowhere(content)), 0, shape, dtype)
        else:
            held = self.add_dense(number, value.read_value(), content, shape, dtype, among)
        found.node, found.start = held.node, held.start
        self.things[number] = found

    def draw_share_in_tf(self, rng: random.Random) -> Drawn:
        t = self.some(rng, Dense)
        how = rng.choice(("identity", "reshape", "slice", "bitcast", "unstack"))
        return {"t": t, "how": how, "at": rng.randint(0, 8), "size": rng.randint(1, 8)}

    def do_share_in_tf(self, number: int, t: int, how: str, at: int, size: int) -> None:
        source = self.get(t, Dense)
        if not source.nbytes:
            raise NotThereError
        shape, dtype, expected = source.shape, source.dtype, source.content()
        if how == "identity":
            made = tf.identity(source.value)
        elif how == "reshape":
            shape = (prod(shape),) if at % 2 else (*shape, 1)
            made = tf.reshape(source.value, shape)
        elif how == "bitcast":
            other = {4: ("int32", "float32"), 8: ("int64", "float64"), 2: ("int16", "bfloat16")}
            if itemsize(dtype) not in other:
                raise NotThereError
            dtype = other[itemsize(dtype)][at % 2]
            made = tf.bitcast(source.value, dtype)
        elif not shape:
            raise NotThereError
        else:
            first, row = at % shape[0], len(expected) // shape[0]
            last = min(shape[0], first + (1 if how == "unstack" else size))
            expected = expected[first * row : last * row]
            if how == "unstack":
                made, shape = source.value[first], shape[1:]
            else:
                made, shape = source.value[first:last], (last - first, *shape[1:])
        found = self.add_dense(number, made, expected, shape, dtype, [source.node])
        found.slice = found.node is source.node and (source.slice or how in ("slice", "unstack"))

    draw_compute = draw_make_variable

    def plus_one(self, dtype: str, content: bytes) -> list[bytes]:
        """The elements after an addition of one, as both frameworks compute it."""
        size = itemsize(dtype)
        made = [model.plus_one(dtype, content[i : i + size]) for i in range(0, len(content), size)]
        found = [element for element in made if element is not None]
        if len(found) < len(made):
            raise NotThereError
        return found

    def do_compute(self, number: int, t: int) -> None:
        source = self.get(t, Dense)
        expected = b"".join(self.plus_one(source.dtype, source.content()))
        if source.dtype not in ("float32", "float64", "int64", "int32"):
            raise NotThereError
        result = source.value + tf.constant(1, source.value.dtype)
        self.add_dense(number, result, expected, source.shape, source.dtype)

    def draw_update(self, rng: random.Random) -> Drawn:
        return {
            "variable": self.some(rng, Variable),
            "t": self.some(rng, Dense),
            "how": rng.choice(("assign", "add", "scatter")),
        }

    def do_update(self, number: int, variable: int, t: int, how: str) -> None:
        held, source = self.get(variable, Variable), self.get(t, Dense)
        content, among = held.content(), []
        size = itemsize(held.dtype)
        if not held.nbytes:
            raise NotThereError
        if how != "assign" and Rules.tensorflow_writes(held.node, sliced=held.slice):
            raise NotThereError
        if how == "assign":
            if (source.shape, source.dtype) != (held.shape, held.dtype):
                raise NotThereError
            held.value.assign(source.value, read_value=False)
            content, among = source.content(), [source.node]
            held.slice = source.slice
        elif how == "add":
            if held.dtype not in ("float32", "float64", "int64", "int32"):
                raise NotThereError
            content = b"".join(self.plus_one(held.dtype, content))
            held.value.assign_add(tf.ones(held.shape, held.dtype), read_value=False)
        else:
            if held.dtype not in ("float32", "int64") or not held.shape:
                raise NotThereError
            row = len(content) // held.shape[0]
            value = tf.fill((1, *held.shape[1:]), tf.constant(7, held.dtype))
            held.value.scatter_nd_update([[0]], value)
            content = encode(held.dtype, 7) * (row // size) + content[row:]
            held.copies = True
        # TensorFlow may update it in place if nobody else uses the memory.
        memory, here = held.memory, held.memory.address + held.start
        if how != "assign" and not held.copies and tf_data_address(held.value) == here:
            if any(node.memory is memory for node in self.alive(without=held)):
                raise Failure("TensorFlow wrote where others look")
            memory.content[held.start : held.start + len(content)] = content
            return
        self.hold(variable, held.value, content, held.shape, held.dtype, among)

    # -- conversions --

    def draw_to_torch(self, rng: random.Random) -> Drawn:
        return {
            "t": self.some(rng, Dense, Variable), "interface": rng.choice(INTERFACES),
            "copy": rng.choice(COPY), "on_write": rng.choice(ON_WRITE),
            "elsewhere": rng.random() < 0.1, "explain": rng.random() < 0.2,
        }  # fmt: skip

    def do_to_torch(
        self, number: int, t: int, interface: str, copy: bool | None, on_write: str,
        elsewhere: bool, explain: bool,
    ) -> None:  # fmt: skip
        source = self.get(t, Dense, Variable)
        if on_write == "alias" and self.is_common(source.node):
            raise NotThereError
        kind = ""
        if isinstance(source, Variable):
            kind = "copies" if source.copies else "variable"
        verdict = Rules.to_torch(copy, on_write, kind)
        options = {"copy": copy, "on_write": on_write}
        if explain:
            self.told(
                "copied" if kind == "copies" and verdict == "shared" else verdict,
                self.library.interfaces[interface].explain(source.value, **options),
            )
        x = self.expect(
            verdict, lambda: self.library.to_torch(interface, source.value, **options), elsewhere
        )
        if x is None:
            return
        if kind == "copies" and verdict == "shared":
            # A copy that TensorFlow made, and that torch shares.
            copied = Memory(torch_data_address(x), bytearray(source.content()))
            source = Dense(None, Buffer(copied), 0, source.shape, source.dtype)
        way = "through" if on_write == "alias" else on_write
        self.add_converted(number, x, source, verdict, way)

    def is_common(self, node: Node) -> bool:
        memories = {id(self.things[n].node.memory) for n in self.common}
        return id(node.memory) in memories

    def draw_to_tf(self, rng: random.Random) -> Drawn:
        return {
            "x": self.some(rng, Torch), "interface": rng.choice(INTERFACES),
            "copy": rng.choice(COPY), "elsewhere": rng.random() < 0.1,
            "explain": rng.random() < 0.2,
        }  # fmt: skip

    def do_to_tf(
        self, number: int, x: int, interface: str, copy: bool | None, elsewhere: bool, explain: bool
    ) -> None:
        source = self.get(x, Torch)
        if copy is not True and self.exported(source.storage):
            raise NotThereError
        verdict = self.to_tf_verdict(source, copy)
        if explain and verdict != "either":
            interfaces = self.library.interfaces[interface]
            told = getattr(interfaces, "explain_to_tf", interfaces.explain)
            self.told(verdict, told(source.value, copy=copy))
        content = source.content()
        if verdict == "either" and copy is False:
            raise NotThereError
        t = self.expect(
            verdict, lambda: self.library.to_tf(interface, source.value, copy=copy), elsewhere
        )
        if t is not None:
            self.add_sent(number, t, source, verdict, content)

    def draw_chain(self, rng: random.Random) -> Drawn:
        return {
            "start": self.some(rng, Dense, Torch),
            "length": rng.randint(1, 6),
            "interface": rng.choice(INTERFACES),
        }

    def do_chain(self, number: int, start: int, length: int, interface: str) -> None:
        """Converts back and forth repeatedly, and keeps the last result."""
        thing = self.get(start, Dense, Torch)
        if isinstance(thing, Torch) and self.exported(thing.storage):
            raise NotThereError
        for _ in range(length):
            # The model makes and releases each step as the library does.
            if isinstance(thing, Torch):
                verdict = self.to_tf_verdict(thing, None)
                t = self.library.to_tf(interface, thing.value)
                thing = self.add_sent(number, t, thing, verdict, thing.content())
                del t
            else:
                x = self.library.to_torch(interface, thing.value)
                thing = self.add_converted(number, x, thing, "shared", "copy")
                del x

    # -- torch alone --

    def draw_view(self, rng: random.Random) -> Drawn:
        return {
            "x": self.some(rng, Torch),
            "how": rng.choice(VIEWS),
            "by": [rng.randint(0, 7) for _ in range(3)],
        }

    def do_view(self, number: int, x: int, how: str, by: list[int]) -> None:
        source = self.get(x, Torch)
        value, (i, j, k) = source.value, by
        if how == "unsqueeze":
            made = value.unsqueeze(i % (value.dim() + 1))
        elif how == "detach":
            made = value.detach()
        elif how == "flat" and value.is_contiguous():
            made = value.view(-1)
        elif how == "dtype":
            # The bytes of a bool hold nothing else.
            other = ("uint8", "float32", "int64", "int16")[i % 4]
            plain = source.elements and value.is_contiguous() and source.dtype != "bool"
            rows = plain and value.dim() and value.stride(-1) == 1
            # Also the strides of dimensions of size 1, which have no meaning.
            counts = (value.size(-1), source.offset, *value.stride()[:-1]) if rows else (1,)
            if not rows or any(n * itemsize(source.dtype) % itemsize(other) for n in counts):
                raise NotThereError
            made = value.view(torch_dtype(other))
        elif not value.dim():
            raise NotThereError
        else:
            dim = i % value.dim()
            size = value.size(dim)
            if how == "slice" and size:
                first = j % size
                made = value.narrow(dim, first, min(k + 1, size - first))
            elif how == "empty":
                made = value.narrow(dim, 0, 0)
            elif how == "step":
                made = value[(slice(None),) * dim + (slice(None, None, k + 1),)]
            elif how == "transpose":
                made = value.transpose(dim, j % value.dim())
            elif how == "select" and size:
                made = value.select(dim, j % size)
            elif how == "spread" and size == 1:
                made = value.expand(*value.shape[:dim], k + 1, *value.shape[dim + 1 :])
            else:
                raise NotThereError
        more = {"live": source.live, "variable": source.variable}
        self.add_torch(number, made, source.storage, **more)

    def draw_write(self, rng: random.Random) -> Drawn:
        return {
            "x": self.some(rng, Torch), "how": rng.choice(WRITES), "value": rng.randint(0, 100),
            "elsewhere": rng.random() < 0.1,
        }  # fmt: skip

    def do_write(self, number: int, x: int, how: str, value: int, elsewhere: bool) -> None:
        target = self.get(x, Torch)
        if not target.writable:
            raise NotThereError
        function, written = self.write_of(target, how, value)
        verdict = self.verdict_of_write(target.storage)
        self.expect(verdict, function, elsewhere)
        if verdict == "BufferError":
            return
        self.after_write(target, verdict)
        if how == "numpy":
            target.storage.resizable = False
        self.put_bytes(target, written)

    def put_bytes(self, target: Torch, written: list[tuple[int, bytes]]) -> None:
        """Writes at the positions of elements, by their numbers; -1 is the whole storage."""
        memory = target.storage.here
        places = list(target.places())
        for i, element in written:
            if i < 0:
                start = target.storage.start
                memory.content[start : start + target.storage.nbytes] = element
            else:
                memory.content[places[i]] = element

    def write_of(
        self, target: Torch, how: str, value: int
    ) -> tuple[Callable[[], Any], list[tuple[int, bytes]]]:
        """The function that writes, and the numbers of the elements that it writes."""
        x, dtype, count = target.value, target.dtype, target.elements
        if dtype == "bool":
            value %= 2
        element = encode(dtype, value)
        every = [(i, element) for i in range(count)]
        if how == "fill":
            return lambda: x.fill_(value), every
        if how == "data":
            return lambda: x.data.fill_(value), every
        if how == "zero":
            return x.zero_, [(i, encode(dtype, 0)) for i in range(count)]
        if how == "copy":
            other = torch.full(target.shape, value, dtype=torch_dtype(dtype))
            return lambda: x.copy_(other), every
        if how in ("item", "row"):
            if not target.shape:
                return lambda: x.fill_(value), every
            if how == "row":
                return lambda: x[0].fill_(value), every[: count // target.shape[0]]
            index = (0,) * len(target.shape)
            return lambda: x.__setitem__(index, value), every[:1]
        if how in ("data_ptr", "numpy"):
            if how == "numpy" and (dtype == "bfloat16" or target.live is not None):
                raise NotThereError
            return (x.data_ptr if how == "data_ptr" else x.numpy), []
        if how == "storage":
            byte = value % 2
            whole = bytes([byte]) * target.storage.nbytes
            return lambda: x.untyped_storage().fill_(byte), [(-1, whole)]
        written = list(enumerate(self.plus_one(dtype, target.content())))
        if how == "add":
            return lambda: x.add_(1), written
        if how == "foreach":
            return lambda: torch._foreach_add_([x], 1), written
        return lambda: torch.add(x, 1, out=x), written

    def draw_put(self, rng: random.Random) -> Drawn:
        return {
            "x": self.some(rng, Torch),
            "y": self.some(rng, Torch),
            "how": rng.choice(("set_", "data")),
        }

    def do_put(self, number: int, x: int, y: int, how: str) -> None:
        """`x` becomes another tensor over the storage of `y`."""
        target, source = self.get(x, Torch), self.get(y, Torch)
        if target.dtype != source.dtype or target.live is not None or source.live is not None:
            raise NotThereError
        if x in self.common or self.exported(target.storage):
            raise NotThereError
        # A view keeps its base tensor, whatever happens to either.
        bases = [t.value._base for t in self.things.values() if isinstance(t, Torch)]
        if target.value._base is not None or any(base is target.value for base in bases):
            raise NotThereError
        if how == "set_":
            target.value.set_(source.value)
        else:
            target.value.data = source.value
        self.add_torch(x, target.value, source.storage)

    def draw_resize(self, rng: random.Random) -> Drawn:
        return {"x": self.some(rng, Torch), "elements": rng.choice((4, 16, 64, 100, 300))}

    def do_resize(self, number: int, x: int, elements: int) -> None:
        target = self.get(x, Torch)
        storage = target.storage
        if x in self.common or target.dtype == "bool" or target.live is not None:
            raise NotThereError
        if not storage.resizable or storage.barred is None or storage.of_file:
            raise NotThereError
        if self.exported(storage):
            raise NotThereError
        # The same size leaves the strides as they are.
        if self.verdict_of_write(storage) == "through" or target.shape == (elements,):
            raise NotThereError
        value, size = target.value, itemsize(target.dtype)
        needed = (target.offset + elements) * size
        kept = storage.bytes()
        value.resize_(elements)
        target.shape, target.strides = (elements,), (1,)
        if needed <= storage.nbytes:
            return
        # torch's memory; the bytes after the former ones are undefined.
        first = torch_data_address(value) - target.offset * size
        content = kept + memory_at(first + len(kept), needed - len(kept))
        if storage.shows is not None:
            storage.hook_left_behind = storage.on_write or "copy"
        storage.memory, storage.start = Memory(first, bytearray(content)), 0
        storage.nbytes = value.untyped_storage().nbytes()
        storage.shows = storage.taken = storage.left = storage.handle = None
        storage.on_write, storage.barred = "", False
        storage.update()

    def draw_release_previous(self, rng: random.Random) -> Drawn:
        return {"x": self.some(rng, Torch)}

    def do_release_previous(self, number: int, x: int) -> None:
        source = self.get(x, Torch)
        if self.exported(source.storage):
            raise NotThereError  # it may show what the storage left
        found = self.library.release_previous(source.value)
        expected = model.release_previous(source.storage)
        if found != expected:
            raise Failure("what a tensor left", f"expected {expected}, got {found}")

    # -- the end of values --

    def draw_drop(self, rng: random.Random) -> Drawn:
        found = [n for n in self.things if n not in self.common]
        if not found:
            raise NotThereError
        return {"thing": rng.choice(found), "elsewhere": rng.random() < 0.15}

    def do_drop(self, number: int, thing: int, elsewhere: bool) -> None:
        if thing not in self.things or thing in self.common:
            raise NotThereError
        last = [self.things.pop(thing).value]
        self.call(last.clear, elsewhere)

    def draw_collect(self, rng: random.Random) -> Drawn:
        return {"generation": rng.choice((0, 0, 1, 1, 2))}

    def do_collect(self, number: int, generation: int) -> None:
        gc.collect(generation)

    # -- variables --

    def draw_assign(self, rng: random.Random) -> Drawn:
        variable, x = self.some(rng, Variable), self.some(rng, Torch)
        held = self.things[variable]
        fits = [
            n
            for n, thing in self.things.items()
            if isinstance(thing, Torch)
            and isinstance(held, Dense)
            and (thing.shape, thing.dtype) == (held.shape, held.dtype)
        ]
        return {
            "variable": variable, "x": rng.choice(fits) if fits else x, "copy": rng.choice(COPY)
        }  # fmt: skip

    def do_assign(self, number: int, variable: int, x: int, copy: bool | None) -> None:
        held, source = self.get(variable, Variable), self.get(x, Torch)
        if copy is not True and self.exported(source.storage):
            raise NotThereError
        if (source.shape, source.dtype) != (held.shape, held.dtype):
            verdict = "MismatchError"
        else:
            # Nothing keeps the bytes under a live view.
            shown = copy is None and self.shows_live(source)
            verdict = self.to_tf_verdict(source, True if shown else copy)
        if verdict == "either":
            raise NotThereError
        content = source.content()
        self.expect(verdict, lambda: self.library.assign(held.value, source.value, copy), False)
        if verdict.endswith("Error"):
            return
        now = held.value.read_value()
        if held.copies:
            if verdict == "shared":
                model.share(source.storage)  # for the time of the call
            held.node, held.start = Buffer(model.nowhere(content)), 0
            return
        sent = self.add_sent(number, now, source, verdict, content)
        del self.things[number]
        held.node, held.start = sent.node, sent.start

    def shows_live(self, x: Torch) -> bool:
        for thing in self.things.values():
            if isinstance(thing, Torch) and thing.variable is not None:
                first = torch_data_address(thing.live.tensor)
                if first <= x.address < first + thing.live.tensor.nbytes:
                    return True
        return False

    def draw_live(self, rng: random.Random) -> Drawn:
        return {"variable": self.some(rng, Variable)}

    def do_live(self, number: int, variable: int) -> None:
        held = self.get(variable, Variable)
        content = held.content()
        view = self.library.to_torch("module", held.value, live=True)
        held.copies = False
        self.hold(variable, held.value, content, held.shape, held.dtype, ())
        if not view.valid:
            raise Failure("a live view is not valid")
        self.add_converted(number, view.tensor, held, "shared", "through", live=view, variable=held)

    # -- DLPack --

    def draw_export(self, rng: random.Random) -> Drawn:
        return {"t": self.some(rng, Dense)}

    def do_export(self, number: int, t: int) -> None:
        source = self.get(t, Dense)
        if not source.nbytes:
            raise NotThereError
        capsule = self.library.export(source.value)
        node = Node(source.node.memory, [source.node], 1)
        self.things[number] = Capsule(capsule, node, source.start, source.shape, source.dtype)

    def draw_take(self, rng: random.Random) -> Drawn:
        return {
            "capsule": self.some(rng, Capsule), "framework": rng.choice(("torch", "tensorflow")),
            "on_write": rng.choice(ON_WRITE), "copy": rng.choice(COPY),
        }  # fmt: skip

    def do_take(
        self, number: int, capsule: int, framework: str, on_write: str, copy: bool | None
    ) -> None:
        source = self.get(capsule, Capsule)
        del self.things[capsule]
        memory = source.node.here
        if framework == "torch":
            if on_write == "alias" and self.is_common(source.node):
                raise NotThereError
            verdict = Rules.to_torch(copy, on_write)
            x = self.library.from_dlpack(source.value, copy=copy, on_write=on_write)
            source.value = None
            way = "through" if on_write == "alias" else on_write
            made = self.add_converted(number, x, source, verdict, way)
            # It does not go back as a TensorFlow handle.
            made.storage.handle = None
            return
        aligned = (memory.address + source.start) % model.ALIGNMENT == 0
        if not aligned and copy is False:
            raise NotThereError
        content = memory.content[source.start :][: prod(source.shape) * itemsize(source.dtype)]
        t = self.library.from_dlpack(source.value, framework="tensorflow", copy=copy)
        source.value = None
        if copy or not aligned:
            self.add_dense(number, t, bytes(content), source.shape, source.dtype)
            return
        node = Buffer(memory, [Reference(source.node)])
        self.add_dense(number, t, bytes(content), source.shape, source.dtype, [node])

    def draw_hand_over(self, rng: random.Random) -> Drawn:
        return {"x": self.some(rng, Torch)}

    def do_hand_over(self, number: int, x: int) -> None:
        """Through torch's own DLPack: both use the memory, and write to it."""
        source = self.get(x, Torch)
        if not self.row_major(source) or not source.elements or source.live is not None:
            raise NotThereError
        if source.dtype == "bool" or source.storage.on_write == "through":
            raise NotThereError
        verdict = self.verdict_of_write(source.storage)
        result = self.expect(verdict, lambda: self.library.from_dlpack(source.value), False)
        if result is None:
            return
        self.after_write(source, verdict)
        memory = source.storage.here
        start = source.address - memory.address
        nbytes = source.elements * itemsize(source.dtype)
        storage = Storage(memory, start, nbytes, Reference(source.storage), "through")
        self.add_torch(number, result, storage)

    # -- two threads --

    def draw_at_once(self, rng: random.Random) -> Drawn:
        x = self.some(rng, Torch)
        what = rng.choice(
            ("write and write", "write and drop", "share and share", "write and read")
        )
        return {"x": x, "what": what, "value": rng.randint(0, 100)}

    def do_at_once(self, number: int, x: int, what: str, value: int) -> None:
        source = self.get(x, Torch)
        if not source.elements or self.exported(source.storage):
            raise NotThereError
        getattr(self, "_" + what.replace(" ", "_"))(number, source, value)

    def both(self, one: Callable[[], Any], other: Callable[[], Any]) -> tuple[Any, Any]:
        """The results of two calls that run at the same time in two threads."""
        waits = [hand.start(f) for hand, f in zip(self.hands, (one, other), strict=True)]
        results, errors = [], []
        for wait in waits:
            try:
                results.append(wait())
            except Exception as e:
                errors.append(e.with_traceback(None))
        if errors:
            raise errors[0]
        return results[0], results[1]

    def _write_and_write(self, number: int, x: Torch, value: int) -> None:
        if not x.writable or not x.shape or x.shape[0] < 2:
            raise NotThereError
        verdict = self.verdict_of_write(x.storage)
        if verdict == "BufferError":
            raise NotThereError
        value %= 2
        half = x.shape[0] // 2
        first, second = x.value[:half], x.value[half:]
        hooked = x.storage.shows is not None or x.storage.hook_left_behind
        self.both(lambda: first.fill_(value), lambda: second.fill_(1 - value))
        self.after_write(x, verdict)
        if hooked and verdict != "through":
            # Both threads may have been in the hook.
            x.storage.barred = x.storage.barred or None
        elements = x.elements // x.shape[0] * half
        one, other = encode(x.dtype, value), encode(x.dtype, 1 - value)
        self.put_bytes(x, [(i, one if i < elements else other) for i in range(x.elements)])

    def _write_and_drop(self, number: int, x: Torch, value: int) -> None:
        """TensorFlow lets go of the bytes while torch is about to leave them."""
        shows = x.storage.shows
        held = [
            n for n, thing in self.things.items()
            if type(thing) is Dense and shows in thing.node.keeps and n not in self.common
        ]  # fmt: skip
        if not isinstance(shows, model.SharedBytes) or not held or not x.writable:
            raise NotThereError
        self.verdict_of_write(x.storage)  # or it must not be written to
        last = [self.things.pop(held[0]).value]
        before = x.address
        value %= 2
        self.both(lambda: x.value.fill_(value), last.clear)
        verdict = self.verdict_of_write(x.storage)
        if verdict == "takes back" and torch_data_address(x.value) != before:
            verdict = "moves"
        self.after_write(x, verdict)
        self.put_bytes(x, [(i, encode(x.dtype, value)) for i in range(x.elements)])

    def _share_and_share(self, number: int, x: Torch, value: int) -> None:
        verdict = self.to_tf_verdict(x, None)
        if verdict != "shared":
            raise NotThereError
        content = x.content()
        one, other = self.both(
            lambda: self.library.to_tf("module", x.value),
            lambda: self.library.to_tf("ctypes", x.value),
        )
        self.add_sent(number, one, x, verdict, content)
        self.add_sent(-number - 1, other, x, verdict, content)
        del one, other
        self.things[-number - 1].check()
        del self.things[-number - 1]

    def _write_and_read(self, number: int, x: Torch, value: int) -> None:
        """A first write beside a conversion of the same tensor of TensorFlow's."""
        shows = x.storage.shows
        found = [
            thing for thing in self.things.values()
            if type(thing) is Dense and isinstance(shows, Reference) and thing.node in shows.keeps
        ]  # fmt: skip
        verdict = self.verdict_of_write(x.storage)
        if not found or verdict != "moves" or not x.writable:
            raise NotThereError
        source = found[0]
        value %= 2
        _, y = self.both(
            lambda: x.value.fill_(value), lambda: self.library.to_torch("module", source.value)
        )
        self.add_converted(number, y, source, "shared", "copy")
        del _, y
        self.after_write(x, verdict)
        self.put_bytes(x, [(i, encode(x.dtype, value)) for i in range(x.elements)])
