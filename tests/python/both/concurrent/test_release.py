"""The last reference is released on any thread, with or without the GIL."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from typing import Any

import c_threads
import pytest
import torch
from sharing import Shared, in_threads, numbers, owners
from torch.utils.data import DataLoader, TensorDataset

import tensor_bridge
from tensor_bridge.testing import live_owners


def test_on_other_python_threads(interface: Any) -> None:
    with owners():
        waiting: queue.SimpleQueue[torch.Tensor | None] = queue.SimpleQueue()

        def drop() -> None:
            while waiting.get() is not None:
                pass

        threads = [threading.Thread(target=drop) for _ in range(4)]
        for thread in threads:
            thread.start()
        for i in range(2000):
            x = interface.to_torch(numbers())
            if i % 3 == 0:
                x.add_(1)
            waiting.put(x)
        del x
        for _ in threads:
            waiting.put(None)
        for thread in threads:
            thread.join()


def test_by_a_thread_that_ends_with_it() -> None:
    with owners() as added:
        local = threading.local()

        def keep() -> None:
            local.kept = [tensor_bridge.to_torch(numbers()) for _ in range(10)]
            assert added() >= 10

        for _ in range(20):
            in_threads(keep)


@pytest.mark.parametrize("written", [False, True])
def test_on_c_threads_without_the_gil(written: bool) -> None:
    tensor_bridge.to_torch(numbers())  # loads the adapter
    before = live_owners()
    for _ in range(20):
        tensors = [c_threads.torch_tensor(written=written) for _ in range(16)]
        assert live_owners() == before + 16
        c_threads.run_in_c_threads(c_threads.RELEASE_TORCH_TENSOR, tensors)
        assert live_owners() == before


def test_by_autograd_and_its_graph_on_another_thread() -> None:
    with owners() as added:
        w = torch.ones(4, 6, requires_grad=True)
        losses = [(w * tensor_bridge.to_torch(numbers())).sum() for _ in range(50)]
        assert added() == 50
        in_threads(*[loss.backward for loss in losses[:25]])
        in_threads(losses.clear)
    assert float(w.grad[0, 1]) == 25


def test_by_a_weak_reference_callback_and_a_finalizer() -> None:
    before, seen = live_owners(), []
    x = tensor_bridge.to_torch(numbers())
    weakref.finalize(x, lambda: seen.append("finalized"))
    reference = weakref.ref(x, lambda _: seen.append("gone"))
    in_threads(lambda box=[x]: box.clear())
    del x
    assert sorted(seen) == ["finalized", "gone"]
    assert reference() is None
    assert live_owners() == before


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_by_torchs_inter_operator_threads() -> None:
    @torch.jit.script
    def total(x: torch.Tensor) -> torch.Tensor:
        return x.sum() + 1

    with owners() as added:
        futures = [torch.jit.fork(total, tensor_bridge.to_torch(numbers())) for _ in range(100)]
        assert {float(torch.jit.wait(future)) for future in futures} == {277.0}
        del futures
        deadline = time.monotonic() + 60  # a thread releases its frame only when it runs
        while added() > 0 and time.monotonic() < deadline:
            time.sleep(0.001)


def test_by_data_loader_without_workers() -> None:
    with owners():
        data = TensorDataset(tensor_bridge.to_torch(numbers((64, 3))))
        seen = sum(float(batch.sum()) for (batch,) in DataLoader(data, batch_size=8, shuffle=True))
        assert seen == sum(range(192))
        del data


def test_written_tensor_keeps_tensorflows_buffer_until_its_storage_dies() -> None:
    with owners() as added:
        shared = Shared()
        view = shared.torch[1]
        shared.torch.add_(1)
        assert added() == 1
        in_threads(lambda: setattr(shared, "torch", None))
        assert added() == 1
        del view
