"""Conversions from many threads at once."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import pytest
import tensorflow as tf
import torch
from fresh import WITHOUT_TORCH, run_forked
from sharing import SHAPE, Shared, in_threads, numbers, owners, tf_bytes, torch_bytes

import tensor_bridge
from tensor_bridge.testing import live_owners, tf_data_address, torch_data_address

THREADS = 8
ROUNDS = 400


def test_one_tensor_from_many_threads(interface: Any) -> None:
    t = numbers()
    address, before = tf_data_address(t), live_owners()

    def convert() -> list[torch.Tensor]:
        made = [interface.to_torch(t) for _ in range(ROUNDS)]
        assert {torch_data_address(x) for x in made} == {address}
        return made

    made = [x for part in in_threads(*[convert] * THREADS) for x in part]
    assert live_owners() == before + THREADS * ROUNDS
    for x in made:
        assert x.shape == SHAPE
    made[0].zero_()
    assert torch_bytes(made[1]) == tf_bytes(t)
    assert torch_data_address(made[1]) == address
    made.clear()
    del x
    assert live_owners() == before


def test_own_tensors_with_writes_and_releases(interface: Any) -> None:
    def work() -> None:
        for i in range(100):
            shared = Shared(convert=interface.to_torch)
            view = shared.torch[1:]
            if i % 2:
                view.add_(i)
                assert float(view[0, 0]) == 6 + i
                shared.assert_moved()
            else:
                shared.assert_shared()

    with owners():
        in_threads(*[work] * THREADS)


def test_errors_belong_to_the_thread_that_made_them(interface: Any) -> None:
    def refused(value: Any, error: type[Exception], words: str, **options: Any) -> None:
        for _ in range(100):
            with pytest.raises(error, match=words):
                interface.to_torch(value, **options)

    def works() -> None:
        for _ in range(100):
            Shared(convert=interface.to_torch)

    resource = tf.Variable(1.0).handle
    qint8 = tf.bitcast(tf.constant([1, 2], tf.int8), tf.qint8)
    in_threads(
        lambda: refused(resource, tensor_bridge.UnsupportedDtypeError, "resource"),
        lambda: refused(qint8, tensor_bridge.UnsupportedDtypeError, "qint8"),
        lambda: refused(
            numbers(), tensor_bridge.InvalidOptionError, "scale", scale=1, zero_point=0
        ),
        lambda: refused([1], tensor_bridge.UnsupportedTypeError, "list"),
        works,
        works,
    )


def test_variable_converted_while_it_is_assigned(interface: Any) -> None:
    variable = tf.Variable(tf.zeros((64, 1024)))
    enough = threading.Barrier(3)
    value, deadline = itertools.count(1), time.monotonic() + 60

    # A thread that waits at the barrier lets the others run, so each reader sees 10 values on any
    # machine.
    def assign() -> None:
        while enough.n_waiting < 2 and time.monotonic() < deadline:
            variable.assign(tf.fill((64, 1024), float(next(value))))
            variable.assign_add(tf.ones((64, 1024)))
        enough.wait(60)

    def convert() -> int:
        seen = set()
        while len(seen) < 10 and time.monotonic() < deadline:
            x = interface.to_torch(variable)
            first = float(x[0, 0])
            assert bool((x == first).all()), "an incomplete assignment"
            seen.add(first)
        enough.wait(60)
        return len(seen)

    with owners():
        assert min(in_threads(assign, convert, convert)[1:]) >= 10


def test_threads_convert_explain_and_count_at_once() -> None:
    t, variable = numbers(), tf.Variable(numbers())
    jobs = (
        lambda: tensor_bridge.to_torch(t),
        lambda: tensor_bridge.to_torch(variable),
        lambda: tensor_bridge.to_torch(t, copy=True),
        lambda: tensor_bridge.to_torch(t, on_write="raise"),
        lambda: tensor_bridge.explain(t),
        lambda: tensor_bridge.explain(variable),
        lambda: tensor_bridge.testing.shares_memory(t, torch.zeros(1)),
        live_owners,
    )
    with owners():
        in_threads(*[lambda job=job: [job() for _ in range(100)] and None for job in jobs])


@pytest.mark.parametrize("interface_code", ["tensor_bridge", "tensor_bridge.TensorBridge()"])
def test_first_conversions_of_a_process_at_once(interface_code: str) -> None:
    """Every thread finds torch not yet imported, and the adapter not yet loaded."""
    code = f"""
        import sys, threading
        assert "torch" not in sys.modules
        tensors = [tf.fill((3,), float(i)) for i in range(8)]
        start, results = threading.Barrier(8), [None] * 8
        def work(i):
            start.wait()
            results[i] = {interface_code}.to_torch(tensors[i]).tolist()
        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert results == [[float(i)] * 3 for i in range(8)], results
        assert tensor_bridge.testing.live_owners() == 0
    """
    run_forked(code, after=(WITHOUT_TORCH,)).check()
