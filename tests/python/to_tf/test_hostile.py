"""Subclasses, patched methods, and memory that changes during a conversion."""

from __future__ import annotations

import gc
from typing import Any

import needs
import numpy as np
import pytest
import tensorflow as tf
import torch
from fresh import run_forked
from hostile_objects import touched
from refusals import assert_to_tf_refused, explained
from sharing import owners, shared_to_tf, tf_bytes, torch_bytes, values

import tensor_bridge
from tensor_bridge.testing import shares_memory, torch_data_address


class Renamed(torch.Tensor):
    shape = property(touched)
    dtype = property(touched)
    device = property(touched)
    is_contiguous = data_ptr = const_data_ptr = __dlpack__ = touched
    requires_grad = property(touched)


def test_attributes_of_a_subclass_are_not_asked(interface: Any) -> None:
    x = torch.Tensor._make_subclass(Renamed, values())
    t = interface.to_tf(x)
    assert tf_bytes(t) == torch_bytes(values())


def test_class_of_a_tensor_may_change(interface: Any) -> None:
    x = values()
    x.__class__ = type("Other", (torch.Tensor,), {"__torch_function__": touched})
    t = interface.to_tf(x)
    assert tf_bytes(t) == torch_bytes(values())


@needs.shares_to_tf
@pytest.mark.parametrize("name", ["data_ptr", "const_data_ptr", "__dlpack__", "contiguous"])
def test_patched_methods_of_torch_are_not_called(
    name: str, monkeypatch: pytest.MonkeyPatch, interface: Any
) -> None:
    x, y = values(), values().T
    expected = torch_bytes(y.contiguous())
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, name, touched)
        t, u = interface.to_tf(x), interface.to_tf(y)
    assert shares_memory(t, x)
    assert tf_bytes(u) == expected


@needs.shares_to_tf
def test_storage_resized_after_the_views_were_made(interface: Any) -> None:
    """torch reads past the end of the storage; TensorFlow must not get the address."""
    x = values((1 << 16,))
    middle, start, strided = x[1 << 15 :], x[:16], x[::2]
    x.untyped_storage().resize_(256)
    for view in (x, middle, strided):
        assert_to_tf_refused(
            interface, view, tensor_bridge.InvalidHandleError, "resized to fewer bytes"
        )
    shared_to_tf(start, interface.to_tf)
    x.untyped_storage().resize_(1 << 18)
    assert interface.to_tf(x).shape == 1 << 16


@needs.shares_to_tf
def test_parameter_whose_storage_was_freed(interface: Any) -> None:
    """FSDP frees storages between steps."""
    w = torch.nn.Parameter(values())
    w.untyped_storage().resize_(0)
    for copy in (None, False, True):
        assert_to_tf_refused(
            interface, w, tensor_bridge.InvalidHandleError, "fewer bytes", copy=copy
        )
    w.untyped_storage().resize_(96)
    shared_to_tf(w, interface.to_tf)


@needs.shares_to_tf
def test_storage_freed_while_tensorflow_has_it() -> None:
    kept = shared_to_tf()
    kept.torch.untyped_storage().resize_(0)
    kept.assert_untouched()
    with pytest.raises(tensor_bridge.InvalidHandleError):
        tensor_bridge.to_tf(kept.torch)


@needs.shares_to_tf
@pytest.mark.parametrize("owner", ["bytearray", "array", "mmap", "NumPy"])
def test_memory_of_others_stays_alive(owner: str) -> None:
    import array
    import mmap

    memory: Any = {
        "bytearray": lambda: bytearray(1 << 12),
        "array": lambda: array.array("B", bytes(1 << 12)),
        "mmap": lambda: mmap.mmap(-1, 1 << 12),
        "NumPy": lambda: np.zeros(1 << 12, np.uint8),
    }[owner]()
    x = torch.frombuffer(memory, dtype=torch.uint8)
    x = x[-torch_data_address(x) % 64 :][:256]
    x.copy_(torch.arange(256))
    t = tensor_bridge.to_tf(x, copy=False)
    expected = bytes(range(256))
    del x, memory
    gc.collect()
    garbage = [bytearray(1 << 12) for _ in range(100)]
    assert tf_bytes(t) == expected
    del garbage


@needs.shares_to_tf
def test_read_only_buffer_of_python_is_not_written() -> None:
    text = bytes(range(256)) * 16
    with pytest.warns(UserWarning, match="not writable"):
        x = torch.frombuffer(text, dtype=torch.uint8)
    x = x[-torch_data_address(x) % 64 :][:256]
    kept = shared_to_tf(x)
    x.zero_()  # would change an immutable object if the share did not protect it
    kept.assert_moved()
    assert text == bytes(range(256)) * 16


