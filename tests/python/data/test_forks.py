"""A forked child does not have the threads: every method says so, and none waits for them."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
import tensorflow as tf
from fresh import run_forked

from tensor_bridge.data import loader
from tensor_bridge.data._dataset import TorchDatasetBase
from tensor_bridge.data._device import Mover
from tensor_bridge.data._elements import Elements
from tensor_bridge.data._in_step import InStep
from tensor_bridge.data._loader import LoaderBase

PROTOCOLS = ("__iter__", "__next__", "__len__", "__getstate__")


def entries(kind: type[Any]) -> list[str]:
    """The methods of a class and its bases."""
    found = {}
    for base in reversed(kind.__mro__[:-1]):
        found.update(vars(base))
    return sorted(
        name
        for name, value in found.items()
        if inspect.isfunction(value) and (not name.startswith("_") or name in PROTOCOLS)
    )


PRELUDE = """
import gc, os, sys, threading
from tensor_bridge.data import TorchDataset, loader
from tensor_bridge.data._in_step import InStep

tf.ones(2) + 1  # TensorFlow's threads are there to be lost
going, go_on = threading.Semaphore(0), threading.Event()
def wait(i):
    if i > 0:
        going.release()
        go_on.wait()
    return i
ds = tf.data.Dataset.range(5).map(tf.autograph.experimental.do_not_convert(
    lambda i: tf.py_function(wait, [i], tf.int64))).prefetch(2)
given = loader(ds, prefetch=2, resume="replay")
moved = loader(tf.data.Dataset.range(50).prefetch(2), device="meta")
elements, mover = iter(given), iter(moved)
next(elements), next(mover)
going.acquire()  # an element is being made, for as long as this process lives
held = threading.Event()
def hold():
    with elements._lock:
        held.set()
        go_on.wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
state = moved.state_dict()
objects = {
    "TorchDatasetBase": given.dataset, "LoaderBase": given, "Elements": elements,
    "InStep": InStep(elements), "Mover": mover,
}
arguments = {"set_epoch": (1,), "load_state_dict": (state,), "build": ([torch.tensor(1)],)}
"""

CHILD = """
child = os.fork()
if child == 0:
    for kind, names in ENTRIES.items():
        for name in names:
            print(kind, name, flush=True)
            try:
                getattr(objects[kind], name)(*arguments.get(name, ()))
            except tensor_bridge.WorkerProcessError:
                continue
            except BaseException as e:
                print("raised", type(e), e, flush=True)
            os._exit(1)
    for kept in (given, moved):
        try:
            for _ in kept:
                pass
            os._exit(1)
        except tensor_bridge.WorkerProcessError:
            pass
    print("dropped", flush=True)
    objects.clear()
    del given, moved, elements, mover, kept
    gc.collect()
    os._exit(7)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print("code", code)
go_on.set()
assert [int(i) for i in elements] == [1, 2, 3, 4]
assert len(list(mover)) == 49
"""

KINDS: list[type[Any]] = [TorchDatasetBase, LoaderBase, Elements, InStep, Mover]


def test_every_entry_of_a_forked_child_raises_and_none_waits() -> None:
    every = {kind.__name__: entries(kind) for kind in KINDS}
    for kind, name in (
        ("TorchDatasetBase", "state_dict"),
        ("LoaderBase", "stats"),
        ("Elements", "__next__"),
        ("InStep", "next_flat"),
        ("Mover", "undelivered"),
    ):
        assert name in every[kind]
    # The Loader has the methods of its dataset, except what torch's classes need of any object.
    every["LoaderBase"] = [name for name in every["LoaderBase"] if name != "__getstate__"]
    code = PRELUDE + f"ENTRIES = {every!r}\n" + CHILD
    done = run_forked(code, timeout=120)
    assert done.code == 0, (done.out, done.err)
    assert done.out.splitlines()[-1] == "code 7", done.out


def test_leaving_a_forked_child_in_the_middle_of_a_pass() -> None:
    done = run_forked(
        PRELUDE
        + """
child = os.fork()
if child == 0:
    sys.exit(7)  # what is left is finalised, as in no child of multiprocessing's
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
""",
        exits=True,
        timeout=120,
    )
    assert done.out.strip() == "7", done.err


@pytest.mark.parametrize("native", ["data_next_flat", "data_pause", "data_stats"])
def test_the_native_iterator_of_a_forked_child_is_refused(native: str) -> None:
    done = run_forked(
        PRELUDE
        + f"""
from tensor_bridge import _C
child = os.fork()
if child == 0:
    try:
        _C.{native}(elements._native, *([0.0] if {native!r} == "data_next_flat" else []))
    except Exception as e:
        os._exit(7 if "forked" in str(e) else 8)
    os._exit(1)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
go_on.set()
print(code)
""",
        timeout=60,
    )
    assert done.out.strip() == "7", done.err


def test_what_a_fork_can_read_is_not_asked_of_the_threads() -> None:
    made = loader(tf.data.Dataset.range(3))
    assert json.dumps([made.dataset.epoch, made.dataset.position]) == "[0, 0]"
