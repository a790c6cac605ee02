"""GPU memory through DLPack: TensorFlow's to other consumers, other producers' to torch."""

from __future__ import annotations

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


def test_to_tensorflow() -> None:
    own = torch.arange(10.0, device="cuda")
    t = from_dlpack(own, framework="tensorflow")
    own.zero_()
    assert t.numpy().tolist() == list(range(10))
