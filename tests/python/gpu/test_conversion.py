"""TensorFlow's GPU memory as torch tensors: shared, protected, ordered, released."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from cuda_gate import wait_until
from refusals import assert_refused
from sharing import in_threads
from tf_bytes import BY_DEFAULT, random_tensor, tf_memory

import tensor_bridge
from tensor_bridge import CopyRequiredError, DtypeRow, TorchError, UnsupportedDeviceError
from tensor_bridge.testing import live_owners, shares_memory, tf_data_address, torch_data_address


def assert_same(x: torch.Tensor, expected: torch.Tensor) -> None:
    """Asserts the same dtype and bits, on any devices."""
    assert x.dtype == expected.dtype
    assert torch.equal(x.cpu().view(torch.uint8), expected.cpu().view(torch.uint8))


@pytest.mark.parametrize("row", BY_DEFAULT, ids=lambda row: row.name)
def test_a_gpu_tensor_of_every_dtype_converts(row: DtypeRow, interface: Any) -> None:
    host = random_tensor(row, (4, 5))
    try:
        t = tf.identity(host)
    except tf.errors.OpError:
        pytest.skip(f"TensorFlow keeps no {row.name} on a GPU")
    x = interface.to_torch(t)
    on_host = "CPU" in t.backing_device
    assert x.device.type == ("cpu" if on_host else "cuda")
    assert_same(x, interface.to_torch(host))
    if row.kind != "converted":
        assert shares_memory(t, x)
    x.zero_()
    torch.cuda.synchronize()
    with tf.device("CPU:0"):
        assert tf_memory(tf.identity(t)) == tf_memory(host)


def test_int32_stays_on_the_host_where_tensorflow_keeps_it(interface: Any) -> None:
    t = tf.constant([1, 2, 3]) + 1
    assert "CPU" in t.backing_device
    x = interface.to_torch(t)
    assert x.device.type == "cpu"
    assert x.tolist() == [2, 3, 4]
    moved = interface.to_torch(t, device="cuda")
    assert moved.device.type == "cuda"
    assert moved.tolist() == [2, 3, 4]
    assert_refused(interface, t, CopyRequiredError, "Leave device= out", device="cuda", copy=False)


def test_device_moves_in_both_directions(interface: Any) -> None:
    with tf.device("CPU:0"):
        host = tf.random.stateless_uniform([1 << 20], [1, 2])
    t = tf.identity(host)
    there = interface.to_torch(host, device="cuda")
    again = interface.to_torch(t, device="cpu")
    assert there.device == torch.device("cuda", torch.cuda.current_device())
    assert again.device.type == "cpu"
    assert torch.equal(there.cpu(), again)
    assert interface.explain(host, device="cuda").action == "copied"
    assert_refused(interface, t, CopyRequiredError, "Leave device= out", device="cpu", copy=False)
    for device in ("cuda", "cuda:0", 0, torch.device("cuda")):
        assert shares_memory(t, interface.to_torch(t, device=device))


def test_gpu_writes_are_protected(interface: Any) -> None:
    t = tf.random.stateless_uniform([1 << 16], [1, 2])
    before = t.numpy()
    x = interface.to_torch(t)
    x.mul_(2).add_(1)
    torch.cuda.synchronize()
    assert (t.numpy() == before).all()
    x = interface.to_torch(t, on_write="raise")
    with needs.forbidden_write(r"clone\(\)"):
        x.zero_()
    assert (t.numpy() == before).all()


def test_a_gpu_tensor_is_complete_when_torch_reads_it(interface: Any) -> None:
    for size in (64, 512, 2048):
        a = tf.random.stateless_uniform([size, size], [1, 2])
        for _ in range(4):
            a = tf.linalg.matmul(a, a)
            a /= tf.reduce_max(a)
        x = interface.to_torch(a)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            y = interface.to_torch(a).clone()
        side.synchronize()
        assert torch.equal(x, y)
        assert torch.equal(x.cpu(), torch.from_numpy(a.numpy()))


def test_gpu_memory_is_not_reused_while_torch_still_reads_it(interface: Any) -> None:
    before = live_owners()
    for i in range(50):
        t = tf.fill([1 << 20], float(i))
        x = interface.to_torch(t)
        for _ in range(20):
            y = x * 1.0  # queued but not finished when x is deleted
        del x, t
        scratch = [tf.fill([1 << 20], -1.0) for _ in range(2)]
        assert y.unique().tolist() == [float(i)]
        del scratch, y
    torch.cuda.synchronize()
    assert live_owners() <= before + 50


def test_a_gpu_variable_is_a_snapshot(interface: Any) -> None:
    v = tf.Variable([1.0, 2.0, 3.0])
    x = interface.to_torch(v)
    v.assign_add([1.0, 1.0, 1.0])
    assert x.tolist() == [1.0, 2.0, 3.0]
    x.zero_()
    assert v.numpy().tolist() == [2.0, 3.0, 4.0]


def test_an_empty_gpu_tensor_converts(interface: Any) -> None:
    for copy in (None, True):
        x = interface.to_torch(tf.zeros([0, 3]) + 0, copy=copy)
        assert x.shape == (0, 3)
        assert x.device.type == "cuda"


def test_a_gpu_that_does_not_exist_is_refused(interface: Any) -> None:
    index = torch.cuda.device_count()
    with pytest.raises((UnsupportedDeviceError, TorchError)):
        interface.to_torch(tf.constant([1.0]), device=f"cuda:{index}")


# ---- Order between the frameworks ----------------------------------------------------------------

COUNT = 1 << 22


def on_device(value: float, count: int = COUNT) -> tf.Tensor:
    t = tf.fill([count], value)
    assert "GPU" in t.backing_device
    return t


def keep_torch_busy() -> None:
    """Queues some tenths of a second of work on torch's current stream, and returns at once."""
    torch.cuda._sleep(400_000_000)


