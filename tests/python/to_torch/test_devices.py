"""device=, and several logical CPU devices. The tests of GPUs are in gpu/."""

from __future__ import annotations

from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from claims import claims_test
from refusals import assert_refused
from tf_bytes import random_tensor, row_named
from torch._subclasses.fake_tensor import FakeTensorMode

from tensor_bridge import InvalidOptionError, UnsupportedDeviceError
from tensor_bridge.testing import shares_memory

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="torch has a GPU here")


# ---- device= without a GPU -----------------------------------------------------------------------

CPU = ["cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0), None]
NOT_HERE: list[tuple[Any, str]] = [
    ("cuda", "cpu, or cuda with a CUDA build"),
    ("cuda:0", "cpu, or cuda with a CUDA build"),
    ("cuda:7", "cpu, or cuda with a CUDA build"),
    (torch.device("cuda"), "cpu, or cuda with a CUDA build"),
    (torch.device("cuda", 1), "cpu, or cuda with a CUDA build"),
    (0, "expected cpu, or (an index|cuda) with a CUDA build"),
    (3, "expected cpu, or (an index|cuda) with a CUDA build"),
]
NEVER: list[tuple[Any, str]] = [
    ("meta", r"Tensor\.to\(\)"),
    (torch.device("meta"), r"Tensor\.to\(\)"),
    ("mps", r"Tensor\.to\(\)"),
    ("xpu:0", r"Tensor\.to\(\)"),
]
NO_DEVICE = ["nonsense", "", "cpu:", "cuda:x", "CPU:0:0", -1, True, 1.5, [], {}, object]


@pytest.mark.parametrize("device", CPU, ids=str)
def test_cpu_is_where_the_tensor_already_is(device: Any, interface: Any) -> None:
    t = tf.constant([1.0, 2.0]) * 1
    for copy in (None, False):
        x = interface.to_torch(t, device=device, copy=copy)
        assert shares_memory(t, x)
        assert x.device == torch.device("cpu")
        assert x.tolist() == [1.0, 2.0]
    assert not shares_memory(t, interface.to_torch(t, device=device, copy=True))
    assert interface.explain(t, device=device).device == "cpu"
    v = tf.Variable([1.0])
    assert shares_memory(v, interface.to_torch(v, device=device))


@without_gpu
@pytest.mark.parametrize(("device", "advice"), NOT_HERE, ids=str)
@pytest.mark.parametrize("copy", [None, True, False])
def test_a_gpu_that_is_not_there_is_refused(
    device: Any, advice: str, copy: bool | None, interface: Any
) -> None:
    values = [tf.constant([1.0, 2.0]), tf.Variable([1.0])]
    values += [random_tensor(row_named(name)) for name in ("int4",) if needs.has(name)]
    for value in values:
        assert_refused(interface, value, UnsupportedDeviceError, advice, device=device, copy=copy)


@without_gpu
def test_fake_tensors_bring_no_gpu(interface: Any) -> None:
    """When a CUDA build makes its first fake tensor, torch sets a guard that counts one GPU."""
    with FakeTensorMode():
        torch.ones(1)
    for value in (tf.constant([1.0]), tf.constant(["a"])):
        assert_refused(interface, value, UnsupportedDeviceError, "cpu, or cuda", device="cuda")


@pytest.mark.parametrize(("device", "advice"), NEVER, ids=str)
def test_devices_that_tensorflow_has_not_are_refused(
    device: Any, advice: str, interface: Any
) -> None:
    for value in (tf.constant([1.0, 2.0]), tf.Variable([1.0])):
        assert_refused(interface, value, UnsupportedDeviceError, advice, device=device)


@pytest.mark.parametrize("device", NO_DEVICE, ids=repr)
def test_what_is_no_device_is_refused(device: Any, interface: Any) -> None:
    for value in (tf.constant([1.0, 2.0]), tf.Variable([1.0])):
        assert_refused(interface, value, InvalidOptionError, r"torch\.device\(\)", device=device)


# ---- several TensorFlow devices ------------------------------------------------------------------

PRELUDE = """
import gc
from tensorflow.python.framework import ops
from tensor_bridge.testing import live_owners, shares_memory

INTERFACES = (tensor_bridge, tensor_bridge.TensorBridge())
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 3
)

def shared(value, expected):
    for interface in INTERFACES:
        for options in ({}, {"copy": False, "device": "cpu"}):
            x = interface.to_torch(value, **options)
            assert x.tolist() == expected
            assert str(x.device) == "cpu"
            assert shares_memory(value, x)
        explanation = interface.explain(value)
        assert (explanation.action, explanation.device) == ("shared", "cpu")
        x.zero_()
        assert not shares_memory(value, x)
        assert value.numpy().tolist() == expected
        del x
    gc.collect()
    assert live_owners() == 0
"""

CLAIMS = {
    "every logical CPU device is torch's cpu": """
        for i in range(3):
            with tf.device(f"CPU:{i}"):
                t = tf.constant([1.0, 2.0]) + i
                v = tf.Variable([3.0, 4.0])
            assert t.device.endswith(f"CPU:{i}"), t.device
            assert v.device.endswith(f"CPU:{i}"), v.device
            shared(t, [1.0 + i, 2.0 + i])
            shared(v, [3.0, 4.0])
            v.assign_add([1.0, 1.0])
            shared(v, [4.0, 5.0])
        """,
    "replicas of a mirrored variable convert": """
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            mirrored = tf.Variable([5.0])
        for replica in mirrored.values:
            shared(replica, [5.0])
        """,
    "identity unpacks a packed tensor, as its refusal says": """
        with tf.device("CPU:1"):
            second = tf.constant([2.0]) * 1
        packed = ops.pack_eager_tensors([tf.constant([1.0]) * 1, second])
        for interface in INTERFACES:
            advice = "with tf.device('CPU:0'): t = tf.identity(t)"
            assert advice in interface.explain(packed).reason
        with tf.device("CPU:0"):
            t = tf.identity(packed)
        shared(t, [1.0])
        """,
}


test_logical_devices = claims_test(PRELUDE, CLAIMS)
