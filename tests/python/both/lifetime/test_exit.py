"""The interpreter exits while torch still shows TensorFlow's memory: without output, status 0."""

from __future__ import annotations

from pathlib import Path

import pytest
from fresh import TENSORFLOW_FIRST, TORCH_FIRST, WITHOUT_TORCH, run_forked, run_python

SCENARIOS = {
    "module global": "kept = tensor_bridge.to_torch(t)",
    "written module global": "kept = tensor_bridge.to_torch(t); kept.add_(1)",
    "ctypes interface": "bridge = TensorBridge(); kept = bridge.to_torch(t); bridge.kept = kept",
    "many": "kept = [tensor_bridge.to_torch(t) for _ in range(10_000)]",
    "attributes of the frameworks": """
        import sys
        torch.kept = tf.kept = sys.kept = tensor_bridge.kept = tensor_bridge.to_torch(t)
    """,
    "reference cycles": """
        class Node: pass
        a, b = Node(), Node()
        a.other, b.other, a.x, b.t = b, a, tensor_bridge.to_torch(t), t
        a.x.owner = a
        import gc; gc.disable()
    """,
    "finalizers": """
        import weakref
        class Late:
            def __init__(self): self.x = tensor_bridge.to_torch(t)
            def __del__(self): self.x.tolist(); self.x.add_(1); del self.x
        late = Late()
        kept = tensor_bridge.to_torch(t)
        weakref.finalize(kept, print, end="")
    """,
    "atexit handlers": """
        import atexit
        kept = tensor_bridge.to_torch(t)
        def convert_and_write():
            x = tensor_bridge.to_torch(t)
            assert x.tolist() == [1, 2]
            x.add_(1)
            assert tensor_bridge.explain(t).action == "shared"
            assert TensorBridge().to_torch(v).tolist() == [1, 2]
        atexit.register(convert_and_write)
        atexit.register(lambda: globals().pop("kept"))
        atexit.register(convert_and_write)
    """,
    "idle daemon threads": """
        import threading
        started, never = threading.Semaphore(0), threading.Event()
        def keep():
            x, y = tensor_bridge.to_torch(t), tensor_bridge.to_torch(v)
            y.add_(1)
            local = threading.local(); local.kept = tensor_bridge.to_torch(t)
            started.release()
            never.wait()
        for _ in range(3):
            threading.Thread(target=keep, daemon=True).start()
            started.acquire()
    """,
    "a thread that is joined at exit": """
        import threading, time
        def late():
            time.sleep(0.2)
            for _ in range(100): tensor_bridge.to_torch(t).add_(1)
        threading.Thread(target=late).start()
    """,
    "autograd graph and optimizer": """
        w = torch.nn.Parameter(tensor_bridge.to_torch(t))
        loss = (w * tensor_bridge.to_torch(t)).sum()
        optimizer = torch.optim.AdamW([w])
        loss.backward(retain_graph=True); optimizer.step()
    """,
    "functions and datasets of TensorFlow": """
        kept = tensor_bridge.to_torch(t)
        f = tf.function(lambda: t * 2, autograph=False)
        result = tensor_bridge.to_torch(f())
        data = iter(tf.data.Dataset.from_tensor_slices(tf.zeros((64, 16))).repeat().prefetch(4))
        batch = tensor_bridge.to_torch(next(data))
    """,
    "an exception in flight": """
        import sys
        sys.excepthook = lambda *_: None
        kept = tensor_bridge.to_torch(t, on_write="raise")
        try: kept.add_(1)
        except BufferError as e: error = e
        try: tensor_bridge.to_torch(tf.constant("a"))
        except TypeError as e: other = e
    """,
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_interpreter_ends_quietly(name: str) -> None:
    done = run_forked(
        "import textwrap\n"
        "t, v = tf.constant([1.0, 2.0]) + 0.0, tf.Variable([1.0, 2.0])\n"
        f"exec(textwrap.dedent({SCENARIOS[name]!r}))\n"
        "assert testing.live_owners() >= 0\n"
        "print('end')\n",
        exits=True,
    )
    assert done.check().startswith("end")


def test_large_copy_in_a_daemon_thread_at_exit() -> None:
    """It releases the GIL during the copy, and needs it again after the interpreter is gone."""
    run_forked(
        """
        import threading
        large = tf.zeros((1 << 27,))
        kept, started = [], threading.Semaphore(0)
        def copy():
            started.release()
            kept.append(tensor_bridge.to_torch(large, copy=True))
        threads = [threading.Thread(target=copy, daemon=True) for _ in range(2)]
        [thread.start() for thread in threads]
        [started.acquire() for thread in threads]
        assert not kept
        """,
        exits=True,
    ).check()


KEEP_EVERYTHING = """
import atexit, threading
t, v = tf.constant([1.0, 2.0]) + 0.0, tf.Variable([1.0, 2.0])
kept = [tensor_bridge.to_torch(t), tensor_bridge.to_torch(v), tensor_bridge.to_torch(t[None])]
kept[1].add_(1)
assert [x.tolist() for x in kept] == [[1, 2], [2, 3], [[1, 2]]], kept
assert tensor_bridge.testing.shares_memory(t, kept[0])
cycle = [tensor_bridge.TensorBridge().to_torch(t)]
cycle.append(cycle)
tf.kept = tensor_bridge.to_torch(t)
import torch
torch.kept = tensor_bridge.to_torch(t)
atexit.register(lambda: tensor_bridge.to_torch(t).add_(1))
started, never = threading.Event(), threading.Event()
def keep():
    x = tensor_bridge.to_torch(t)
    started.set()
    never.wait()
threading.Thread(target=keep, daemon=True).start()
started.wait()
print("end")
"""

ORDERS = {
    "tensorflow, torch, tensor_bridge": TENSORFLOW_FIRST,
    "torch, tensorflow, tensor_bridge": TORCH_FIRST,
    "tensor_bridge, tensorflow": WITHOUT_TORCH,
}


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_of_imports_up_to_the_end_of_the_interpreter(order: str) -> None:
    code = f"import tensor_bridge\n{KEEP_EVERYTHING}"
    assert run_forked(code, exits=True, after=(ORDERS[order],)).check() == "end"


def test_process_that_converts_before_it_imports_anything_else() -> None:
    run_python("""
        import sys
        import tensor_bridge
        for value in (5, "text", None, object()):
            for interface in (tensor_bridge, tensor_bridge.TensorBridge()):
                try:
                    interface.to_torch(value)
                except tensor_bridge.UnsupportedTypeError as e:
                    assert "TensorFlow is not loaded" in str(e), e
                else:
                    raise SystemExit("no error")
                assert interface.explain(value).action == "refused"
        assert not {"tensorflow", "numpy"} & set(sys.modules)
        import tensorflow as tf
        t = tf.constant([1.0, 2.0])
        for interface in (tensor_bridge, tensor_bridge.TensorBridge()):
            assert tensor_bridge.testing.shares_memory(t, interface.to_torch(t))
    """).check()


# ---- unusual processes ---------------------------------------------------------------------------

NATIVE = """
import ctypes, gc, threading, _ctypes
from pathlib import Path
import tensor_bridge
PATH = str(Path(tensor_bridge._C.__file__).with_name("libtensor_bridge.so"))
def mapped(name):
    return [line.split()[-1] for line in open("/proc/self/maps") if name in line]
TENSORFLOW = ctypes.CDLL(mapped("tensorflow_framework")[0])
TENSORFLOW.TF_AllocateTensor.restype = ctypes.c_void_p
def convert(library):
    dims = (ctypes.c_int64 * 1)(4)
    t = ctypes.c_void_p(TENSORFLOW.TF_AllocateTensor(1, dims, 1, ctypes.c_size_t(16)))
    out = ctypes.c_void_p()
    assert library.tb_tensor_from_tf(t, ctypes.byref(out)) == 0
    library.tb_tensor_release(out)
"""


def test_naming_a_part_of_the_tensorflow_in_use_keeps_what_is_alive() -> None:
    """libtensorflow_framework lacks the eager functions, which live handles need."""
    run_forked(
        f"""{NATIVE}
t = tf.zeros(3) + 1
x = tensor_bridge.to_torch(t)
library = ctypes.CDLL(PATH)
library.tb_use_tensorflow.argtypes = [ctypes.c_void_p]
assert library.tb_use_tensorflow(TENSORFLOW._handle) == 0
assert tensor_bridge.testing.shares_memory(t, tensor_bridge.to_torch(t))
assert tensor_bridge.to_tf(x).numpy().tolist() == [1, 1, 1]
del x
gc.collect()
assert tensor_bridge.testing.live_owners() == 0
"""
    ).check()


def test_thread_that_converted_may_end_after_the_library_was_closed(tmp_path: Path) -> None:
    run_forked(
        f"""{NATIVE}
import shutil
copy = {str(tmp_path / "libcopy.so")!r}
shutil.copy(PATH, copy)
library = ctypes.CDLL(copy)
library.tb_tensor_release.argtypes = [ctypes.c_void_p]
converted, closed = threading.Event(), threading.Event()
def work():
    convert(library)
    converted.set()
    closed.wait()
thread = threading.Thread(target=work)
thread.start()
converted.wait()
_ctypes.dlclose(library._handle)
assert mapped("libcopy.so"), "the thread's exit would call code that is gone"
closed.set()
thread.join()
"""
    ).check()


def test_process_without_a_pthread_key_left() -> None:
    """If no key can be made, none may be used: key 0 belongs to other code."""
    run_forked(
        f"""{NATIVE}
libc = ctypes.CDLL(None)
libc.pthread_getspecific.restype = ctypes.c_void_p
key = ctypes.c_uint()
taken = 0
while libc.pthread_key_create(ctypes.byref(key), None) == 0:
    taken += 1
assert taken > 100
before = libc.pthread_getspecific(ctypes.c_uint(0))
t = tf.zeros(3) + 1
assert tensor_bridge.testing.shares_memory(t, tensor_bridge.to_torch(t))
x = torch.zeros(64)
assert tensor_bridge.testing.shares_memory(tensor_bridge.to_tf(x), x)
assert libc.pthread_getspecific(ctypes.c_uint(0)) == before
"""
    ).check()
