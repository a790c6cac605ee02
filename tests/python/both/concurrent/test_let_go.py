"""Buffers that TensorFlow releases while others use them: no write reaches a holder.

TensorFlow's buffers are in read-only pages, so that even a write of equal bytes faults.
"""

from __future__ import annotations

import queue
import random
import threading

import needs
import pytest
import tensorflow as tf
import torch
from fresh import run_forked
from sharing import in_threads, tf_bytes, torch_bytes

import tensor_bridge

pytestmark = needs.takes_over

ELEMENTS = 1 << 12

PAGES = """
import ctypes, gc, mmap, random, warnings
warnings.simplefilter("ignore")
from tensor_bridge.testing import tf_data_address, torch_data_address
torch.set_num_threads(1)
libc = ctypes.CDLL(None, use_errno=True)
COUNT, PAGE = 1 << 14, mmap.PAGESIZE

def allow(address, access):
    # The whole pages inside: those at the ends have the allocator's own words.
    first = (address + PAGE - 1) // PAGE * PAGE
    last = (address + 4 * COUNT) // PAGE * PAGE
    assert libc.mprotect(ctypes.c_void_p(first), ctypes.c_size_t(last - first), access) == 0

class Held:
    # What TensorFlow holds: pages that nobody may write, and their values.
    def __init__(self, t, value):
        self.tensors, self.value, self.address = [t], value, tf_data_address(t)
        allow(self.address, 1)
    def let_go(self):
        assert bool(tf.reduce_all(self.tensors[0] == self.value)), "somebody wrote"
        allow(self.address, 3)
        self.tensors.clear()

class Torch:
    def __init__(self, x, value):
        self.x, self.value = x, value

def run(seed, steps):
    r = random.Random(seed)
    held, torches, where = [], [], {"stays": 0, "moves": 0}
    for _ in range(steps):
        step = r.randrange(7)
        if step == 0 and len(held) < 6:
            value = float(r.randrange(1000))
            held.append(Held(tf.fill((COUNT,), value) + 0.0, value))
        elif step == 1 and held:
            h = r.choice(held)
            torches.append(Torch(tensor_bridge.to_torch(r.choice(h.tensors)), h.value))
        elif step == 2 and held:
            h = held.pop(r.randrange(len(held)))
            h.let_go()
        elif step == 3 and torches:
            torches.pop(r.randrange(len(torches)))
        elif step == 4 and torches:
            t = r.choice(torches)
            before = torch_data_address(t.x)
            t.x.add_(1)
            t.value += 1
            where["stays" if torch_data_address(t.x) == before else "moves"] += 1
        elif step == 5 and torches and len(held) < 6:
            t = r.choice(torches)
            u = tensor_bridge.to_tf(t.x)
            assert tf_data_address(u) == torch_data_address(t.x)
            same = [h for h in held if h.address == tf_data_address(u)]
            if same:
                same[0].tensors.append(u)
            else:
                held.append(Held(u, t.value))
        elif step == 6 and held:
            h = r.choice(held)
            h.tensors.append(tf.reshape(r.choice(h.tensors), (COUNT,)))
        for t in torches:
            assert t.x[r.randrange(COUNT)].item() == t.value, (seed, t.value)
    for h in held:
        h.let_go()
    return where
"""


@pytest.mark.parametrize(
    ("seeds", "steps", "timeout"),
    [(10, 300, 120), pytest.param(400, 2000, 1800, marks=pytest.mark.exhaustive)],
)
def test_no_write_faults_in_random_orders(seeds: int, steps: int, timeout: float) -> None:
    first = random.SystemRandom().randrange(1 << 30)
    out = run_forked(
        PAGES
        + f"""
total = {{"stays": 0, "moves": 0}}
for seed in range({first}, {first + seeds}):
    print("seed", seed, flush=True)
    for name, count in run(seed, {steps}).items():
        total[name] += count
    gc.collect()
assert all(total.values()), total
assert tensor_bridge.testing.live_owners() == 0
print("done")
""",
        timeout=timeout,
    ).check()
    assert out.endswith("done"), out


def test_the_pages_would_tell() -> None:
    done = run_forked(
        PAGES
        + """
t = tf.fill((COUNT,), 1.0) + 0.0
x = tensor_bridge.to_torch(t, on_write="alias")
held = Held(t, 1.0)
x.add_(1)
print("written")
"""
    )
    assert done.code < 0, "the write went through"
    assert "written" not in done.out


@pytest.mark.parametrize("writes", [1200, pytest.param(1_000_000, marks=pytest.mark.exhaustive)])
def test_operations_of_tensorflow_beside_first_writes(writes: int) -> None:
    """Half of the threads run operations on tensors that the others convert and write to."""
    tensors: queue.Queue[tuple[tf.Tensor, float] | None] = queue.Queue(maxsize=16)
    writers = 4
    left = [writers]
    lock = threading.Lock()

    def write(seed: int) -> None:
        r = random.Random(seed)
        try:
            for i in range(writes // writers):
                value = float(r.randrange(1000))
                t = tf.fill((ELEMENTS,), value)
                x = tensor_bridge.to_torch(t)
                y = tensor_bridge.to_torch(t) if i % 3 == 0 else None
                if i % 2 == 0:
                    tensors.put((t, value))
                del t
                x.add_(1)
                assert bool((x == value + 1).all())
                assert y is None or bool((y == value).all())
                if i % 5 == 0:
                    u = tensor_bridge.to_tf(x)
                    x.add_(1)
                    assert bool(tf.reduce_all(u == value + 1))
        finally:
            with lock:
                left[0] -= 1
                if not left[0]:
                    for _ in range(writers):
                        tensors.put(None)

    def read() -> None:
        while (got := tensors.get(timeout=60)) is not None:
            t, value = got
            doubled = t * 2
            assert bool(tf.reduce_all(doubled == 2 * value))
            assert bool(tf.reduce_all(t == value)), "a write reached TensorFlow"

    in_threads(*[lambda i=i: write(i) for i in range(writers)], *[read] * writers, timeout=3600)


def test_asynchronous_executor_holds_what_it_has_not_read_yet() -> None:
    from tensorflow.python.eager import context as eager

    with eager.execution_mode(eager.ASYNC):
        for i in range(50):
            value = float(i)
            t = tf.fill((ELEMENTS,), value) + 0.0
            x = tensor_bridge.to_torch(t)
            sums = [tf.reduce_sum(t * float(k)) for k in range(8)]
            del t
            x.add_(1)
            assert bool((x == value + 1).all())
            assert [float(s) for s in sums] == [value * k * ELEMENTS for k in range(8)]


@pytest.mark.parametrize("threads", [2, 8])
def test_first_writes_and_shares_at_once(threads: int) -> None:
    """Each share keeps the values of the moment it was made, in any order of the threads."""
    for _ in range(60):
        x = tensor_bridge.to_torch(tf.fill((ELEMENTS,), 1.0) + 0.0)
        shares: list[tf.Tensor] = []

        def share(x: torch.Tensor = x, shares: list[tf.Tensor] = shares) -> None:
            shares.append(tensor_bridge.to_tf(x))

        in_threads(lambda x=x: x.add_(1), *[share] * (threads - 1))
        before = [tf_bytes(u) for u in shares]
        x.add_(5)
        assert [tf_bytes(u) for u in shares] == before
        assert torch_bytes(x) == torch_bytes(torch.full((ELEMENTS,), 7.0))
