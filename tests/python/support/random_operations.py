"""All operations: on dense tensors, values of several tensors, strings and files."""

from __future__ import annotations

import contextlib
import gc
import random
from collections.abc import Sequence
from itertools import chain
from math import prod
from typing import Any

import bundles
import tensorflow as tf
import torch
from dense_operations import COPY, INTERFACES, DenseOperations, Drawn
from native_values import run_steps
from sharing_machine import Dense, Failure, NotThereError, Text, Torch, memory_at
from sharing_model import Node, itemsize

from tensor_bridge.testing import tf_data_address, torch_data_address

Operation = list[Any]
"""`[number, name, arguments]`, of numbers, texts and lists only: it can be printed and kept."""

MANY = 18
LETTERS = (b"", b"a", b"bc", "d\u00e9".encode(), bytes(40), b"0123456789" * 4)
# How often an operation is tried.
WEIGHTS = {
    "make_tf": 6, "make_torch": 5, "make_variable": 3, "share_in_tf": 5, "compute": 2,
    "to_torch": 14, "to_tf": 14, "view": 8, "write": 20, "put": 2, "resize": 2, "drop": 13,
    "assign": 4, "update": 4, "live": 2, "export": 2, "take": 3, "hand_over": 1,
    "release_previous": 5,
    "make_text": 2, "text": 4, "write_text": 3, "ragged": 1.5, "sparse": 1.5, "slices": 1,
    "structure": 2, "chain": 2, "at_once": 3, "native": 1, "collect": 0.5,
    "checkpoint": 0.15, "tf_checkpoint": 0.15,
}  # fmt: skip


