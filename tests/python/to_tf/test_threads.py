"""Several threads that use tensors shared with TensorFlow."""

from __future__ import annotations

import threading
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from fresh import run_forked
from sharing import in_threads, owners, shared_to_tf, tf_bytes, torch_bytes, values

import tensor_bridge
from tensor_bridge.testing import live_owners, torch_data_address

pytestmark = needs.shares_to_tf

THREADS = 4
COLUMNS = 4096
ROUNDS = 60


def big() -> torch.Tensor:
    return values((THREADS, COLUMNS))


WRITTEN = big() + 1


FIRST_WRITES = {
    "TensorFlow's": "t = tf.ones([SIZE]); x, kept = tensor_bridge.to_torch(t), t",
    "torch's": "x = torch.ones(SIZE); kept = tensor_bridge.to_tf(x)",
}


@pytest.mark.parametrize("memory", FIRST_WRITES)
def test_what_is_shared_right_after_a_contended_first_write_is_protected(memory: str) -> None:
    """torch may clear the slower thread's hook at any time, so the next share must not need it."""
    # In a separate process: after torch.set_num_threads, even with the previous number, operators
    # on guarded memory in later tests take ten times as long.
    run_forked(f"""
        from sharing import in_threads
        SIZE = 2_000_000
        torch.set_num_threads(1)
        for _ in range(150):
            {FIRST_WRITES[memory]}
            shared = []

            def write_and_share(x=x, shared=shared):
                x[:1].fill_(2)
                shared.append(tensor_bridge.to_tf(x))

            in_threads(write_and_share, lambda x=x: x[1:2].fill_(3))
            x[2] = 55
            assert shared[0][2].numpy() == 1
            assert kept[:3].numpy().tolist() == [1, 1, 1]
            assert x[:3].tolist() == [2, 3, 55]
    """).check()


def test_write_races_with_the_release() -> None:
    """In any order, torch has the new values, and TensorFlow never sees them."""
    stolen = 0
    for _ in range(200):
        x = values()
        address = torch_data_address(x)
        holders = [[tensor_bridge.to_tf(x)] for _ in range(3)]
        in_threads(lambda x=x: x.add_(1), *[holder.clear for holder in holders])
        assert torch.equal(x, values() + 1)
        stolen += torch_data_address(x) == address
    assert 0 <= stolen <= 200


def test_readers_in_tensorflow_beside_a_writer() -> None:
    for _ in range(ROUNDS // 4):
        kept = shared_to_tf(big())
        total = float(WRITTEN.sum()) - WRITTEN.numel()

        def read(t: tf.Tensor = kept.tf, total: float = total) -> None:
            for _ in range(5):
                assert float(tf.reduce_sum(tf.cast(t, tf.float64))) == total

        def write(x: torch.Tensor = kept.torch) -> None:
            for _ in range(5):
                x.add_(1)

        in_threads(read, write, read)
        kept.assert_moved()


def test_conversions_of_one_tensor_at_once() -> None:
    x = big()
    expected = torch_bytes(x)
    address = torch_data_address(x)
    with owners() as added:
        kept = in_threads(*[lambda: [tensor_bridge.to_tf(x) for _ in range(50)]] * THREADS)
        assert added() == 50 * THREADS
        assert torch_data_address(x) == address
        x.add_(1)
        assert all(tf_bytes(t) == expected for ts in kept for t in ts[::10])
        kept.clear()


@pytest.mark.parametrize("strided", [False, True])
def test_conversion_beside_writers_is_of_some_moment_and_stays(strided: bool) -> None:
    """The moment is not promised, but TensorFlow keeps the values that it got."""
    x = torch.zeros(64, 64)
    view = x.T if strided else x
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            x.add_(1)

    def convert() -> list[Any]:
        shares = []
        try:
            for _ in range(150):
                shares.append(tensor_bridge.to_tf(view))
        finally:
            stop.set()
        return shares

    shares = in_threads(convert, write)[0]
    before = [tf_bytes(t) for t in shares]
    x.fill_(-1)
    x.add_(1)
    assert [tf_bytes(t) for t in shares] == before
    assert all(float(tf.reduce_min(t)) >= 0 for t in shares)


def test_different_tensors_converted_and_written_at_once() -> None:
    def work(i: int) -> None:
        x = torch.full((256,), float(i))
        for k in range(100):
            t = tensor_bridge.to_tf(x)
            x.fill_(i + k + 1)
            assert float(t[0]) == i + k
            y = tensor_bridge.to_torch(t)
            y.add_(1)
            assert float(t[255]) == i + k

    in_threads(*[lambda i=i: work(1000 * i) for i in range(THREADS)])


def test_large_copy_lets_other_threads_run() -> None:
    x = torch.ones(3000, 3000).T
    counter, stop = [0], threading.Event()

    def count() -> None:
        while not stop.is_set():
            counter[0] += 1

    def convert() -> int:
        before = counter[0]
        tensor_bridge.to_tf(x)
        after = counter[0]
        stop.set()
        return after - before

    assert in_threads(count, convert)[1] > 1


def test_structures_converted_at_once() -> None:
    tree = {"a": [values() for _ in range(20)], "b": (values().T, {"c": torch.ones(64)})}
    results = in_threads(*[lambda: tensor_bridge.to_tf(tree)] * THREADS)
    tree["b"][1]["c"].zero_()
    assert all(float(tf.reduce_sum(r["b"][1]["c"])) == 64 for r in results)


def test_list_that_changes_while_it_is_converted() -> None:
    tree: list[Any] = [values() for _ in range(50)]
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            tree.append(values())
            tree.pop(0)

    def convert() -> None:
        try:
            for _ in range(30):
                assert tensor_bridge.to_tf(tree)
        finally:
            stop.set()

    in_threads(convert, change)


def test_release_on_a_thread_of_tensorflow_s() -> None:
    """A dataset's worker releases the last reference."""
    before = live_owners()
    x = values((8, 64))
    dataset = tf.data.Dataset.from_tensor_slices(tensor_bridge.to_tf(x))
    dataset = dataset.map(lambda t: t + 1, num_parallel_calls=2).prefetch(2)
    total = sum(float(tf.reduce_sum(t)) for t in dataset)
    assert total == float(x.sum()) + 512
    del dataset
    assert live_owners() >= before


def test_array_freed_by_a_write_without_the_gil() -> None:
    """Freeing NumPy's memory needs the GIL, which a thread may hold while it waits for a write."""
    import numpy as np

    def shared_array() -> tuple[torch.Tensor, Any]:
        memory = np.zeros(1024 + 16, np.float32)
        start = -memory.ctypes.data % 64 // 4
        x = torch.from_numpy(memory[start : start + 1024])
        first = tensor_bridge.to_tf(x)
        x.add_(1)
        second = tensor_bridge.to_tf(x)
        del first
        return x, second

    for _ in range(20):
        pairs = [shared_array() for _ in range(64)]
        in_threads(
            lambda pairs=pairs: [x.add_(1) for x, _ in pairs],
            lambda pairs=pairs: [x.data_ptr() for x, _ in pairs],
            lambda pairs=pairs: [x.data_ptr() for x, _ in reversed(pairs)],
        )
        assert all(float(t[0]) == 1 for _, t in pairs)
