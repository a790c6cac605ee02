"""The emulated device behaves as its README says: it finds errors, and only errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import emulator
import fresh
import pytest
import tensorflow as tf
import torch

SIZE = 1 << 10


def two_streams() -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    return torch.cuda.Stream(), torch.cuda.Stream()


def write_and_read(*, ordered: bool) -> torch.Tensor:
    """Writes a tensor on one stream and reads it on another."""
    writer, reader = two_streams()
    x = torch.zeros(SIZE, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(writer):
        torch.cuda._sleep(10_000_000)
        x.fill_(3.0)
    if ordered:
        reader.wait_stream(writer)
    with torch.cuda.stream(reader):
        y = x + 1
    reader.synchronize()
    return y


def test_a_race_is_found_in_every_mode() -> None:
    write_and_read(ordered=False)
    found = emulator.take_violations()
    assert any("race: read by aten::add" in text for text in found)


def test_an_event_orders_streams() -> None:
    assert write_and_read(ordered=True).unique().tolist() == [4.0]
    assert emulator.take_violations() == []


def test_a_write_after_an_unordered_read_is_a_race() -> None:
    reader, writer = two_streams()
    x = torch.ones(SIZE, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(reader):
        y = x + 1
    with torch.cuda.stream(writer):
        x.zero_()
    torch.cuda.synchronize()
    assert any("race: write" in text for text in emulator.take_violations())
    assert y.numel() == SIZE


def test_parts_of_a_tensor_do_not_race() -> None:
    one, other = two_streams()
    x = torch.zeros(SIZE, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(one):
        x[: SIZE // 2].fill_(1.0)
    with torch.cuda.stream(other):
        x[SIZE // 2 :].fill_(2.0)
    torch.cuda.synchronize()
    assert x.sum().item() == SIZE * 1.5
    assert emulator.take_violations() == []


def test_tensorflow_and_torch_race_too() -> None:
    t = tf.fill([SIZE], 1.0)
    x = torch.utils.dlpack.from_dlpack(tf.experimental.dlpack.to_dlpack(t))
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        x.zero_()
    y = t + 1.0
    torch.cuda.synchronize()
    assert any("race: read by tf::AddV2" in text for text in emulator.take_violations())
    del y


def test_memory_of_the_device_is_not_the_host_s() -> None:
    code = """
        import emulator, ctypes
        emulator.load()
        import torch
        x = torch.ones(4, device="cuda")
        torch.cuda.synchronize()
        ctypes.string_at(x.data_ptr(), 4)
    """
    done = fresh.run_python(code, CUDA_VISIBLE_DEVICES="0")
    assert done.code == -11, done.err


def test_calls_and_waits_are_logged() -> None:
    x = torch.ones(SIZE, device="cuda")
    with emulator.logged() as calls:
        x.add_(1)
    assert [call.text for call in calls if call.name == "operator"] == ["aten::add_.Tensor"]
    assert emulator.host_waits(calls) == []
    with emulator.logged() as calls:
        x.sum().item()
        torch.cuda.synchronize()
    assert [call.text for call in emulator.host_waits(calls)][-1] == "device"
    assert len(emulator.host_waits(calls)) >= 2


def test_a_copy_from_pageable_memory_has_the_values_of_the_call() -> None:
    host = torch.full((SIZE,), 5.0)
    torch.cuda._sleep(10_000_000)
    x = host.to("cuda", non_blocking=True)
    host.zero_()
    assert x.unique().tolist() == [5.0]


def test_a_copy_to_pageable_memory_waits() -> None:
    x = torch.zeros(SIZE, device="cuda")
    torch.cuda._sleep(10_000_000)
    x.fill_(2.0)
    host = torch.zeros(SIZE)
    assert host.copy_(x, non_blocking=True).unique().tolist() == [2.0]


def test_a_copy_to_pinned_memory_does_not_wait() -> None:
    x = torch.full((SIZE,), 2.0, device="cuda")
    host = torch.zeros(SIZE, pin_memory=True)
    with emulator.logged() as calls:
        host.copy_(x, non_blocking=True)
    assert emulator.host_waits(calls) == []
    torch.cuda.synchronize()
    assert host.unique().tolist() == [2.0]


@pytest.mark.parametrize("mode", ["global", "thread_local"])
def test_a_graph_is_captured_and_replayed(mode: str) -> None:
    out = torch.zeros(SIZE, device="cuda")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.Stream(), capture_error_mode=mode):
        out.add_(1)
    assert out.unique().tolist() == [0.0]
    graph.replay()
    graph.replay()
    assert out.unique().tolist() == [2.0]


FORBIDDEN = {
    "a wait for the device": lambda event: torch.cuda.synchronize(),
    "a query of an event": lambda event: event.query(),
    "a wait for an event": lambda event: event.synchronize(),
}


@pytest.mark.parametrize("call", FORBIDDEN)
def test_what_cuda_forbids_ends_a_capture(call: str) -> None:
    out = torch.zeros(SIZE, device="cuda")
    event = torch.cuda.Event()
    event.record()
    torch.cuda.synchronize()

    def capture() -> None:
        with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=torch.cuda.Stream()):
            out.add_(1)
            FORBIDDEN[call](event)

    with pytest.raises(RuntimeError, match="CUDA error"):
        capture()
    (violation,) = emulator.take_violations()
    assert call in violation


def test_sparse_operators_compute() -> None:
    dense = torch.tensor([[0.0, 2.0], [3.0, 0.0]], device="cuda")
    sparse = dense.to_sparse()
    assert sparse.to_dense().tolist() == dense.tolist()
    assert torch.sparse.mm(sparse, dense).tolist() == [[6.0, 0.0], [0.0, 6.0]]
    assert (sparse + sparse).coalesce().values().tolist() == [4.0, 6.0]
    dense.add_(sparse)
    assert dense.tolist() == [[0.0, 4.0], [6.0, 0.0]]
    assert emulator.take_missing_kernels() == []


def test_variables_are_assigned_in_place_or_on_a_copy() -> None:
    for dtype in (tf.float32, tf.float16, tf.int64):
        v = tf.Variable(tf.ones([4], dtype))
        before = v.value()
        v.assign_add(tf.ones([4], dtype))
        v.assign_sub(tf.fill([4], tf.cast(3, dtype)))
        assert before.numpy().tolist() == [1] * 4
        assert v.numpy().tolist() == [-1] * 4


two_devices = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one device")


@two_devices
def test_devices_have_their_own_memory_and_streams() -> None:
    x = torch.ones(SIZE, device="cuda:0")
    y = x.to("cuda:1") + 1
    assert y.device == torch.device("cuda", 1)
    assert y.sum().item() == 2 * SIZE
    with tf.device("GPU:1"):
        t = tf.fill([SIZE], 3.0)
    assert "GPU:1" in t.device
    with torch.cuda.device(1), emulator.logged() as calls:
        torch.ones(1, device="cuda:1").add_(1)
    streams = {call.stream for call in calls if call.name == "operator"}
    with emulator.logged() as calls:
        x.add_(1)
    assert streams.isdisjoint({call.stream for call in calls if call.name == "operator"})


def test_a_kernel_without_a_stand_in_is_reported() -> None:
    v = tf.Variable(tf.ones([4]))
    tf.raw_ops.ResourceApplyGradientDescent(var=v.handle, alpha=1.0, delta=tf.ones([4]))
    tf.test.experimental.sync_devices()
    assert emulator.take_missing_kernels()


def test_lazy_work_waits_until_somebody_asks() -> None:
    code = """
        import emulator
        emulator.load()
        import torch
        x = torch.ones(4, device="cuda")
        event = torch.cuda.Event()
        event.record()
        before = emulator.pending()
        asked = event.query()
        event.synchronize()
        print(before > 0, asked, event.query())
    """
    lazy = {"CUDA_EMU_MODE": "lazy", "CUDA_EMU_LAZY_MS": "100000000"}
    done = fresh.run_python(code, CUDA_VISIBLE_DEVICES="0", **lazy)
    assert done.out.split() == ["True", "False", "True"], done.err


def test_the_plugin_fails_a_test_for_a_violation(tmp_path: Path) -> None:
    path = tmp_path / "test_races.py"
    path.write_text(RACES, "utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "emulator_plugin", "-q", str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 failed, 1 passed" in done.stdout
    assert "FAILED test_races.py::test_race" in done.stdout


RACES = """
import torch

def write(stream, x):
    with torch.cuda.stream(stream):
        x.zero_()

def test_race():
    x = torch.ones(8, device="cuda")
    torch.cuda.synchronize()
    write(torch.cuda.Stream(), x)
    write(torch.cuda.Stream(), x)
    torch.cuda.synchronize()

def test_none():
    x = torch.ones(8, device="cuda")
    torch.cuda.synchronize()
    write(torch.cuda.Stream(), x)
    torch.cuda.synchronize()
"""
