"""Large strings in torch: memory that was given back is used again, by one value at a time."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import tensorflow as tf
import torch
from fresh import run_forked
from needs import shares_to_tf

import tensor_bridge
from tensor_bridge.testing import shares_memory, torch_data_address

# Above malloc's threshold for mapping, so that a block is kept.
LARGE = (32 << 20) + 4096


def made(generation: int, size: int = LARGE) -> torch.Tensor:
    """Bytes of a string in which each has the value of its generation."""
    part = tf.constant(bytes([generation]) * 4096)
    rest = bytes([generation]) * (size % 4096)
    return tensor_bridge.to_torch(tf.concat([tf.fill([size // 4096], part), [rest]], 0)).bytes


def alone(x: torch.Tensor) -> tuple[Any, ...]:
    return (x,)


def part(x: torch.Tensor) -> tuple[Any, ...]:
    return (x[4096:-4096],)


def array(x: torch.Tensor) -> tuple[Any, ...]:
    return (x.numpy(),)


def in_tensorflow(x: torch.Tensor) -> tuple[Any, ...]:
    return (tensor_bridge.to_tf(x),)


def in_both(x: torch.Tensor) -> tuple[Any, ...]:
    return (x, tensor_bridge.to_tf(x))


def moved(x: torch.Tensor) -> tuple[Any, ...]:
    shared = tensor_bridge.to_tf(x)
    x.add_(0)
    return (x, shared)


def round_trip(x: torch.Tensor) -> tuple[Any, ...]:
    return (tensor_bridge.to_torch(tensor_bridge.to_tf(x)),)


HOLDERS: tuple[Callable[[torch.Tensor], tuple[Any, ...]], ...] = (
    alone,
    part,
    array,
    in_tensorflow,
    in_both,
    moved,
    round_trip,
)


def wrong(held: Mapping[int, tuple[Any, ...]]) -> Iterator[int]:
    """The generations whose values are not theirs, in a byte of each page."""
    for generation, values in held.items():
        for value in values:
            x = tensor_bridge.to_torch(value) if isinstance(value, tf.Tensor) else value
            if not bool((torch.as_tensor(x)[::2048] == generation).all()):
                yield generation


def test_memory_that_was_given_back_is_used_again() -> None:
    address = torch_data_address(made(1))
    x = made(2)
    assert torch_data_address(x) == address
    y = made(3)
    assert torch_data_address(y) != address, "it has one owner"
    assert not list(wrong({2: (x,), 3: (y,)}))


@pytest.mark.parametrize("seed", range(2))
def test_no_live_value_shows_a_later_generation(seed: int) -> None:
    draw = random.Random(seed)
    held: dict[int, tuple[Any, ...]] = {}
    addresses = set()
    for generation in range(1, 17):
        x = made(generation, LARGE + draw.choice([0, 0, 0, 4096, 1 << 20]))
        addresses.add(torch_data_address(x))
        held[generation] = draw.choice(HOLDERS)(x)
        del x
        while len(held) > draw.randrange(4):
            del held[draw.choice(list(held))]
        assert not list(wrong(held))
    assert len(addresses) < 14, "none of it was used again, so this searched nothing"


def test_that_search_finds_a_value_in_the_memory_of_another() -> None:
    x = made(1)
    assert list(wrong({1: alone(x), 2: part(x)})) == [2]


def test_threads_that_give_back_and_take() -> None:
    failures: list[int] = []

    def convert(first: int) -> None:
        for generation in range(first, first + 4):
            x = made(generation)
            failures.extend(wrong({generation: (x,)}))

    threads = [threading.Thread(target=convert, args=(first,)) for first in (1, 50, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@shares_to_tf
def test_it_is_shared_and_protected_as_torchs_own_memory() -> None:
    x = made(1)
    t = tensor_bridge.to_tf(x)
    assert shares_memory(t, x)
    x.fill_(2)
    assert not shares_memory(t, x)
    assert not list(wrong({1: (t,), 2: (x,)}))


@shares_to_tf
def test_an_array_over_it_is_seen() -> None:
    x = made(1)
    kept = x.numpy()
    t = tensor_bridge.to_tf(x)
    assert not shares_memory(t, x)
    x.fill_(2)
    assert kept[0] == 2
    assert not list(wrong({1: (t,)}))


def test_it_is_an_ordinary_storage() -> None:
    x = made(1)
    assert x.untyped_storage().nbytes() == LARGE
    x.resize_(LARGE + 10)
    assert not list(wrong({1: (x[:LARGE],)}))
    y = made(2).share_memory_()
    assert y.is_shared()
    assert not list(wrong({1: (x[:LARGE],), 2: (y,)}))
    gc.collect()


IN_A_PROCESS = """
import tensorflow as tf, tensor_bridge

def field(file, name):
    with open(f"/proc/self/{file}") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

def convert(mib):
    tensor_bridge.to_torch(tf.constant([b"x" * (mib << 20)]))
"""


def test_the_system_may_take_what_waits() -> None:
    run_forked(
        f"""{IN_A_PROCESS}
convert(34)
assert field("smaps_rollup", "LazyFree") > 30 << 20
"""
    ).check()


def test_a_block_that_does_not_fit_is_released() -> None:
    run_forked(
        f"""{IN_A_PROCESS}
convert(34)
before = field("status", "VmRSS")
convert(160)
convert(34)
assert field("status", "VmRSS") - before < 40 << 20
"""
    ).check()
