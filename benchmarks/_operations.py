"""The operations whose instructions are counted: small, fixed, and the same for every commit.

Runs under callgrind, started by compare.py; prints nothing. The frameworks are imported once, then
each package is loaded in a separate forked child, so that everything else is the same.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from _timing import Contender

# Numbers of calls. The difference between the counts with few and with more calls is their cost.
REPEAT = 3
FEW, MORE = 20, 300
# The same for operations with a thousand conversions per call.
FEW_LARGE, MORE_LARGE = 1, 2
LEAVES = 1000


def operations(tensor_bridge: ModuleType, folder: str) -> Iterator[tuple[Contender, bool]]:
    """The counted operations, and whether a call makes a thousand conversions.

    Files go to the folder.
    """
    import tensorflow as tf
    import torch

    to_torch, to_tf = tensor_bridge.to_torch, tensor_bridge.to_tf

    def one(name: str, statement: str, **names: object) -> tuple[Contender, bool]:
        return Contender(name, statement, {"to_torch": to_torch, "to_tf": to_tf, **names}), False

    def many(name: str, statement: str, **names: object) -> tuple[Contender, bool]:
        return one(name, statement, **names)[0], True

    def tensor(*shape: int) -> tf.Tensor:
        return tf.random.stateless_uniform(shape, seed=(1, 2))

    yield one("x.detach(), for scale", "x.detach()", x=torch.rand(2, 2))
    for shape in ((), (2, 2), (1, 2, 1, 2)):
        yield one(f"to_torch, rank {len(shape)}", "to_torch(t)", t=tensor(*shape))
    yield one("to_torch, on_write='raise'", "to_torch(t, on_write='raise')", t=tensor(2, 2))
    yield one("to_torch, copy=True", "to_torch(t, copy=True)", t=tensor(2, 2))
    yield one("to_torch, variable", "to_torch(v)", v=tf.Variable(tensor(2, 2)))
    for shape in ((), (2, 2), (1, 2, 1, 2)):
        yield one(f"to_tf, rank {len(shape)}", "to_tf(x)", x=torch.rand(shape))
    yield one("to_tf, of TensorFlow's memory", "to_tf(x)", x=to_torch(tensor(2, 2)))
    yield one("to_tf(to_torch(t))", "to_tf(to_torch(t))", t=tensor(2, 2))

    tensors = [tensor(2, 2) for _ in range(LEAVES)]
    named = {f"layer_{i}/kernel": t for i, t in enumerate(tensors)}
    yield many("to_torch, list of 1,000", "to_torch(t)", t=tensors)
    yield many("to_torch, dict of 1,000", "to_torch(t)", t=named)
    yield many("to_torch, nested, 1,000", "to_torch(t)", t=nested(named))
    shared = [torch.rand(2, 2) for _ in range(LEAVES)]
    named = {f"layer_{i}/kernel": x for i, x in enumerate(shared)}
    yield many("to_tf, list of 1,000", "to_tf(x)", x=shared)
    yield many("to_tf, dict of 1,000", "to_tf(x)", x=named)
    yield many("to_tf, nested, 1,000", "to_tf(x)", x=nested(named))

    strings = tf.constant([b"%d bytes or more" % i for i in range(LEAVES)])
    yield one("to_torch, one string", "to_torch(t)", t=tf.constant([b"some bytes"]))
    yield many("to_torch, 1,000 strings", "to_torch(t)", t=strings)
    yield many("to_tf, 1,000 strings", "to_tf(x)", x=to_torch(strings))

    ragged = tf.RaggedTensor.from_row_lengths(tensor(6), [2, 0, 4])
    yield one("to_torch, ragged", "to_torch(t)", t=ragged)
    yield one("to_tf, ragged", "to_tf(x)", x=to_torch(ragged))
    sparse = tf.sparse.from_dense([[0.0, 2.0], [3.0, 0.0]])
    yield one("to_torch, sparse", "to_torch(t)", t=sparse)
    yield one("to_tf, sparse", "to_tf(x)", x=to_torch(sparse))
    yield one("loader, an element", "next(elements)", elements=endless(tensor_bridge))
    yield one(
        "checkpoint.load, 20 tensors",
        "load(path)",
        load=tensor_bridge.checkpoint.load,
        path=saved(tensors[:20], folder),
    )
    yield one("a gradient through TensorFlow", "f(x).backward(y)", **gradient(tensor_bridge))


def endless(tensor_bridge: ModuleType) -> Iterator[object]:
    """A loader's elements, each made when it is asked for: ahead, how many depends on the time."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensors(tf.ones((2, 2))).repeat()
    return iter(tensor_bridge.data.loader(dataset, prefetch=0))


def saved(tensors: Sequence[object], folder: str) -> str:
    """The prefix of a checkpoint."""
    import tensorflow as tf

    named = {f"layer_{i}": tf.Variable(t) for i, t in enumerate(tensors)}
    return str(tf.train.Checkpoint(**named).write(f"{folder}/made"))


def gradient(tensor_bridge: ModuleType) -> dict[str, object]:
    """A TensorFlow function as a torch operation, its argument, and a gradient of its result."""
    import tensorflow as tf
    import torch

    f = tensor_bridge.autograd.tf_to_torch(tf.function(tf.square))
    return {"f": f, "x": torch.rand(2, 2, requires_grad=True), "y": torch.ones(2, 2)}


def nested(leaves: Mapping[str, object]) -> list[dict[str, object]]:
    """A structure like a model's weights: layers, each a dict with a tuple in it."""
    names = list(leaves)
    return [
        {"kernel": leaves[a], "bias": leaves[b], "moments": (leaves[c], leaves[d])}
        for a, b, c, d in zip(*(names[i::4] for i in range(4)), strict=True)
    ]


def count(label: str, package: str, client: ctypes.CDLL, only: str) -> None:
    """Dumps counts of operations of the package, labelled `LABEL|operation|calls`."""
    if package:
        # The finder of the editable install would come first.
        finder = "ScikitBuildRedirectingFinder"
        sys.meta_path[:] = [entry for entry in sys.meta_path if type(entry).__name__ != finder]
        sys.path.insert(0, package)
    import tensor_bridge

    if package and not Path(str(tensor_bridge.__file__)).is_relative_to(package):
        raise SystemExit(f"imported {tensor_bridge.__file__}, not from {package}")
    with tempfile.TemporaryDirectory() as folder:
        # Warming up is several times faster while callgrind does not count.
        prepared = [
            (contender, large)
            for contender, large in operations(tensor_bridge, folder)
            if re.search(only, contender.name)
        ]
        client.startCounting()
        for contender, large in prepared:
            few, more = (FEW_LARGE, MORE_LARGE) if large else (FEW, MORE)
            timer = contender.timer()
            timer.timeit(few)
            for _ in range(REPEAT):
                for calls in (few, few + more):
                    client.resetCounts()
                    timer.timeit(calls)
                    client.dumpCounts(f"{label}|{contender.name}|{calls}".encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--client", required=True, help="the built callgrind_client.c")
    parser.add_argument("--only", default="", help="a pattern of the operations' names")
    parser.add_argument("packages", nargs="+", metavar="LABEL=FOLDER", help="'' is the installed")
    options = parser.parse_args()
    import tensorflow as tf
    import torch

    torch.set_num_threads(1)
    del tf
    client = ctypes.CDLL(options.client)
    for label, _, package in (entry.partition("=") for entry in options.packages):
        child = os.fork()
        if child == 0:
            try:
                count(label, package, client, options.only)
            except BaseException as error:
                print(f"{label}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
