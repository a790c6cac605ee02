"""The order of work on a GPU: torch's streams, TensorFlow's, and captured graphs."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cuda_gate
import fresh
import needs
import pytest
import tensorflow as tf
import torch
from cuda_gate import assert_bounded, gated, wait_until
from tensorflow.python.eager import context, executor

from tensor_bridge import config
from tensor_bridge.dlpack import exporter
from tensor_bridge.testing import live_owners, shares_memory, tf_data_address

COUNT = 1 << 16
SUPPORT = str(Path(cuda_gate.__file__).parent)

moves = needs.torch_since(13, "a first write on a GPU raises")


def on_device(value: float, count: int = COUNT) -> tf.Tensor:
    t = tf.fill([count], value)
    assert "GPU" in t.backing_device
    return t


def overwrite(address: int, count: int) -> None:
    """Makes TensorFlow reuse the memory at an address if it was released."""
    kept = []
    for _ in range(64):
        kept.append(on_device(-1.0, count))
        if tf_data_address(kept[-1]) == address:
            break
    float(kept[-1][0])


# ---- Into torch ----------------------------------------------------------------------------------


WAYS: dict[str, Callable[[Any, tf.Tensor], torch.Tensor]] = {
    "shared": lambda interface, t: interface.to_torch(t).clone(),
    "copy": lambda interface, t: interface.to_torch(t, copy=True),
    "to the host": lambda interface, t: interface.to_torch(t, device="cpu"),
    "dlpack": lambda interface, t: torch.from_dlpack(exporter(t)).clone(),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_value_of_an_asynchronous_executor_is_complete(way: str, interface: Any) -> None:
    asynchronous = executor.new_executor(enable_async=True)
    with context.executor_scope(asynchronous):
        for i in range(3):
            b = on_device(float(i))
            for _ in range(20):
                b += 1.0
            x = WAYS[way](interface, b)
            torch.cuda.synchronize()
            assert x.unique().tolist() == [i + 20.0]
    asynchronous.wait()


def test_the_value_of_a_variable_is_complete_with_an_asynchronous_executor(interface: Any) -> None:
    v = tf.Variable(on_device(1.0))
    asynchronous = executor.new_executor(enable_async=True)
    with context.executor_scope(asynchronous):
        for i in range(3):
            for _ in range(20):
                v.assign_add(on_device(1.0), read_value=False)
            x = interface.to_torch(v).clone()
            torch.cuda.synchronize()
            assert x.unique().tolist() == [20.0 * (i + 1) + 1]
    asynchronous.wait()


@pytest.mark.alone
@pytest.mark.parametrize(
    "conversion",
    ["tensor_bridge.to_tf(x)", "tensor_bridge.to_torch(t, device='cpu')"],
)
def test_other_threads_run_while_a_conversion_waits_for_torch(conversion: str) -> None:
    """In a separate process, because a wait that holds the GIL would never end."""
    path = os.pathsep.join([SUPPORT, os.environ.get("PYTHONPATH", "")])
    code = f"""
        import sys, threading
        import torch
        import tensor_bridge
        import tensorflow as tf
        from cuda_gate import assert_bounded, gated, wait_until

        with tf.device("GPU:0"):
            t = tf.constant([1.0, 2.0]) + 1.0
        x = torch.empty(4, device="cuda")
        {conversion}  # the first one imports what it needs
        begun = threading.Lock()
        begun.acquire()
        with gated(torch.cuda.current_stream()) as gate:
            opener = threading.Thread(target=lambda: begun.acquire() and gate.open())
            opener.start()
            # From here on it runs only when this thread gives the GIL away.
            sys.setswitchinterval(1000)
            begun.release()
            {conversion}
            opener.join()
    """
    done = fresh.run_python(code, timeout=120, CUDA_VISIBLE_DEVICES="0", PYTHONPATH=path)
    assert done.code == 0, done.err


@contextmanager
def releases_of_the_gil() -> Iterator[list[None]]:
    """An entry for each time that the library would release the GIL, which it keeps meanwhile."""
    library = ctypes.PyDLL(str(config.library_dir() / "libtensor_bridge.so"))
    counted: list[None] = []

    def save() -> int:
        counted.append(None)
        return 1

    functions = (
        ctypes.CFUNCTYPE(ctypes.c_void_p)(save),
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None),
    )
    library.tb_py_set_gil_functions(*functions)
    try:
        yield counted
    finally:
        python = ctypes.pythonapi
        library.tb_py_set_gil_functions(python.PyEval_SaveThread, python.PyEval_RestoreThread)


def test_no_conversion_waits_for_tensorflow_under_the_gil(interface: Any) -> None:
    t = on_device(1.0)
    with tf.device("CPU:0"):
        host = tf.constant([1.0])
    for x in (t, host):
        interface.to_torch(x)  # the first conversion imports modules
    for convert in (interface.to_torch, interface.explain, tf_data_address):
        with releases_of_the_gil() as releases:
            convert(host)
            assert not releases
            convert(t)
            assert releases


# ---- Moves ---------------------------------------------------------------------------------------


def read_address(x: torch.Tensor) -> None:
    x.data_ptr()


def write_elsewhere(x: torch.Tensor) -> None:
    x[: COUNT // 2].zero_()


@moves
@pytest.mark.parametrize("move", [read_address, write_elsewhere])
@pytest.mark.parametrize("mover", ["default", "side"])
@pytest.mark.parametrize("late", [False, True])
def test_a_move_is_ordered_for_other_streams(
    move: Callable[[torch.Tensor], None], mover: str, late: bool, interface: Any
) -> None:
    """The user need not order them: the reader does not write, and the mover writes elsewhere."""
    reader = None if late else torch.cuda.Stream()
    stream = torch.cuda.Stream() if mover == "side" else torch.cuda.default_stream()
    t = on_device(3.0)
    x = interface.to_torch(t)
    half = x[COUNT // 2 :]
    with torch.cuda.stream(stream), gated(stream) as gate:
        move(x)
        assert not shares_memory(t, x)
        reader = reader or torch.cuda.Stream(priority=-1)
        with torch.cuda.stream(reader):
            y = half + 1
        gate.open()
    reader.synchronize()
    assert y.unique().tolist() == [4.0]


@pytest.mark.parametrize("late", [False, True])
def test_a_copy_is_ordered_for_other_streams(late: bool, interface: Any) -> None:
    reader = None if late else torch.cuda.Stream()
    stream = torch.cuda.Stream()
    t = on_device(3.0)
    with torch.cuda.stream(stream), gated(stream) as gate:
        x = interface.to_torch(t, copy=True)
        reader = reader or torch.cuda.Stream(priority=-1)
        with torch.cuda.stream(reader):
            y = x + 1
        gate.open()
    reader.synchronize()
    assert y.unique().tolist() == [4.0]


@moves
def test_a_move_is_ordered_for_a_stream_that_was_captured_meanwhile(interface: Any) -> None:
    captured, mover = torch.cuda.Stream(), torch.cuda.Stream()
    x = interface.to_torch(on_device(3.0))
    out = torch.zeros(4, device="cuda")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=captured, capture_error_mode="thread_local"):
        out.add_(1)
        with torch.cuda.stream(mover):
            torch.cuda._sleep(100_000_000)
            x.data_ptr()
    with torch.cuda.stream(captured):
        y = x + 1
        graph.replay()
    captured.synchronize()
    assert y.unique().tolist() == [4.0]
    assert out.tolist() == [1.0] * 4


# ---- Back to TensorFlow --------------------------------------------------------------------------


def test_torch_may_drop_what_it_took_by_dlpack(interface: Any) -> None:
    side = torch.cuda.Stream()
    for stream in (torch.cuda.default_stream(), side):
        for i in range(3):
            t = on_device(float(i))
            address = tf_data_address(t)
            with torch.cuda.stream(stream), gated(stream):
                x = torch.from_dlpack(exporter(t))
                assert x.data_ptr() == address
                y = x * 1
                del x, t
                overwrite(address, COUNT)
            assert y.unique().tolist() == [float(i)]


@pytest.mark.parametrize("priority", [0, -1])
def test_a_buffer_stays_until_every_stream_has_read_it(priority: int, interface: Any) -> None:
    """torch's record_stream() does nothing for memory that torch does not own."""
    before = live_owners()
    sides = [torch.cuda.Stream(priority=priority) for _ in range(3)]
    t = on_device(5.0)
    address = tf_data_address(t)
    x = interface.to_torch(t)
    with gated(sides[0]):
        results = []
        for side in sides:
            with torch.cuda.stream(side):
                results.append(x * 2)
        del x, t
        overwrite(address, COUNT)
        assert live_owners() == before + 1
    torch.cuda.synchronize()
    assert [y.unique().tolist() for y in results] == [[10.0]] * 3
    assert wait_until(lambda: live_owners() == before)


