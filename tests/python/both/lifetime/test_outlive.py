"""Converted tensors outlive their sources."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import tensorflow as tf
import torch
from fresh import run_forked
from sharing import SHAPE, Shared, numbers, owners, tf_bytes, torch_bytes

import tensor_bridge
from tensor_bridge.testing import tf_data_address, torch_data_address

EXPECTED = torch.arange(24.0).reshape(SHAPE)


def churn() -> None:
    """Makes allocations that would reuse freed memory of the same size."""
    for i in range(200):
        tf.fill(SHAPE, float(-i))
        torch.full(SHAPE, -1.0)


@pytest.fixture(autouse=True)
def _no_garbage_of_earlier_tests() -> None:
    """Collects garbage first, because the tests here count owners and collect garbage."""
    gc.collect()


def test_the_tensor(interface: Any) -> None:
    with owners() as added:
        t = numbers()
        address, data = tf_data_address(t), tf_bytes(t)
        x = interface.to_torch(t)
        del t
        gc.collect()
        churn()
        assert torch_data_address(x) == address
        assert torch_bytes(x) == data
        assert added() == 1
        x.add_(1)
        assert torch.equal(x, EXPECTED + 1)
        assert added() == 1
        del x


def test_tensorflow_outlives_torch(interface: Any) -> None:
    shared = Shared(convert=interface.to_torch)
    shared.torch = torch.zeros(1)
    gc.collect()
    churn()
    shared.assert_untouched()
    assert float(tf.reduce_sum(shared.tf)) == sum(range(24))


def test_the_variable(interface: Any) -> None:
    with owners():
        variable = tf.Variable(numbers())
        address = tf_data_address(variable)
        x = interface.to_torch(variable)
        assert torch_data_address(x) == address
        del variable
        gc.collect()
        churn()
        assert torch.equal(x, EXPECTED)
        assert torch_data_address(x) == address
        del x


def test_the_model_and_the_keras_session(interface: Any) -> None:
    with owners():
        model = tf.keras.Sequential([tf.keras.Input((6,)), tf.keras.layers.Dense(3)])
        weights = [interface.to_torch(w.value) for w in model.weights]
        expected = [w.numpy() for w in model.weights]
        for x, w in zip(weights, model.weights, strict=True):
            assert torch_data_address(x) == tf_data_address(w.value)
        del model, w
        tf.keras.backend.clear_session()
        gc.collect()
        churn()
        for x, e in zip(weights, expected, strict=True):
            assert x.tolist() == e.tolist()
        del weights, x


def test_the_dataset_and_the_function(interface: Any) -> None:
    with owners():
        data = tf.data.Dataset.from_tensor_slices(numbers((8, 64))).batch(2).prefetch(2)
        batches = [interface.to_torch(batch) for batch in data]
        function = tf.function(lambda: tf.range(100.0) * 2)
        result = interface.to_torch(function())
        del data, function
        gc.collect()
        churn()
        assert torch.equal(torch.cat(batches), torch.arange(512.0).reshape(8, 64))
        assert torch.equal(result, torch.arange(100.0) * 2)
        del batches, result


@pytest.mark.parametrize("interface", ["tensor_bridge", "TensorBridge()"])
def test_tensorflows_context(interface: str) -> None:
    """In a separate process, because a new context would disturb other tests."""
    run_forked(f"""
        import gc
        from tensorflow.python.eager import context
        t = tf.reshape(tf.range(24.0) * 1.0, (4, 6))
        v = tf.Variable(t + 0.0)
        x, y = {interface}.to_torch(t), {interface}.to_torch(v)
        address = testing.torch_data_address(x)
        del t, v
        context._reset_context()
        gc.collect()
        kept = [tf.fill((4, 6), -1.0) for _ in range(50)]
        assert testing.torch_data_address(x) == address
        expected = torch.arange(24.0).reshape(4, 6)
        assert torch.equal(x, expected) and torch.equal(y, expected)
        assert testing.live_owners() == 2
        y.add_(1)
        z = {interface}.to_torch(kept[0])
        assert testing.shares_memory(kept[0], z) and float(z.sum()) == -24
        del x, y, z
        assert testing.live_owners() == 0
        w = tf.Variable([1.0])
        assert {interface}.to_torch(w).tolist() == [1.0]
    """).check()


def test_slice_keeps_the_whole_buffer_and_lets_it_go() -> None:
    with owners():
        t = numbers((4, 1024))
        row = tensor_bridge.to_torch(t[2])
        address = tf_data_address(t) + 2 * 4096
        del t
        churn()
        assert torch_data_address(row) == address
        assert torch.equal(row, torch.arange(2048.0, 3072.0))
        del row


def test_reference_cycle_is_collected() -> None:
    with owners() as added:
        x = tensor_bridge.to_torch(numbers())
        x.itself = x
        del x
        assert added() == 1
        gc.collect()


def test_resurrected_tensor_still_works() -> None:
    """torch gives a Python object back to a tensor that C++ has kept."""
    with owners():
        shared = Shared()
        w = torch.ones(SHAPE, requires_grad=True)
        loss = (w * shared.torch).sum()
        shared.torch = torch.zeros(1)
        gc.collect()
        saved = loss.grad_fn.next_functions[0][0]._saved_other
        shared.assert_shared(saved)
        assert torch.equal(saved, EXPECTED)
        del saved, loss


def test_fork_child_reads_and_writes_privately() -> None:
    run_forked("""
        import os
        t = tf.reshape(tf.range(24.0) * 1.0, (4, 6))
        x, y = tensor_bridge.to_torch(t), tensor_bridge.to_torch(t)
        v = tensor_bridge.to_torch(tf.Variable(t + 1.0))
        expected = torch.arange(24.0).reshape(4, 6)
        for written in (False, True):
            pid = os.fork()
            if pid == 0:
                good = torch.equal(x, expected) and torch.equal(v, expected + 1)
                good = good and testing.shares_memory(t, y)
                if written:
                    x.add_(1)
                    good = good and torch.equal(x, expected + 1) and torch.equal(y, expected)
                z = tensor_bridge.to_torch(t)
                good = good and testing.shares_memory(t, z) and testing.live_owners() == 4
                del z
                os._exit(0 if good else 3)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert torch.equal(x, expected) and testing.shares_memory(t, x)
        del x, y, v
        assert testing.live_owners() == 0
    """).check()


def test_data_loader_workers_read_by_fork() -> None:
    run_forked("""
        from torch.utils.data import DataLoader, TensorDataset
        t = tf.reshape(tf.range(64.0) * 1.0, (16, 4))
        x = tensor_bridge.to_torch(t)
        loader = DataLoader(TensorDataset(x), batch_size=4, num_workers=2,
                            multiprocessing_context="fork")
        for _ in range(2):
            assert torch.equal(torch.cat([b for (b,) in loader]), torch.arange(64.0).view(16, 4))
        assert testing.shares_memory(t, x)
    """).check()
