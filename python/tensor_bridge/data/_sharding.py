"""The part of a dataset that a rank gets."""

from __future__ import annotations

from typing import Any

from tensor_bridge.data import _pipeline
from tensor_bridge.errors import InvalidOptionError

POLICIES = ("auto", "file", "data", "all")

# Operations that read files whose names are elements of their input.
_READERS = (
    "TFRecordDataset",
    "TextLineDataset",
    "FixedLengthRecordDataset",
    "SSTableDataset",
    "CSVDataset",
)


def _distributed() -> Any | None:
    """torch.distributed, if it is initialised."""
    import torch

    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed
    return None


def world() -> Any | None:
    """The group of all ranks, an object that lives as long as the world; None without a world."""
    distributed = _distributed()
    return None if distributed is None else distributed.group.WORLD


def check_place(rank: int | None, world_size: int | None) -> tuple[int, int] | None:
    """The rank and world size that the caller gave; None if torch.distributed decides.

    Raises:
      InvalidOptionError: Only one is given, or the rank is not in the world.
    """
    if rank is None and world_size is None:
        return None
    if rank is None or world_size is None:
        raise InvalidOptionError("give both rank and world_size, or neither")
    if not 0 <= rank < world_size:
        raise InvalidOptionError(
            f"expected a rank from 0 to world_size - 1, got rank {rank} of {world_size}"
        )
    return rank, world_size


def worker() -> tuple[int, int]:
    """The number of this worker of a DataLoader, and of workers; (0, 1) in another process."""
    from torch.utils.data import get_worker_info

    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)


def place() -> tuple[int, int]:
    """The current (rank, world size) of torch.distributed; (0, 1) if it is not initialised."""
    distributed = _distributed()
    return (0, 1) if distributed is None else (distributed.get_rank(), distributed.get_world_size())


def known_place() -> tuple[int, int] | None:
    """As `place`; None if torch.distributed is not initialised."""
    return None if _distributed() is None else place()


def check_policy(policy: Any) -> str | None:
    """Checks and returns the value of ``shard=``.

    Raises:
      InvalidOptionError: It is neither None nor a policy.
    """
    if policy is not None and policy not in POLICIES:
        raise InvalidOptionError(f"shard must be None or one of {POLICIES}, got {policy!r}")
    return None if policy is None else str(policy)


def shard(dataset: Any, like: Any, policy: str, rank: int, world_size: int) -> tuple[Any, str]:
    """Returns the rank's part of the dataset, and the policy that was used ("file" or "data").

    Args:
      dataset: The dataset to shard.
      like: The pipeline from which it was made, with all of its Python objects.
      policy: "auto", "file" or "data".
      rank: From 0.
      world_size: Number of ranks.

    Raises:
      InvalidOptionError: The ranks would not see the same order, so some elements would reach two
        ranks and others none; or there are no files to shard by.
    """
    files = _source_of_files(like)
    if policy == "auto":
        count = None if files is None else _cardinality(files)
        policy = "file" if count is not None and count >= world_size else "data"
    if policy == "file":
        if files is None:
            raise InvalidOptionError(
                "shard='file', but no reader of files was found in the dataset; use shard='data'"
            )
        _check_order(files)
        return _by_file(dataset, rank, world_size), policy
    _check_order(like)
    if _pipeline.is_nondeterministic(like):
        raise InvalidOptionError(
            "shard='data' gives each rank every world_size-th element, but the dataset may change "
            "its order (deterministic=False), differently on each rank; leave deterministic=False "
            "out, or shard by file"
        )
    import tensorflow as tf

    options = tf.data.Options()
    options.deterministic = True
    return dataset.with_options(options).shard(world_size, rank), policy


def _check_order(dataset: Any) -> None:
    if _pipeline.unseeded_shuffles(dataset):
        raise InvalidOptionError(
            "the dataset is shuffled without a seed before it is sharded, so each rank would see "
            "another order: some elements would reach two ranks and others none. Give "
            "shuffle(..., seed=...) and list_files(..., seed=...) the same seed on each rank, call "
            "tf.random.set_seed() first, or shard the dataset yourself (shard=None)"
        )


def _reads_files(node: Any) -> bool:
    name = type(node).__name__
    if any(reader in name for reader in _READERS):
        return True
    for function in node._functions():
        graph = function.function.graph.as_graph_def()
        nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
        if any(n.op.startswith(_READERS) for n in nodes):
            return True
    return False


def _source_of_files(dataset: Any) -> Any | None:
    """The dataset of the file names that the first reader reads, or None."""
    reader = None
    for node in _pipeline.walk(dataset):
        if _reads_files(node):
            reader = node
    if reader is None:
        return None
    inputs = reader._inputs()
    # A TFRecordDataset that is made from names keeps them as a separate dataset.
    return inputs[0] if inputs else getattr(reader, "_filenames", None)


def _cardinality(dataset: Any) -> int | None:
    if not hasattr(dataset, "cardinality"):
        shape = getattr(dataset, "shape", None)
        return None if shape is None or shape.rank != 1 else int(shape[0])
    from tensor_bridge import _C

    count = int(_C.tensor_to_torch(dataset.cardinality()).item())
    return None if count < 0 else count


def _by_file(dataset: Any, rank: int, world_size: int) -> Any:
    import tensorflow as tf

    # Private; TensorFlow 2.12 to 2.21.
    from tensorflow.python.data.experimental.ops import distribute

    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.FILE
    return distribute._AutoShardDataset(dataset.with_options(options), world_size, rank)


def equal_length(dataset: Any, policy: str, world_size: int) -> int | None:
    """Returns how many elements every rank has, if that is known without communication.

    Args:
      dataset: The dataset before sharding.
      policy: "data" or "file".
      world_size: Number of ranks.
    """
    count = _cardinality(dataset)
    return None if count is None or policy != "data" else count // world_size


def agree(more: bool) -> bool:
    """Whether every rank has one more element.

    Raises:
      InvalidOptionError: torch.distributed is not initialised.
    """
    import torch

    distributed = _distributed()
    if distributed is None:
        raise InvalidOptionError(
            "equal_steps=True needs torch.distributed here: the number of elements of each rank is "
            "not known before. Initialise it, use shard='data' on a dataset with a cardinality "
            "(ds.assert_cardinality), or leave equal_steps out"
        )
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    flag = torch.tensor(int(more), device=device)
    distributed.all_reduce(flag, op=distributed.ReduceOp.MIN)
    return bool(flag.item())
