"""GPU memory through DLPack: TensorFlow's to other consumers, other producers' to torch."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import tensorflow as tf
import torch

from tensor_bridge.dlpack import exporter, from_dlpack
from tensor_bridge.testing import tf_data_address, torch_data_address

KDL_CUDA = 2


def test_tensorflow_s_memory_for_another_library() -> None:
    cupy = pytest.importorskip("cupy")
    t = tf.fill([1000], 3.0)
    out = exporter(t)
    assert out.__dlpack_device__() == (KDL_CUDA, 0)
    array = cupy.from_dlpack(out)
    assert array.data.ptr == tf_data_address(t)
    assert float(array.sum()) == 3000.0
    del t
    assert float(array.sum()) == 3000.0


def test_torch_consumes_what_tensorflow_has() -> None:
    t = tf.fill([64], 2.0)
    x = torch.from_dlpack(exporter(t))
    assert x.device.type == "cuda"
    assert torch_data_address(x) == tf_data_address(t)
    del t
    assert x.tolist() == [2.0] * 64


def test_from_another_producer() -> None:
    cupy = pytest.importorskip("cupy")
    array = cupy.arange(1000, dtype=cupy.float32)
    x = from_dlpack(array)
    assert x.device.type == "cuda"
    assert torch_data_address(x) == array.data.ptr
    del array
    assert x.sum().item() == 499500.0


def test_from_torch_itself() -> None:
    own = torch.arange(10.0, device="cuda")
    x = from_dlpack(own)
    assert torch_data_address(x) == torch_data_address(own)
    assert x.tolist() == list(range(10))


class Producer:
    """Another library's array, computed on its own stream, which the protocol orders."""

    def __init__(self, value: float) -> None:
        self.stream = torch.cuda.Stream()
        self.asked: list[Any] = []
        with torch.cuda.stream(self.stream):
            self.x = torch.zeros(1 << 16, device="cuda")
            torch.cuda._sleep(100_000_000)
            self.x += value
            self.done = self.stream.record_event()

    def __dlpack_device__(self) -> tuple[int, int]:
        return KDL_CUDA, 0

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None) -> Any:
        self.asked.append(stream)
        if stream is None or stream == 1:
            torch.cuda.default_stream().wait_event(self.done)
        elif stream != -1:
            torch.cuda.ExternalStream(stream).wait_event(self.done)
        return self.x.__dlpack__(stream=-1, max_version=max_version)


class OldProducer(Producer):
    """A producer of the protocol before version 1.0."""

    def __dlpack__(self, *, stream: Any = None) -> Any:  # type: ignore[override]
        return super().__dlpack__(stream=stream)


@pytest.mark.parametrize("kind", [Producer, OldProducer])
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_the_stream_that_reads_waits_for_the_producer(
    kind: type[Producer], framework: Literal["torch", "tensorflow"]
) -> None:
    for stream in (torch.cuda.Stream(), torch.cuda.default_stream()):
        producer = kind(3.0)
        with torch.cuda.stream(stream):
            taken = from_dlpack(producer, framework=framework)
            read = taken + 0 if framework == "torch" else taken
        # torch's default stream is 0 in torch, and 1 in the protocol.
        assert producer.asked == [stream.cuda_stream or 1]
        if framework == "torch":
            stream.synchronize()
            assert read.unique().tolist() == [3.0]
        else:
            with tf.device("CPU:0"):
                assert set(tf.identity(read).numpy().tolist()) == {3.0}


def test_to_tensorflow() -> None:
    own = torch.arange(10.0, device="cuda")
    t = from_dlpack(own, framework="tensorflow")
    own.zero_()
    assert t.numpy().tolist() == list(range(10))
