"""device=, several logical CPU devices, and GPUs where there are some."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from claims import run_claims
from refusals import assert_refused
from tf_bytes import BY_DEFAULT, random_tensor, row_named, tf_memory, torch_values
from torch._subclasses.fake_tensor import FakeTensorMode

import tensor_bridge
from tensor_bridge import DtypeRow
from tensor_bridge.testing import live_owners, shares_memory

REQUIRED = os.environ.get("TENSOR_BRIDGE_REQUIRE_CUDA") == "1"
HAS_GPU = torch.cuda.is_available() and bool(tf.config.list_physical_devices("GPU"))

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
def test_cpu_is_where_the_tensor_already_is(device: Any, door: Any) -> None:
    t = tf.constant([1.0, 2.0]) * 1
    for copy in (None, False):
        x = door.to_torch(t, device=device, copy=copy)
        assert shares_memory(t, x)
        assert x.device == torch.device("cpu")
        assert x.tolist() == [1.0, 2.0]
    assert not shares_memory(t, door.to_torch(t, device=device, copy=True))
    assert door.explain(t, device=device).device == "cpu"
    v = tf.Variable([1.0])
    assert shares_memory(v, door.to_torch(v, device=device))


@without_gpu
@pytest.mark.parametrize(("device", "advice"), NOT_HERE, ids=str)
@pytest.mark.parametrize("copy", [None, True, False])
def test_a_gpu_that_is_not_there_is_refused(
    device: Any, advice: str, copy: bool | None, door: Any
) -> None:
    values = [tf.constant([1.0, 2.0]), tf.Variable([1.0])]
    values += [random_tensor(row_named(name)) for name in ("int4",) if needs.has(name)]
    for value in values:
        assert_refused(
            door, value, tensor_bridge.UnsupportedDeviceError, advice, device=device, copy=copy
        )


@without_gpu
def test_fake_tensors_bring_no_gpu(door: Any) -> None:
    """torch sets a guard that counts one GPU when a CUDA build makes the first of them."""
    with FakeTensorMode():
        torch.ones(1)
    for value in (tf.constant([1.0]), tf.constant(["a"])):
        assert_refused(
            door, value, tensor_bridge.UnsupportedDeviceError, "cpu, or cuda", device="cuda"
        )


@pytest.mark.parametrize(("device", "advice"), NEVER, ids=str)
def test_devices_that_tensorflow_has_not_are_refused(device: Any, advice: str, door: Any) -> None:
    for value in (tf.constant([1.0, 2.0]), tf.Variable([1.0])):
        assert_refused(door, value, tensor_bridge.UnsupportedDeviceError, advice, device=device)


@pytest.mark.parametrize("device", NO_DEVICE, ids=repr)
def test_what_is_no_device_is_refused(device: Any, door: Any) -> None:
    for value in (tf.constant([1.0, 2.0]), tf.Variable([1.0])):
        assert_refused(
            door, value, tensor_bridge.InvalidOptionError, r"torch\.device\(\)", device=device
        )


# ---- several devices of TensorFlow's -------------------------------------------------------------

PRELUDE = """
import gc
from tensorflow.python.framework import ops
from tensor_bridge.testing import live_owners, shares_memory

DOORS = (tensor_bridge, tensor_bridge.TensorBridge())
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 3
)

