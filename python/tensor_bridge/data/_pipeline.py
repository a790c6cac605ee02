"""The Python objects of a tf.data pipeline: what they tell, and the options of a pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["is_nondeterministic", "prepare", "reshuffles", "unseeded_shuffles", "walk"]

# Transformations without anything that tf.data could tune while it runs.
_PLAIN = frozenset(
    f"{name}Dataset"
    for name in (
        [
            "Batch",
            "Cache",
            "Options",
            "Range",
            "Repeat",
            "Shard",
            "Shuffle",
            "Skip",
            "Take",
            "Tensor",
            "TensorSlice",
        ]
    )
)


def _kind(node: Any) -> str:
    return type(node).__name__.lstrip("_")


def walk(dataset: Any) -> Iterator[Any]:
    """The dataset and everything that it is made of, nearest first."""
    pending, seen = [dataset], set()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        pending.extend(node._inputs())


def prepare(dataset: Any) -> Any:
    """The dataset with the options that suit being drained by our own queue.

    What the user set stays. TensorFlow would add a prefetch of its own at the end, another thread
    between the pipeline and ours, and would watch every element to tune a pipeline that has nothing
    to tune: 5 us an element each on 2 cores.
    """
    import tensorflow as tf

    given = dataset.options()
    options = tf.data.Options()
    changed = False
    if getattr(given.experimental_optimization, "inject_prefetch", True) is None:
        options.experimental_optimization.inject_prefetch = False
        changed = True
    plain = all(_kind(node) in _PLAIN for node in walk(dataset))
    if plain and given.autotune.enabled is None:
        options.autotune.enabled = False
        changed = True
    return dataset.with_options(options) if changed else dataset


def _is_shuffle(node: Any) -> bool:
    return _kind(node) == "ShuffleDataset"


def reshuffles(dataset: Any) -> bool:
    """Whether the order may change from one pass to the next."""
    return any(
        _is_shuffle(node) and getattr(node, "_reshuffle_each_iteration", True) is not False
        for node in walk(dataset)
    )


def unseeded_shuffles(dataset: Any) -> list[Any]:
    """The shuffles whose order nobody chose: another one in each process."""
    from tensor_bridge import _C

    found = []
    for node in walk(dataset):
        seeds = [getattr(node, name, None) for name in ("_seed", "_seed2")]
        if _is_shuffle(node) and all(
            _C.is_eager_tensor(seed) and int(_C.convert_tensor(seed).item()) == 0 for seed in seeds
        ):
            found.append(node)
    return found


def is_nondeterministic(dataset: Any) -> bool:
    """Whether some transformation was told that it may change the order."""
    interleaves = False
    for node in walk(dataset):
        if getattr(node, "_deterministic", None) in (False, "false"):
            return True
        interleaves |= _kind(node) == "ParallelInterleaveDataset"
    if dataset.options().deterministic is False:
        return True
    # The objects of this one kind do not tell.
    return interleaves and b"ParallelInterleave" in _operations_out_of_order(dataset)


def _operations_out_of_order(dataset: Any) -> bytes:
    import tensorflow as tf

    from tensor_bridge import _C

    serialized = _C.tf_strings_list(dataset._as_serialized_graph())
    graph = tf.compat.v1.GraphDef.FromString(serialized)
    names = [node.op for node in graph.node if node.attr["deterministic"].s == b"false"]
    return " ".join(names).encode()
