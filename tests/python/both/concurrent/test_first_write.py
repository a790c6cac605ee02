"""First writes from several threads at once, and readers beside a writer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from fresh import run_forked
from sharing import Shared, in_threads, numbers, values
from ways import Way

from tensor_bridge.testing import torch_data_address

THREADS = 4
COLUMNS = 4096
ROUNDS = 60


WRITES: dict[str, Callable[[torch.Tensor], Any]] = {
    "add_": lambda row: row.add_(1),
    "setitem": lambda row: row.__setitem__(..., row + 1),
    "numpy": lambda row: row.numpy().__iadd__(1),
    "data_ptr": lambda row: (row.data_ptr(), row.add_(1)),
    "foreach": lambda row: torch._foreach_add_([row], 1),
    "out=": lambda row: torch.add(row, 1, out=row),
    "storage": lambda row: (row.untyped_storage().data_ptr(), row.add_(1)),
}


def big() -> tf.Tensor:
    return numbers((THREADS, COLUMNS))


WRITTEN = values((THREADS, COLUMNS)) + 1


@pytest.mark.parametrize("write", WRITES)
def test_no_write_is_lost(write: str, sharing_way: Way, interface: Any) -> None:
    for _ in range(ROUNDS // len(WRITES)):
        shared = sharing_way.share(sharing_way.leaf((THREADS, COLUMNS)), interface)
        in_threads(*[lambda row=row: WRITES[write](row) for row in shared.torch])
        assert torch.equal(shared.torch, WRITTEN)
        shared.assert_moved()


def test_different_ways_to_write_race(sharing_way: Way) -> None:
    names = list(WRITES)
    for i in range(ROUNDS):
        shared = sharing_way.share(sharing_way.leaf((THREADS, COLUMNS)))
        ways = [WRITES[names[(i + k) % len(names)]] for k in range(THREADS)]
        rows = zip(ways, shared.torch, strict=True)
        in_threads(*[lambda way=way, row=row: way(row) for way, row in rows])
        assert torch.equal(shared.torch, WRITTEN)
        shared.assert_moved()


def test_everybody_sees_one_move(sharing_way: Way) -> None:
    for _ in range(ROUNDS):
        shared = sharing_way.share(sharing_way.leaf((THREADS, COLUMNS)))
        addresses = in_threads(*[shared.torch.data_ptr] * THREADS)
        assert set(addresses) == {torch_data_address(shared.torch)}
        shared.assert_moved()


def test_many_tensors_of_one_buffer_move_apart() -> None:
    t = big()
    for _ in range(10):
        made = [Shared(t) for _ in range(32)]
        in_threads(*[lambda s=s, i=i: s.torch.fill_(i) for i, s in enumerate(made)])
        assert [float(s.torch[1, 1]) for s in made] == list(range(32))
        assert len({torch_data_address(s.torch) for s in made}) == 32
        made[0].assert_moved()


@pytest.mark.parametrize("ends", ["before", "beside"])
def test_reader_beside_a_writer_reads_valid_memory(ends: str, sharing_way: Way) -> None:
    """The reader may have taken the address before the move; both buffers stay alive."""
    size = 1 << 16
    ones = {"to_torch": lambda: tf.fill((size,), 1.0), "to_tf": lambda: torch.ones(size)}
    for _ in range(ROUNDS // 2):
        shared = sharing_way.share(ones[sharing_way.name]())
        x, done = shared.torch, threading.Event()
        holder, shared.tf = [shared.tf], tf.zeros(())
        if ends == "before":
            holder.clear()  # from here on only torch holds the buffer

        def read(x: torch.Tensor = x, done: threading.Event = done) -> float:
            total = float(x.sum())
            while not done.is_set():
                total = float(x.sum())
            return total

        def write(x: torch.Tensor = x, done: threading.Event = done) -> None:
            x.add_(1)
            done.set()

        totals = in_threads(read, read, write, holder.clear)[:2]
        assert all(size <= total <= 2 * size for total in totals)
        assert float(x.sum()) == 2 * size


def test_conversion_beside_a_writer() -> None:
    t = big()
    before = Shared(t)

    def convert() -> None:
        for _ in range(200):
            Shared(t)

    def write() -> None:
        for _ in range(200):
            Shared(t).torch.zero_()

    in_threads(convert, write, convert, write)
    before.assert_shared()


def test_raise_raises_in_every_thread() -> None:
    shared = Shared(big(), on_write="raise")

    def write() -> None:
        for _ in range(50):
            with needs.forbidden_write("on_write"):
                shared.torch.add_(1)

    in_threads(*[write] * THREADS)
    shared.assert_shared()


def test_write_races_with_the_release_of_other_views() -> None:
    for _ in range(ROUNDS):
        shared = Shared(big())
        views = [list(shared.torch) for _ in range(THREADS)]
        in_threads(
            lambda x=shared.torch: x.add_(1), *[lambda views=v: views.clear() for v in views]
        )
        shared.assert_moved()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_inter_operator_threads_of_torch_write() -> None:
    """torch's own thread pool runs them, without the GIL."""

    @torch.jit.script
    def increment(row: torch.Tensor) -> torch.Tensor:
        return row.add_(1)

    for _ in range(10):
        shared = Shared(big())
        futures = [torch.jit.fork(increment, row) for row in shared.torch]
        for future in futures:
            torch.jit.wait(future)
        assert torch.equal(shared.torch, WRITTEN)
        shared.assert_moved()


@needs.torch_since(13, "a first write takes no mutex")
def test_a_child_that_was_forked_in_the_middle_of_a_first_write_can_write() -> None:
    out = run_forked(
        """
        import os, signal, threading, time, warnings
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        large = tensor_bridge.to_torch(tf.zeros([100_000_000]))
        # Some of them have the same mutex.
        small = [tensor_bridge.to_torch(tf.constant([float(i)] * 4)) for i in range(500)]
        thread = threading.Thread(target=lambda: large[:1].fill_(1))
        thread.start()
        time.sleep(0.02)
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            os._exit(sum(x.add_(1)[0].item() != i + 1 for i, x in enumerate(small)))
        thread.join()
        print(os.waitpid(child, 0)[1])
        """
    ).check()
    assert out == "0"