def shared(value, expected):
    for door in DOORS:
        for options in ({}, {"copy": False, "device": "cpu"}):
            x = door.to_torch(value, **options)
            assert x.tolist() == expected
            assert str(x.device) == "cpu"
            assert shares_memory(value, x)
        explanation = door.explain(value)
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
        for door in DOORS:
            advice = "with tf.device('CPU:0'): t = tf.identity(t)"
            assert advice in door.explain(packed).reason
        with tf.device("CPU:0"):
            t = tf.identity(packed)
        shared(t, [1.0])
        """,
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    return run_claims(PRELUDE, CLAIMS)


@pytest.mark.parametrize("claim", CLAIMS)
def test_logical_devices(claim: str, outcomes: dict[str, str]) -> None:
    assert not outcomes[claim], outcomes[claim]


# ---- GPUs ----------------------------------------------------------------------------------------


@pytest.mark.skipif(not REQUIRED, reason="no GPU was promised")
def test_the_promised_gpu_is_there() -> None:
    assert torch.cuda.is_available(), "TENSOR_BRIDGE_REQUIRE_CUDA=1, and torch sees no GPU"
    assert tf.config.list_physical_devices("GPU"), "... and TensorFlow sees no GPU"


def needs_gpu(test: Callable[..., None]) -> Callable[..., None]:
    skip = pytest.mark.skipif(not HAS_GPU and not REQUIRED, reason="no GPU for both frameworks")
    return pytest.mark.gpu(skip(test))


@pytest.fixture
def on_gpu() -> Iterator[None]:
    # TensorFlow would place everything on the CPU without a word.
    assert torch.cuda.is_available()
    assert tf.config.list_physical_devices("GPU")
    with tf.device("GPU:0"):
        yield


@needs_gpu
@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("row", BY_DEFAULT, ids=lambda row: row.name)
def test_a_gpu_tensor_of_every_dtype_converts(row: DtypeRow, door: Any) -> None:
    host = random_tensor(row, (4, 5))
    try:
        t = tf.identity(host)
    except tf.errors.OpError:
        pytest.skip(f"TensorFlow keeps no {row.name} on a GPU")
    x = door.to_torch(t)
    expected = torch_values(door.to_torch(host))
    on_host = "CPU" in t.backing_device
    assert x.device.type == ("cpu" if on_host else "cuda")
    assert torch_values(x.cpu()) == expected
    if row.kind != "converted":
        assert shares_memory(t, x)
    x.zero_()
    torch.cuda.synchronize()
    with tf.device("CPU:0"):
        assert tf_memory(tf.identity(t)) == tf_memory(host)


@needs_gpu
@pytest.mark.usefixtures("on_gpu")
def test_int32_stays_on_the_host_where_tensorflow_keeps_it(door: Any) -> None:
    t = tf.constant([1, 2, 3]) + 1
    assert "CPU" in t.backing_device
    x = door.to_torch(t)
    assert x.device.type == "cpu"
    assert x.tolist() == [2, 3, 4]
    moved = door.to_torch(t, device="cuda")
    assert moved.device.type == "cuda"
    assert moved.tolist() == [2, 3, 4]
    assert_refused(
        door, t, tensor_bridge.CopyRequiredError, "Leave device= out", device="cuda", copy=False
    )


@needs_gpu
@pytest.mark.usefixtures("on_gpu")
def test_device_moves_in_both_directions(door: Any) -> None:
    with tf.device("CPU:0"):
        host = tf.random.stateless_uniform([1 << 20], [1, 2])
    t = tf.identity(host)
    there = door.to_torch(host, device="cuda")
    back = door.to_torch(t, device="cpu")
    assert there.device == torch.device("cuda", torch.cuda.current_device())
    assert back.device.type == "cpu"
    assert torch.equal(there.cpu(), back)
    assert door.explain(host, device="cuda").action == "copied"
    assert_refused(
        door, t, tensor_bridge.CopyRequiredError, "Leave device= out", device="cpu", copy=False
    )
    for device in ("cuda", "cuda:0", 0, torch.device("cuda")):
        assert shares_memory(t, door.to_torch(t, device=device))


@needs_gpu
@pytest.mark.usefixtures("on_gpu")
def test_gpu_writes_are_protected(door: Any) -> None:
    t = tf.random.stateless_uniform([1 << 16], [1, 2])
    before = t.numpy()
    x = door.to_torch(t)
    x.mul_(2).add_(1)
    torch.cuda.synchronize()
    assert (t.numpy() == before).all()
    x = door.to_torch(t, on_write="raise")
    with needs.forbidden_write(r"clone\(\)"):
        x.zero_()
    assert (t.numpy() == before).all()


@needs_gpu
@pytest.mark.usefixtures("on_gpu")
def test_a_gpu_tensor_is_complete_when_torch_reads_it(door: Any) -> None:
    for size in (64, 512, 2048):
        a = tf.random.stateless_uniform([size, size], [1, 2])
        for _ in range(4):
            a = tf.linalg.matmul(a, a)
            a /= tf.reduce_max(a)
        x = door.to_torch(a)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            y = door.to_torch(a).clone()
        side.synchronize()
        assert torch.equal(x, y)
        assert torch.equal(x.cpu(), torch.from_numpy(a.numpy()))


@needs_gpu
@pytest.mark.usefixtures("on_gpu")
def test_gpu_memory_is_not_reused_while_torch_still_reads_it(door: Any) -> None:
    before = live_owners()
    for i in range(50):
        t = tf.fill([1 << 20], float(i))
        x = door.to_torch(t)
        for _ in range(20):
            y = x * 1.0  # queued, not finished, when x goes
        del x, t
        scratch = [tf.fill([1 << 20], -1.0) for _ in range(2)]
        assert y.unique().tolist() == [float(i)]
        del scratch, y
    torch.cuda.synchronize()
    assert live_owners() <= before + 50


@needs_gpu
@pytest.mark.usefixtures("on_gpu")
def test_a_gpu_variable_is_a_snapshot(door: Any) -> None:
    v = tf.Variable([1.0, 2.0, 3.0])
    x = door.to_torch(v)
    v.assign_add([1.0, 1.0, 1.0])
    assert x.tolist() == [1.0, 2.0, 3.0]
    x.zero_()
    assert v.numpy().tolist() == [2.0, 3.0, 4.0]


@needs_gpu
@pytest.mark.usefixtures("on_gpu")
def test_an_empty_gpu_tensor_converts(door: Any) -> None:
    x = door.to_torch(tf.zeros([0, 3]) + 0)
    assert x.shape == (0, 3)


@needs_gpu
def test_a_gpu_that_does_not_exist_is_refused(door: Any) -> None:
    index = torch.cuda.device_count()
    with pytest.raises((tensor_bridge.UnsupportedDeviceError, tensor_bridge.TorchError)):
        door.to_torch(tf.constant([1.0]), device=f"cuda:{index}")
