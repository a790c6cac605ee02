"""The GPU of a tensor: every interface gives torch's number, whatever TensorFlow's number is."""

from __future__ import annotations

import os
from typing import Any

import pytest
import tensorflow as tf
import torch
from fresh import run_python

import tensor_bridge
from tensor_bridge.dlpack import exporter, from_dlpack

VISIBLE = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0,1")}
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")

# Every interface that gives the device of a tensor on a logical device.
EVERY_WAY = """
import torch
import tensor_bridge
from tensor_bridge.dlpack import exporter, from_dlpack
from tensor_bridge.capi import TensorBridge
interface = TensorBridge()

def ways(logical):
    with tf.device("CPU:0"):
        host = tf.constant([1.0, 2.0])
        empty = tf.zeros([0, 2])
    with tf.device(f"GPU:{logical}"):
        t, variable, none = tf.identity(host), tf.Variable(host), tf.identity(empty)
    assert all(f"GPU:{logical}" in x.device for x in (t, variable, none))
    ours = exporter(t)
    for x in (t, none):
        yield from (tensor_bridge.to_torch(x).device, interface.convert_tf_to_pytorch(x).device)
        yield tensor_bridge.to_torch(x, copy=True).device
        yield from (tensor_bridge.explain(x).device, interface.explain(x).device)
        yield from_dlpack(x).device
        yield torch.device("cuda", exporter(x).__dlpack_device__()[1])
        yield torch.from_dlpack(exporter(x)).device
    yield tensor_bridge.to_torch(variable).device
    yield tensor_bridge.explain(variable).device
    assert torch.from_dlpack(ours).tolist() == [1.0, 2.0]
    assert tensor_bridge.to_torch([t, none])[1].shape == (0, 2)

def back(gpu):
    # In torch's words cuda:<gpu> is that GPU, under whatever name TensorFlow has it.
    there = tensor_bridge.to_tf(torch.ones(3), device=f"cuda:{gpu}")
    yield tensor_bridge.to_torch(there).device
"""


def test_virtual_devices_are_on_one_gpu() -> None:
    done = run_python(
        """
import tensor_bridge
import tensorflow as tf
gpu = tf.config.list_physical_devices("GPU")[0]
tf.config.set_logical_device_configuration(
    gpu, [tf.config.LogicalDeviceConfiguration(memory_limit=256)] * 2
)
tf.config.set_visible_devices(gpu, "GPU")
"""
        + EVERY_WAY
        + """
for logical in range(2):
    assert {str(device) for device in ways(logical)} == {"cuda:0"}, list(ways(logical))
assert {str(device) for device in back(0)} == {"cuda:0"}
""",
        **VISIBLE,
    )
    assert done.code == 0, done.err


@two_gpus
@pytest.mark.parametrize("visible", [[1], [0, 1]])
def test_gpus_of_which_tensorflow_sees_some(visible: list[int]) -> None:
    done = run_python(
        f"""
import tensor_bridge
import tensorflow as tf
gpus = tf.config.list_physical_devices("GPU")
for gpu in gpus:
    tf.config.experimental.set_memory_growth(gpu, True)
tf.config.set_visible_devices([gpus[i] for i in {visible}], "GPU")
"""
        + EVERY_WAY
        + f"""
for logical, gpu in enumerate({visible}):
    found = [str(device) for device in ways(logical)]
    assert set(found) == {{f"cuda:{{gpu}}"}}, found
    assert {{str(device) for device in back(gpu)}} == {{f"cuda:{{gpu}}"}}
try:
    print(list(back(2)))
except tensor_bridge.UnsupportedDeviceError as e:
    assert "is not a device of TensorFlow's here" in str(e)
""",
        **VISIBLE,
    )
    assert done.code == 0, done.err


# ---- The current device --------------------------------------------------------------------------


@two_gpus
def test_cuda_without_a_number_is_the_current_device(interface: Any) -> None:
    with tf.device("CPU:0"):
        host = tf.constant([1.0, 2.0])
    places = [host]
    for i in range(2):
        with tf.device(f"GPU:{i}"):
            places.append(tf.identity(host))
    for current in range(2):
        with torch.cuda.device(current):
            for t in places:
                expected = interface.to_torch(t).to("cuda").device
                assert expected.index == current
                for device in ("cuda", torch.device("cuda")):
                    assert interface.to_torch(t, device=device).device == expected
                    assert interface.to_torch(t, device=device).tolist() == [1.0, 2.0]
                    assert interface.explain(t, device=device).device == str(expected)
                    moved = interface.explain(t, device=device).action == "copied"
                    assert moved == (interface.to_torch(t).device != expected)
            assert from_dlpack(exporter(places[1]), device="cuda").device.index == current
            again = tensor_bridge.to_tf(torch.ones(2), device="cuda")
            assert f"GPU:{current}" in again.device


@two_gpus
def test_a_conversion_leaves_the_current_device_as_it_was(interface: Any) -> None:
    """TensorFlow makes the device current that it uses, also while a conversion waits for it."""
    for i in range(2):
        with tf.device(f"GPU:{i}"):
            t, v = tf.identity(tf.constant([1.0, 2.0])), tf.Variable([1.0, 2.0])
        x = interface.to_torch(t)
        uses = (
            lambda t=t: interface.to_torch(t),
            lambda t=t: interface.to_torch(t, copy=True),
            lambda t=t: interface.explain(t),
            lambda v=v: interface.to_torch(v),
            lambda t=t: from_dlpack(t),
            lambda t=t: torch.from_dlpack(exporter(t)),
            lambda x=x, i=i: interface.to_tf(x + 0, device=f"GPU:{i}"),
            lambda i=i: interface.to_tf(torch.ones(2), device=f"cuda:{i}"),
        )
        for use in uses:
            with torch.cuda.device(1 - i):
                use()
                assert torch.cuda.current_device() == 1 - i


@two_gpus
def test_a_pass_of_a_loader_stays_on_the_device_that_it_began_with() -> None:
    with tf.device("CPU:0"), torch.cuda.device(0):
        elements = iter(tensor_bridge.data.loader(tf.data.Dataset.range(4).batch(1), device="cuda"))
        seen = [next(elements)]
        with torch.cuda.device(1):
            seen += [next(elements), next(elements)]
        seen += elements
    assert [str(x.device) for x in seen] == ["cuda:0"] * 4
    assert [x.tolist() for x in seen] == [[0], [1], [2], [3]]


@two_gpus
def test_empty_tensors_are_where_tensorflow_has_them(interface: Any) -> None:
    for i in range(2):
        with tf.device(f"GPU:{i}"):
            t = tf.identity(tf.zeros([0, 3]))
        for copy in (None, True):
            x = interface.to_torch(t, copy=copy)
            assert x.device == torch.device("cuda", i)
            # torch.cat() requires one device.
            full = torch.ones(2, 3, device=f"cuda:{i}")
            assert torch.cat([x, full]).shape == (2, 3)