class Operations(DenseOperations):
    """Everything that is tried."""

    def draw(self, rng: random.Random, number: int) -> Operation:
        """An operation that can be done now."""
        names, weights = list(WEIGHTS), list(WEIGHTS.values())
        if len(self.things) > MANY + len(self.common):
            names, weights = ["drop"], [1]
        while True:
            [name] = rng.choices(names, weights)
            with contextlib.suppress(NotThereError):
                return [number, name, getattr(self, f"draw_{name}")(rng)]

    # -- strings --

    def draw_make_text(self, rng: random.Random) -> Drawn:
        shape = rng.choice(([4], [2, 3], [1], [0]))
        return {"shape": shape, "items": [rng.choice(LETTERS).hex() for _ in range(prod(shape))]}

    def do_make_text(self, number: int, shape: list[int], items: list[str]) -> None:
        content = [bytes.fromhex(item) for item in items]
        t = tf.reshape(tf.constant(content, tf.string), shape)
        self.things[number] = Text(t, Node(), content)

    def draw_text(self, rng: random.Random) -> Drawn:
        return {
            "text": self.some(rng, Text), "interface": rng.choice(INTERFACES),
            "copy": rng.choice(COPY), "as_list": rng.random() < 0.3,
            "elsewhere": rng.random() < 0.1,
        }  # fmt: skip

    def do_text(
        self,
        number: int,
        text: int,
        interface: str,
        copy: bool | None,
        as_list: bool,
        elsewhere: bool,
    ) -> None:
        source = self.get(text, Text)
        verdict = "CopyRequiredError" if copy is False else "copied"
        if not isinstance(source.value, tf.Tensor):
            made = self.expect(
                verdict, lambda: self.library.to_tf(interface, source.value, copy=copy), elsewhere
            )
        else:
            options = {"strings": "list"} if as_list else {}
            made = self.expect(
                verdict,
                lambda: self.library.to_torch(interface, source.value, copy=copy, **options),
                elsewhere,
            )
            if as_list and made is not None:
                nested = made and isinstance(made[0], list)
                flat = list(chain.from_iterable(made)) if nested else made
                if flat != source.items:
                    raise Failure("strings", f"expected {source.items}, got {flat}")
                return
        if made is None:
            return
        if tuple(made.shape) != tuple(source.value.shape):
            raise Failure("the shape of strings", f"{made.shape}")
        self.things[number] = Text(made, Node(), list(source.items))

    def draw_write_text(self, rng: random.Random) -> Drawn:
        return {"text": self.some(rng, Text), "byte": rng.randint(0, 255)}

    def do_write_text(self, number: int, text: int, byte: int) -> None:
        target = self.get(text, Text)
        if isinstance(target.value, tf.Tensor):
            raise NotThereError
        target.value.bytes.fill_(byte)
        target.items = [bytes([byte]) * len(item) for item in target.items]

    # -- values that are made of tensors: their parts become tensors like others --

    def vector(self, t: int) -> Dense:
        source: Dense = self.get(t, Dense)
        if len(source.shape) != 1 or source.dtype == "bool" or not source.nbytes:
            raise NotThereError
        return source

    def draw_ragged(self, rng: random.Random) -> Drawn:
        t = self.some(rng, Dense)
        cuts = sorted(rng.random() for _ in range(rng.randint(0, 4)))
        return {"t": t, "cuts": cuts, "write": rng.random() < 0.5}

    def do_ragged(self, number: int, t: int, cuts: list[float], write: bool) -> None:
        source = self.vector(t)
        count = source.shape[0]
        splits = [0, *(int(cut * count) for cut in cuts), count]
        ragged = tf.RaggedTensor.from_row_splits(
            source.value, tf.constant(splits, tf.int64), validate=False
        )
        x = self.library.to_torch("module", ragged)
        if x.offsets().tolist() != splits:
            raise Failure("row splits", f"expected {splits}, got {x.offsets().tolist()}")
        again = self.library.to_tf("module", x)
        if again.row_splits.numpy().tolist() != splits:
            raise Failure("row splits to TensorFlow")
        values = again.values
        part = self.add_converted(number, x.values().detach(), source, "shared", "copy")
        del x, again, ragged
        gc.collect(0)
        self.same_values(values, source)
        if write:
            self.do_write(number, number, "fill", 3, False)
        compare_rows = [splits[i + 1] - splits[i] for i in range(len(splits) - 1)]
        if min(compare_rows) < 0 or part.shape != source.shape:
            raise Failure("ragged values")

    def same_values(self, t: Any, source: Dense) -> None:
        if memory_at(tf_data_address(t), source.nbytes) != source.content():
            raise Failure("values of a part to TensorFlow")

    def draw_sparse(self, rng: random.Random) -> Drawn:
        return {"t": self.some(rng, Dense), "step": rng.randint(1, 3)}

    def do_sparse(self, number: int, t: int, step: int) -> None:
        source = self.vector(t)
        places = [[i * step // 8, i * step % 8] for i in range(source.shape[0])]
        shape = [places[-1][0] + 1, 8]
        sparse = tf.SparseTensor(tf.constant(places, tf.int64), source.value, shape)
        x = self.library.to_torch("module", sparse)
        if x._indices().t().tolist() != places or list(x.shape) != shape:
            raise Failure("sparse indices")
        again = self.library.to_tf("module", x)
        if again.indices.numpy().tolist() != places:
            raise Failure("sparse indices to TensorFlow")
        self.same_values(again.values, source)
        self.add_converted(number, x._values().detach(), source, "shared", "copy")

    def draw_slices(self, rng: random.Random) -> Drawn:
        return {"t": self.some(rng, Dense)}

    def do_slices(self, number: int, t: int) -> None:
        source = self.get(t, Dense)
        if len(source.shape) != 2 or source.dtype == "bool" or not source.nbytes:
            raise NotThereError
        rows = [2 * i for i in range(source.shape[0])]
        shape = [2 * len(rows), source.shape[1]]
        slices = tf.IndexedSlices(source.value, tf.constant(rows, tf.int64), tf.constant(shape))
        x = self.library.to_torch("module", slices)
        if x._indices().tolist() != [rows] or list(x.shape) != shape:
            raise Failure("indices of slices")
        self.add_converted(number, x._values().detach(), source, "shared", "copy")

    def draw_structure(self, rng: random.Random) -> Drawn:
        found = self.all_of(rng.choice((Dense, Torch)))
        return {"parts": [rng.choice(found) for _ in range(rng.randint(1, 4))],
                "nest": [rng.choice(("list", "dict", "tuple")) for _ in range(2)]}  # fmt: skip

    def do_structure(self, number: int, parts: list[int], nest: list[str]) -> None:
        """Nested values in one call. Keeps the first result; compares the others."""
        things = [self.get(part, Dense, Torch) for part in parts]
        if not things:
            raise NotThereError
        goes_to_tf = isinstance(things[0], Torch)
        if any(isinstance(thing, Torch) is not goes_to_tf for thing in things):
            raise NotThereError
        verdicts = []
        for thing in things:
            if goes_to_tf and (self.exported(thing.storage) or thing.storage.barred is None):
                raise NotThereError
            verdicts.append(self.to_tf_verdict(thing, None) if goes_to_tf else "shared")
        contents = [thing.content() for thing in things]

        def pack(values: Sequence[Any], kind: str) -> Any:
            if kind == "dict":
                return {f"k{i}": value for i, value in enumerate(values)} | {"plain": 7}
            return [*values, None] if kind == "list" else (*values, "text")

        def unpack(packed: Any) -> list[Any]:
            return list(packed.values() if isinstance(packed, dict) else packed)[:-1]

        inner = pack([thing.value for thing in things[1:]], nest[1])
        packed = pack([things[0].value, inner], nest[0])
        convert = self.library.to_tf if goes_to_tf else self.library.to_torch
        made = convert("module", packed)
        if type(made) is not type(packed):
            raise Failure("the kind of a structure")
        results = unpack(made)
        results = [results[0], *unpack(results[1])]
        del made, packed, inner
        # Negative numbers for the rest, which goes to TensorFlow.
        for i, (thing, result) in enumerate(zip(things, results, strict=True)):
            key = number if i == 0 else -number - 1
            if goes_to_tf:
                added: Any = self.add_sent(key, result, thing, verdicts[i], contents[i])
            else:
                added = self.add_converted(key, result, thing, "shared", "copy")
            added.check()
            self.things.pop(-number - 1, None)

    # -- the C interface without Python --

    def draw_native(self, rng: random.Random) -> Drawn:
        steps = ("write", "back", "drop torch", "drop tf", "again")
        return {"steps": [rng.choice(steps) for _ in range(rng.randint(2, 7))]}

    def do_native(self, number: int, steps: list[str]) -> None:
        problem = run_steps(steps)
        if problem:
            raise Failure("the C interface", problem)

    # -- checkpoints --

    def of_torch(self) -> dict[int, Torch | Text]:
        """torch's tensors and StringTensors, by their numbers."""
        found = {
            n: thing
            for n, thing in self.things.items()
            if type(thing) is Torch
            or (type(thing) is Text and not isinstance(thing.value, tf.Tensor))
        }
        if not found:
            raise NotThereError
        return found

    def draw_checkpoint(self, rng: random.Random) -> Drawn:
        found = list(self.of_torch())
        return {"parts": rng.sample(found, min(len(found), 4)), "file": rng.choice(("pt", "tf"))}

    def do_checkpoint(self, number: int, parts: list[int], file: str) -> None:
        """torch's tensors into a checkpoint, and from there into both frameworks."""
        found = self.of_torch()
        things = {f"p{n}": found[n] for n in parts if n in found}
        if not things:
            raise NotThereError
        state = {name: thing.value for name, thing in things.items()}
        prefix = self.library.save(state, self.folder / "saved")
        loaded = self.library.load(prefix)
        dense = {name: thing for name, thing in things.items() if isinstance(thing, Torch)}
        for name, thing in things.items():
            if isinstance(thing, Text) and loaded[name].to_bytes() != thing.items:
                raise Failure("strings of a checkpoint")
        if not dense:
            return
        if file == "tf":
            for name, thing in dense.items():
                [t] = tf.raw_ops.RestoreV2(
                    prefix=prefix, tensor_names=[name], shape_and_slices=[""],
                    dtypes=[tf.as_dtype(thing.dtype)],
                )  # fmt: skip
                nbytes = thing.elements * itemsize(thing.dtype)
                if memory_at(tf_data_address(t), nbytes) != thing.content():
                    raise Failure("a checkpoint as TensorFlow reads it")
        else:
            target = self.folder / "converted.pt"
            self.library.convert(prefix, target)
            for name, x in torch.load(target).items():
                self.same_as(x, dense[name])
        self.keep_loaded(number, loaded, dense)

    def same_as(self, x: torch.Tensor, thing: Dense | Torch) -> None:
        """A tensor that a file gave."""
        if (tuple(x.shape), str(x.dtype)) != (thing.shape, f"torch.{thing.dtype}"):
            raise Failure("shape or dtype of a checkpoint")
        nbytes = x.numel() * x.element_size()
        if nbytes and memory_at(torch_data_address(x), nbytes) != thing.content():
            raise Failure("values of a checkpoint")

    def keep_loaded(self, number: int, loaded: Any, things: dict[str, Any]) -> None:
        for i, (name, thing) in enumerate(things.items()):
            x = loaded[name]
            self.same_as(x, thing)
            if i == 0 and x.numel():
                storage = self.own_storage(x, thing.content())
                storage.of_file = True
                self.add_torch(number, x, storage, live=loaded)

    def draw_tf_checkpoint(self, rng: random.Random) -> Drawn:
        found = self.all_of(Dense)
        return {"parts": rng.sample(found, min(len(found), 4))}

    def do_tf_checkpoint(self, number: int, parts: list[int]) -> None:
        things = {f"p{n}": self.get(n, Dense) for n in parts if n in self.things}
        if not things:
            raise NotThereError
        prefix = str(self.folder / f"written-{number}")
        bundles.save(prefix, {name: thing.value for name, thing in things.items()})
        self.keep_loaded(number, self.library.load(prefix), things)
