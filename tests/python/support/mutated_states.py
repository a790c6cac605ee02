"""Damaged saved positions, loaded one by one in a separate process.

Reads one number per line; writes for each [the mutation, whether it must be refused], and the
outcome.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import torch

from tensor_bridge import ResumeError, TensorBridgeError
from tensor_bridge.data import TorchDataset, _state

State = dict[str, Any]
Mutation = tuple[str, bool]

PIPELINES: list[Callable[[], tf.data.Dataset]] = [
    lambda: tf.data.Dataset.range(40).shuffle(16, seed=5).map(lambda i: i * 2).batch(3).prefetch(4),
    lambda: tf.data.Dataset.range(9).map(lambda i: (i, tf.strings.as_string(i))).shuffle(4, seed=1),
    lambda: tf.data.Dataset.range(9).window(3).flat_map(lambda d: d.batch(2)),
    lambda: (
        tf.data.Dataset.from_tensor_slices(["a", "b", "c", "d"] * 3)
        .map(lambda s: {"r": tf.RaggedTensor.from_row_splits([s, s], [0, 1, 2]), "s": s})
        .prefetch(2)
    ),
    lambda: (
        tf.data.Dataset.range(12)
        .map(lambda i: tf.sparse.from_dense(tf.stack([i, tf.zeros_like(i)])))
        .shuffle(4, seed=2)
    ),
    lambda: tf.data.Dataset.from_tensor_slices(["1", "2", "x", "4", "5"]).map(tf.strings.to_number),
]


def waiting(make: Callable[[], tf.data.Dataset]) -> State:
    """The state after the first element, with elements that were made ahead."""
    dataset = TorchDataset(make(), prefetch=2)
    elements = iter(dataset)
    next(elements)
    while dataset.stats().queued < 2:
        pass  # the thread makes them
    state = dataset.state_dict()
    dataset.close()
    return state


FOREIGN = [None, True, -1, 2**31, 2**63, 10**5000, 0.5, "", "x", b"x", [], [1], {}, (), set()]


def change_field(r: random.Random, state: State) -> Mutation:
    """Another value in a field, of any type."""
    name = r.choice([name for name in state if name != "digest"])
    value = r.choice(FOREIGN)
    state[name] = value
    # None is what shard was, and a count may be large.
    good = (name == "shard" and value is None) or (name == "delivered" and value == 2**31)
    return f"{name} = {type(value)}", not good


def change_number(r: random.Random, state: State) -> Mutation:
    """A number out of range."""
    name = r.choice(["epoch", "delivered", "rank", "world_size", "version"])
    state[name] = r.choice([-1, -(2**63), 2**63, 2**64, 10**30])
    return f"{name} = {state[name]}", True


def change_fields(r: random.Random, state: State) -> Mutation:
    """Adds or removes a field."""
    name = r.choice([*state, "other"])
    if name in state:
        del state[name]
    else:
        state[name] = 1
    return f"without or with {name}", name != "digest"


def change_pending(r: random.Random, state: State) -> Mutation:
    """Changes the undelivered elements."""
    pending = [list(flat) for flat in state["pending"]]
    state["pending"], state["failed"] = pending, list(state["failed"])
    flat = r.choice(pending)
    where = r.randrange(len(flat))
    kind = r.randrange(5)
    if kind == 0:
        flat[where] = r.choice([None, 0.5, {}, object(), [None], -1])
    elif kind == 1:
        flat.append(flat[0])
    elif kind == 2:
        del flat[where]
    elif kind == 3:
        state["failed"][0] = not state["failed"][0]
    elif isinstance(flat[where], torch.Tensor):
        flat[where] = r.choice(
            [flat[where].to(torch.complex64), flat[where].to_sparse(), flat[where].to("meta")]
        )
    else:
        flat[where] = object()
    return f"pending, kind {kind}", True


def flip_bits(r: random.Random, state: State) -> Mutation:
    """Flips bits of TensorFlow's part; with a new digest it may be another valid state."""
    parts = list(state["iterator"])
    number = r.randrange(len(parts))
    part = bytearray(parts[number])
    for _ in range(r.choice([1, 1, 1, 2, 8])):
        part[r.randrange(len(part))] ^= 1 << r.randrange(8)
    parts[number] = bytes(part)
    state["iterator"] = parts
    return f"bits of part {number}", False


def cut_parts(r: random.Random, state: State) -> Mutation:
    """TensorFlow's part shorter, longer, or with a part missing."""
    parts = list(state["iterator"])
    number = r.randrange(len(parts))
    kind = r.randrange(3)
    if kind == 0:
        parts[number] = parts[number][: r.randrange(len(parts[number]))]
    elif kind == 1:
        parts[number] += r.randbytes(r.randrange(1, 9))
    else:
        parts.append(parts[number])
    state["iterator"] = parts
    return f"part {number} cut, kind {kind}", kind < 2


MUTATIONS = [change_field, change_number, change_fields, change_pending, flip_bits, cut_parts]


def outcome(make: Callable[[], tf.data.Dataset], state: State) -> str:
    """The outcome of loading the state and iterating over the rest."""
    dataset = TorchDataset(make(), prefetch=2)
    try:
        dataset.load_state_dict(state)
        for number, _ in enumerate(iter(dataset)):
            if number == 100:
                break
    except ResumeError:
        return "ResumeError"
    except TensorBridgeError:
        return "another error of ours"
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    finally:
        dataset.close()
    return "loaded"


def main() -> None:
    states = [(waiting(make), make) for make in PIPELINES]
    print("ready", flush=True)
    for line in sys.stdin:
        number = int(line)
        r = random.Random(number)
        good, make = r.choice(states)
        state = dict(good)
        mutate = r.choice(MUTATIONS)
        what, must = mutate(r, state)
        if number % 2:
            try:
                state = {**state, "digest": _state.sealed(state)["digest"]}
            except ResumeError:
                must = True
        else:
            must = True
        print(json.dumps([what, must]), flush=True)
        print(json.dumps(outcome(make, state)), flush=True)


if __name__ == "__main__":
    main()