@needs.shares_to_tf
def test_foreign_capsule_of_torch() -> None:
    """torch ignores READ_ONLY, so writes reach the array; after the share a write moves torch."""
    array = np.arange(64, dtype=np.float32)
    array.flags.writeable = False
    x = torch.from_dlpack(array)
    t = tensor_bridge.to_tf(x)
    if shares_memory(t, x):
        x.zero_()
        assert array.sum() == 2016
    assert tf.reduce_sum(t).numpy() == 2016


@needs.shares_to_tf
def test_error_in_the_middle_leaves_the_tensor_usable(interface: Any) -> None:
    x = torch.full((64,), 99, dtype=torch.uint8)
    with owners():
        for _ in range(3):
            with pytest.raises(tensor_bridge.ValueRangeError):
                interface.to_tf(x, dtype="uint4")
    address = torch_data_address(x)
    x.fill_(1)
    assert torch_data_address(x) == address
    kept = shared_to_tf(x, interface.to_tf)
    x.fill_(2)
    kept.assert_moved()


def test_uninitialised_and_legacy_constructors(interface: Any) -> None:
    for x in (torch.FloatTensor([1, 2]), torch.autograd.Variable(torch.ones(2))):
        assert interface.to_tf(x).shape == 2
    empty = torch.Tensor.__new__(torch.Tensor)
    assert interface.to_tf(empty).shape == 0
    assert explained(interface, empty).nbytes == 0


@needs.dtype("uint4")
def test_many_conversions_grow_no_memory() -> None:
    code = """
        import resource
        x = torch.ones(64)
        y = torch.ones(64, 64).T
        z = torch.full((64,), 99, dtype=torch.uint8)
        def work(count):
            for _ in range(count):
                tensor_bridge.to_tf(x)
                tensor_bridge.to_tf(y)
                x.add_(1)
                try:
                    tensor_bridge.to_tf(z, dtype="uint4")
                except tensor_bridge.ValueRangeError:
                    pass
                try:
                    tensor_bridge.to_tf([x, y, object()])
                except TypeError:
                    pass
        work(3000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        work(10000)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 2048, grown
        print(testing.live_owners())
    """
    assert run_forked(code).check() == "0"


# Without a concurrent write: torch's own operators abort if a daemon thread wants the GIL at exit.
DAEMON = """
import threading, time
x = {x}
def run():
    while True:
        tensor_bridge.to_tf(x)
threading.Thread(target=run, daemon=True).start()
time.sleep(0.2)
"""

EXITS = {
    "TensorFlow holds torch's": "t = tensor_bridge.to_tf(torch.ones(64))",
    "both hold": "x = torch.ones(64)\nt = tensor_bridge.to_tf(x)",
    "a chain": "x = torch.ones(64)\nt = tensor_bridge.to_tf(x)\ny = tensor_bridge.to_torch(t)",
    "a variable": "v = tf.Variable(tensor_bridge.to_tf(torch.ones(64)))",
    "a function's constant": "t = tensor_bridge.to_tf(torch.ones(64))\n"
    "f = tf.function(lambda: t + 1, autograph=False)\nf()",
    "NumPy's memory": "import numpy\na = numpy.zeros(1 << 12, 'uint8')\n"
    "x = torch.from_numpy(a)\nx = x[-x.const_data_ptr() % 64:]\nt = tensor_bridge.to_tf(x)",
    "a moved tensor": "x = torch.ones(64)\nt = tensor_bridge.to_tf(x)\nx.add_(1)\n"
    "u = tensor_bridge.to_tf(x)",
    "a cycle": "l = [tensor_bridge.to_tf(torch.ones(64))]\nl.append(l)",
    "a prefetching dataset": "d = iter(tf.data.Dataset.from_tensors("
    "tensor_bridge.to_tf(torch.ones(64))).repeat().prefetch(4))\nnext(d)",
    "a daemon thread that shares": DAEMON.format(x="torch.ones(64)"),
    "a daemon thread that copies": DAEMON.format(x="torch.ones(600, 600).T"),
}


@needs.shares_to_tf
@pytest.mark.parametrize("name", EXITS)
def test_interpreter_ends_while_memory_is_shared(name: str) -> None:
    done = run_forked(EXITS[name], exits=True)
    assert done.code == 0, done.err
