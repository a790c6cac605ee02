"""The Python objects of a tf.data pipeline: their properties, and the options of a pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# Transformations in which tf.data has nothing to tune at run time.
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


# tensorflow::data::ExternalStatePolicy
_IGNORE_STATE = 1


def _kind(node: Any) -> str:
    return type(node).__name__.lstrip("_")


def walk(dataset: Any) -> Iterator[Any]:
    """Yields the dataset and all its inputs, nearest first."""
    pending, seen = [dataset], set()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        pending.extend(node._inputs())


def prepare(dataset: Any, like: Any) -> Any:
    """Returns the dataset with options that suit a reader with its own queue.

    Options that the user set stay. Otherwise TensorFlow would add its own prefetch at the end,
    which is another thread, and would measure every element to tune a pipeline that has nothing to
    tune: 5 us per element each on 2 cores.

    Args:
      dataset: The dataset to read.
      like: The pipeline from which it was made, with all of its Python objects.
    """
    import tensorflow as tf

    given = like.options()
    options = tf.data.Options()
    changed = False
    if getattr(given.experimental_optimization, "inject_prefetch", True) is None:
        options.experimental_optimization.inject_prefetch = False
        changed = True
    plain = all(_kind(node) in _PLAIN for node in walk(like))
    if plain and given.autotune.enabled is None:
        options.autotune.enabled = False
        changed = True
    return dataset.with_options(options) if changed else dataset


def _is_shuffle(node: Any) -> bool:
    return _kind(node) == "ShuffleDataset"


def reshuffles(dataset: Any) -> bool:
    """Whether a seed determines a different order for each pass."""
    unseeded = set(map(id, unseeded_shuffles(dataset)))
    return any(
        _is_shuffle(node)
        and getattr(node, "_reshuffle_each_iteration", True) is not False
        and id(node) not in unseeded
        for node in walk(dataset)
    )


def draws_once(dataset: Any) -> bool:
    """Whether a pass draws the seeds of one shuffle, once, when its iterator is made."""
    kinds = [_kind(node) for node in walk(dataset)]
    return kinds.count("ShuffleDataset") == 1 and "RepeatDataset" not in kinds


# The input that generates the seeds of each pass, by operation. It is a resource that all iterators
# of a dataset share (tensorflow/core/kernels/data/shuffle_dataset_op.cc): each iterator takes two
# numbers from it when it is made, and nothing resets it.
_SEED_GENERATOR = {"ShuffleDatasetV3": 4, "ShuffleAndRepeatDatasetV2": 5}


def _graph(dataset: Any) -> Any:
    import tensorflow as tf

    from tensor_bridge import _C

    serialized = tf.raw_ops.DatasetToGraphV2(
        input_dataset=dataset._variant_tensor, external_state_policy=_IGNORE_STATE
    )
    return tf.compat.v1.GraphDef.FromString(_C.tf_strings_list(serialized))


def operations(dataset: Any) -> set[str]:
    """Returns the names of all its operations, including those of its functions.

    Raises:
      tf.errors.OpError: As `anew`.
    """
    graph = _graph(dataset)
    functions = (node for function in graph.library.function for node in function.node_def)
    return {node.op for node in (*graph.node, *functions)}


def _from_graph(graph: Any, element_spec: Any) -> Any:
    import tensorflow as tf
    from tensorflow.python.data.ops import dataset_ops  # private; TensorFlow 2.12 to 2.21

    variant = tf.raw_ops.DatasetFromGraph(graph_def=graph.SerializeToString())
    return dataset_ops._VariantDataset(variant, element_spec)


def anew(dataset: Any) -> Any:
    """Returns the same dataset as before its first pass: its shuffles draw their first seeds.

    In TensorFlow's graph of the dataset, the generators of seeds are replaced by new ones.
    Functions, tables, caches and variables stay shared with the given dataset, which must be kept
    alive.

    Raises:
      tf.errors.OpError: The dataset has no graph, or one of more than 2 GiB.
    """
    graph = _graph(dataset)
    for number, node in enumerate(list(graph.node)):
        if node.op in _SEED_GENERATOR:
            fresh = graph.node.add(op="DummySeedGenerator", name=f"tensor_bridge_seeds_{number}")
            node.input[_SEED_GENERATOR[node.op]] = fresh.name
    return _from_graph(graph, dataset.element_spec)


def draw_seeds(dataset: Any, passes: int) -> None:
    """Draws the seeds of that many complete passes, without making an element.

    For each generator of the dataset, a dataset of one number is shuffled with it as often as the
    passes would make an iterator of that shuffle.

    Raises:
      tf.errors.OpError: As `anew`.
    """
    import tensorflow as tf

    graph = _graph(dataset)
    nodes = {node.name: node for node in graph.node}
    consumers = {name: node for node in graph.node for name in node.input}
    for node in graph.node:
        if node.op not in _SEED_GENERATOR:
            continue
        number = tf.data.Dataset.range(1)
        shuffled = _graph(number)
        result = next(n for n in shuffled.node if n.op == "_Retval")
        copies = [shuffled.node.add() for _ in node.input]
        for copy, original in zip(copies, [node, *(nodes[n] for n in node.input[1:])], strict=True):
            copy.CopyFrom(original)
            copy.name = f"tensor_bridge/{original.name}"
        copies[0].input[:] = [result.input[0], *(copy.name for copy in copies[1:])]
        result.input[0] = copies[0].name
        drawn = _from_graph(shuffled, number.element_spec)
        drawn.repeat(passes * _repetitions(node, nodes, consumers)).reduce(0, lambda i, _: i)


def _repetitions(node: Any, nodes: dict[str, Any], consumers: dict[str, Any]) -> int:
    """How many iterators of the node one complete pass makes."""
    count = 1
    while (node := consumers.get(node.name)) is not None:
        if node.op == "RepeatDataset":
            # An infinite dataset never has a second pass.
            count *= max(1, nodes[node.input[1]].attr["value"].tensor.int64_val[0])
    return count


def unseeded_shuffles(dataset: Any) -> list[Any]:
    """The shuffles without a seed, which have a different order in each process."""
    from tensor_bridge import _C

    found = []
    for node in walk(dataset):
        seeds = [getattr(node, name, None) for name in ("_seed", "_seed2")]
        if _is_shuffle(node) and all(
            _C.is_eager_tensor(seed) and int(_C.tensor_to_torch(seed).item()) == 0 for seed in seeds
        ):
            found.append(node)
    return found


def is_nondeterministic(dataset: Any) -> bool:
    """Whether some transformation has an option that lets it change the order."""
    interleaves = False
    for node in walk(dataset):
        if getattr(node, "_deterministic", None) in (False, "false"):
            return True
        interleaves |= _kind(node) == "ParallelInterleaveDataset"
    if dataset.options().deterministic is False:
        return True
    # Some datasets do not have the option.
    return interleaves and b"ParallelInterleave" in _operations_out_of_order(dataset)


def _operations_out_of_order(dataset: Any) -> bytes:
    import tensorflow as tf

    from tensor_bridge import _C

    serialized = _C.tf_strings_list(dataset._as_serialized_graph())
    graph = tf.compat.v1.GraphDef.FromString(serialized)
    names = [node.op for node in graph.node if node.attr["deterministic"].s == b"false"]
    return " ".join(names).encode()