def test_a_stream_that_torch_did_not_make(interface: Any) -> None:
    """Such a stream is waited for if it is current when the tensor is dropped."""
    before = live_owners()
    handle = torch.cuda.Stream().cuda_stream
    foreign = torch.cuda.ExternalStream(handle)
    t = on_device(5.0)
    address = tf_data_address(t)
    with torch.cuda.stream(foreign), gated(foreign):
        x = interface.to_torch(t)
        y = x * 2
        del x, t
        overwrite(address, COUNT)
        assert live_owners() == before + 1
    assert y.unique().tolist() == [10.0]
    assert wait_until(lambda: live_owners() == before)


LARGE = 1 << 26
"""Number of bytes. 16 times as many are the limit."""


def test_what_is_held_back_is_bounded(interface: Any) -> None:
    def drop() -> Iterator[None]:
        with tf.device("GPU:0"):
            for _ in range(24):
                interface.to_torch(on_device(1.0, LARGE // 4))
                yield

    assert_bounded(drop, LARGE)


# ---- Graphs --------------------------------------------------------------------------------------


def test_a_tensor_that_is_dropped_while_a_graph_is_captured(interface: Any) -> None:
    gc.collect()
    before = live_owners()
    t = on_device(2.0)
    x = interface.to_torch(t)
    out = torch.zeros(16, device="cuda")
    source = torch.ones(16, device="cuda")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out.copy_(source)
        out.add_(1)
        del x, t
        # Nothing checks whether the memory can be released, because that would end the capture.
        assert not wait_until(lambda: live_owners() == before, seconds=0.2)
        out.add_(1)
    graph.replay()
    torch.cuda.synchronize()
    assert out.tolist() == [3.0] * 16
    assert wait_until(lambda: live_owners() == before)


COPIES: dict[str, Callable[[Any, tf.Tensor, torch.Tensor], object]] = {
    "write": lambda _, t, x: x.add_(1),
    "move": lambda _, t, x: x.data_ptr(),
    "copy": lambda interface, t, x: interface.to_torch(t, copy=True),
}


@moves
@pytest.mark.parametrize("copy", COPIES)
def test_no_copy_becomes_part_of_a_graph(copy: str, interface: Any) -> None:
    t = on_device(2.0)
    x = interface.to_torch(t)
    out = torch.zeros(16, device="cuda")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    # TensorFlow waits for its stream.
    with torch.cuda.graph(graph, capture_error_mode="relaxed"):
        out.add_(1)
        with pytest.raises(RuntimeError, match="before the capture begins"):
            COPIES[copy](interface, t, x)
        out.add_(1)
    graph.replay()
    assert out.tolist() == [2.0] * 16
    x.add_(1)
    assert x.unique().tolist() == [3.0]
    assert t.numpy()[0] == 2.0