def overwrite(address: int) -> None:
    """Makes TensorFlow reuse the memory at an address if it was released."""
    kept = []
    for _ in range(64):
        kept.append(on_device(-1.0))
        if tf_data_address(kept[-1]) == address:
            break
    # Reading an element waits for everything that was queued before.
    float(kept[-1][0])


LATE_READS: dict[str, Callable[[Any, tf.Tensor], torch.Tensor]] = {
    "copy": lambda interface, t: interface.to_torch(t, copy=True),
    "first write": lambda interface, t: interface.to_torch(t).add_(0),
    "kernel": lambda interface, t: interface.to_torch(t) * 1,
    "clone": lambda interface, t: interface.to_torch(t).clone(),
}


@pytest.mark.parametrize("name", LATE_READS)
def test_what_torch_queued_reads_the_values_that_it_was_given(name: str, interface: Any) -> None:
    for i in range(5):
        t = on_device(float(i))
        address = tf_data_address(t)
        torch.cuda.synchronize()
        keep_torch_busy()
        x = LATE_READS[name](interface, t)
        del t
        overwrite(address)
        assert x.unique().tolist() == [float(i)]
        del x


def test_reads_on_a_stream_of_their_own(interface: Any) -> None:
    side = torch.cuda.Stream()
    for i in range(5):
        t = on_device(float(i))
        address = tf_data_address(t)
        with torch.cuda.stream(side):
            keep_torch_busy()
            x = interface.to_torch(t)
            y = x + 1
            copy = interface.to_torch(t, copy=True)
        del x, t
        overwrite(address)
        side.synchronize()
        assert y.unique().tolist() == [i + 1.0]
        assert copy.unique().tolist() == [float(i)]


def test_what_tensorflow_queued_is_done(interface: Any) -> None:
    a = tf.random.stateless_uniform([3000, 3000], [1, 2])
    for _ in range(5):
        b = a
        for _ in range(40):
            b = tf.sin(b) + a
        x = interface.to_torch(b)
        y = x.clone()
        torch.cuda.synchronize()
        assert torch.equal(x, y)


# ---- Sharing and protection ----------------------------------------------------------------------


