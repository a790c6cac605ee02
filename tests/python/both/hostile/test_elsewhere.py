"""Tensors whose elements are in another process or in several places: typed errors, no abort."""

from __future__ import annotations

import needs
import pytest
from fresh import run_forked

PRELUDE = """
def refused(value, error, *words, **options):
    for interface in (tensor_bridge, TensorBridge()):
        try:
            interface.to_torch(value, **options)
        except error as e:
            assert isinstance(e, tensor_bridge.TensorBridgeError)
            assert all(word in str(e) for word in words), e
            explanation = interface.explain(value, **options)
            assert explanation.action == "refused" and explanation.error is type(e), explanation
            assert explanation.reason == str(e)
        else:
            raise SystemExit("no error")
    assert testing.live_owners() == 0

def elsewhere(value, *words):
    for options in ({}, {"copy": True}, {"copy": False}, {"on_write": "raise"}):
        refused(value, tensor_bridge.UnsupportedDeviceError, *words, **options)
"""

ADVICE = "with tf.device('CPU:0'): t = tf.identity(t)"


def run(code: str) -> None:
    done = run_forked(PRELUDE + code)
    if needs.ALL_IS_THERE:
        done.check()
    # Older releases of TensorFlow log the work of servers and of DTensor.
    assert done.code == 0, done.err


def test_remote_tensors_of_a_real_server() -> None:
    run(f"""
import ctypes, os, signal, socket, time
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    host = "127.0.0.1:%d" % probe.getsockname()[1]
worker = os.fork()
if worker == 0:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # ends with its parent
    server = tf.distribute.Server({{"worker": [host]}}, job_name="worker", task_index=0)
    time.sleep(600)
    os._exit(0)
try:
    tf.config.experimental_connect_to_host(host, job_name="worker")
    device = "/job:worker/replica:0/task:0/device:CPU:0"
    with tf.device(device):
        there = tf.constant([1.0, 2.0]) + 1
        integers = tf.constant([1, 2]) * 2
        variable = tf.Variable([3.0])
        # No kernel has run yet when this is converted.
        product = tf.linalg.matmul(tf.ones((300, 300)), tf.ones((300, 300)))
    assert there.device == device
    for value in (there, integers, variable, product):
        elsewhere(value, device, {ADVICE!r})
    for look in (testing.tf_data_address, lambda t: testing.shares_memory(t, torch.zeros(2))):
        try:
            look(there)
            raise SystemExit("no error")
        except tensor_bridge.UnsupportedDeviceError:
            pass
    with tf.device("CPU:0"):
        here = tf.identity(there)
    x = tensor_bridge.to_torch(here)
    assert x.tolist() == [2, 3] and testing.shares_memory(here, x)
    del x
finally:
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
elsewhere(there, device)
""")


def test_packed_tensors() -> None:
    run("""
from tensorflow.python.framework import ops
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
parts = []
for i in range(2):
    with tf.device(f"CPU:{i}"):
        parts.append(tf.constant([1.0, 2.0]) + i)
elsewhere(ops.pack_eager_tensors(parts), "COMPOSITE")
for i, part in enumerate(parts):
    x = tensor_bridge.to_torch(part)
    assert x.tolist() == [1 + i, 2 + i] and testing.shares_memory(part, x)
""")


def test_tensors_and_variables_of_a_parallel_device() -> None:
    run("""
from tensorflow.python.distribute.parallel_device import parallel_device
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
device = parallel_device.ParallelDevice(components=["CPU:0", "CPU:1"])
parts = [tf.constant([1.0]), tf.constant([2.0])]
with device:
    packed = device.pack(parts)
    doubled = packed + packed
    variable = tf.Variable(packed)
elsewhere(packed, "CUSTOM")
elsewhere(doubled, "CUSTOM")
refused(variable, (tensor_bridge.UnsupportedDeviceError, tensor_bridge.TensorFlowError))
first, second = device.unpack(doubled)
assert tensor_bridge.to_torch(second).tolist() == [4]
""")


def test_dtensors() -> None:
    run("""
from tensorflow.experimental import dtensor
mesh = dtensor.create_mesh([("x", 1)], devices=["CPU:0"])
t = dtensor.copy_to_mesh(tf.constant([1.0, 2.0]), dtensor.Layout.replicated(mesh, rank=1))
elsewhere(t, "unpack")
elsewhere(dtensor.DVariable(t), "unpack")
(part,) = dtensor.unpack(t)
assert tensor_bridge.to_torch(part).tolist() == [1, 2]
""")


NO_NUMBERS = ['tf.constant(["a"])', "tf.Variable(1.0).handle"]


@needs.tensorflow_since(20, "it raises")
@pytest.mark.parametrize("make", NO_NUMBERS)
def test_to_dlpack_aborts(make: str) -> None:
    """Delete this test when TensorFlow no longer aborts."""
    aborted = run_forked(f"t = {make}\ntf.experimental.dlpack.to_dlpack(t)")
    assert aborted.code == -6


@pytest.mark.parametrize("make", NO_NUMBERS)
def test_what_to_dlpack_aborts_for_is_refused(make: str) -> None:
    run(f"""
t = {make}
try:
    testing.tf_data_address(t)
    raise SystemExit("no error")
except tensor_bridge.UnsupportedDtypeError as e:
    assert isinstance(e, TypeError)
try:
    tensor_bridge._C.tensor_to_torch(t)
    raise SystemExit("no error")
except tensor_bridge.UnsupportedDtypeError as e:
    assert isinstance(e, TypeError)
assert testing.live_owners() == 0
""")