def test_shared_until_the_first_write_for_every_view(interface: Any) -> None:
    t = on_device(2.0, 1 << 10)
    x = interface.to_torch(t)
    view, reshaped = x[10:20], x.reshape(32, 32)
    alias = x.detach()
    assert x.device == torch.device("cuda", 0)
    assert torch_data_address(x) == tf_data_address(t)
    assert torch_data_address(view) == tf_data_address(t) + 40
    view.add_(1)
    assert x[10:20].unique().tolist() == [3.0]
    assert reshaped.sum().item() == alias.sum().item() == 2.0 * (1 << 10) + 10
    assert t.numpy().tolist() == [2.0] * (1 << 10)
    assert not shares_memory(t, x)


def test_alias_mode_writes_into_tensorflow(interface: Any) -> None:
    t = on_device(1.0, 16)
    x = interface.to_torch(t, on_write="alias")
    x.mul_(3)
    torch.cuda.synchronize()
    assert t.numpy().tolist() == [3.0] * 16


def test_torch_keeps_the_memory_and_gives_it_back(interface: Any) -> None:
    gc.collect()
    before = live_owners()
    t = on_device(7.0)
    x = interface.to_torch(t)
    y = interface.to_torch(t)
    assert live_owners() == before + 2
    del t
    assert x.unique().tolist() == [7.0]
    del x, y
    assert wait_until(lambda: live_owners() == before)


def test_memory_does_not_grow(interface: Any) -> None:
    def use() -> int:
        for i in range(200):
            x = interface.to_torch(on_device(float(i)))
            x.add_(1)
            interface.to_torch(on_device(0.0), copy=True)
        del x
        torch.cuda.synchronize()
        assert wait_until(lambda: live_owners() == before)
        return int(tf.config.experimental.get_memory_info("GPU:0")["current"])

    before = live_owners()
    first = use()
    assert use() <= first + (1 << 20)


def test_threads(interface: Any) -> None:
    t = on_device(1.0, 1 << 16)

    def work() -> float:
        total = 0.0
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(50):
                x = interface.to_torch(t)
                total += x.sum().item()
                x.zero_()
        return total

    assert in_threads(*[work] * 4) == [50.0 * (1 << 16)] * 4
    assert t.numpy().sum() == 1 << 16


def test_a_copy_is_torch_s_own(interface: Any) -> None:
    t = on_device(5.0, 100)
    x = interface.to_torch(t, copy=True)
    assert x.device.type == "cuda"
    assert not shares_memory(t, x)
    explained = interface.explain(t)
    assert (explained.action, explained.device) == ("shared", "cuda:0")
    assert interface.explain(t, copy=True).action == "copied"


def test_converted_dtypes_are_complete(interface: Any) -> None:
    for row in BY_DEFAULT:
        if row.kind != "converted":
            continue
        host = random_tensor(row, (1000,))
        try:
            t = tf.identity(host)
        except tf.errors.OpError:
            continue
        if "GPU" not in t.backing_device:
            continue
        keep_torch_busy()
        x = interface.to_torch(t)
        del t
        assert_same(x, interface.to_torch(host))


def test_structures_and_composites_keep_their_devices() -> None:
    with tf.device("CPU:0"):
        host = tf.constant([1.0, 2.0])
    value = {
        "gpu": on_device(1.0, 8),
        "host": host,
        "sparse": tf.sparse.from_dense(tf.constant([[0.0, 2.0], [3.0, 0.0]])),
        "ragged": tf.RaggedTensor.from_row_lengths(on_device(4.0, 6), [2, 0, 4]),
    }
    x = tensor_bridge.to_torch(value)
    assert x["gpu"].device.type == "cuda"
    assert x["host"].device.type == "cpu"
    assert x["sparse"].cpu().to_dense().tolist() == [[0.0, 2.0], [3.0, 0.0]]
    moved = tensor_bridge.to_torch(value, device="cuda")
    assert moved["host"].device.type == "cuda"
    assert moved["sparse"].device.type == "cuda"
    assert moved["sparse"].to_dense().tolist() == [[0.0, 2.0], [3.0, 0.0]]
    assert [part.tolist() for part in moved["ragged"].unbind()] == [[4.0] * 2, [], [4.0] * 4]
