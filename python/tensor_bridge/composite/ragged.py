"""Ragged values: tf.RaggedTensor, torch's nested tensors, and `Ragged` for what those lack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _refusals
from tensor_bridge.composite._registry import (
    TO_TF,
    TO_TORCH,
    Assembly,
    Composite,
    Options,
    Part,
    Parts,
    of_parts,
    part,
    structural,
    to_dense_torch,
)
from tensor_bridge.errors import (
    MismatchError,
    UnsupportedDtypeError,
    UnsupportedTypeError,
    ValueRangeError,
)

if TYPE_CHECKING:
    import torch

__all__ = ["COMPOSITES", "Ragged", "assemble", "check_splits", "nest"]


@dataclass(frozen=True, eq=False)
class Ragged:
    """A ragged tensor as plain torch tensors: all values, and where each row begins.

    `convert_tf_to_pytorch` returns it for a tf.RaggedTensor that torch's nested tensors cannot
    express: more than one ragged dimension, a dimension of uniform length kept as a partition, or
    strings. `convert_pytorch_to_tf` makes an equal tf.RaggedTensor from it.

    Attributes:
      values: The innermost values in order: a torch.Tensor of shape ``(count, *inner)``, or a
        StringTensor.
      row_splits: One integer tensor for each partition, the outermost first. Row i of a partition
        holds the items from ``splits[i]`` up to ``splits[i + 1]`` of the next partition.
      uniform_row_lengths: For each partition, the length of its rows if TensorFlow knows that it is
        uniform, else None; all None by default.

    Example:
      >>> import torch, tensor_bridge
      >>> splits = torch.tensor([0, 2, 2]), torch.tensor([0, 1, 3])
      >>> tensor_bridge.Ragged(torch.tensor([1, 2, 3]), splits).to_list()
      [[[1], [2, 3]], []]
    """

    values: Any
    row_splits: tuple[torch.Tensor, ...]
    uniform_row_lengths: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        splits = tuple(self.row_splits)
        lengths = tuple(self.uniform_row_lengths) or (None,) * len(splits)
        if not splits or len(lengths) != len(splits):
            raise MismatchError(
                "a Ragged needs at least one tensor of row splits, and a uniform row length or "
                f"None for each; got {len(splits)} and {len(lengths)}"
            )
        object.__setattr__(self, "row_splits", splits)
        object.__setattr__(self, "uniform_row_lengths", lengths)

    @property
    def ragged_rank(self) -> int:
        """Number of partitions."""
        return len(self.row_splits)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Size of each dimension; None where it differs from row to row."""
        rows = int(self.row_splits[0].shape[0]) - 1
        return (rows, *self.uniform_row_lengths, *tuple(self.values.shape)[1:])

    def to(self, device: Any, *, non_blocking: bool = False) -> Ragged:
        """The same with all tensors on ``device``."""
        return self._with(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Ragged:
        """The same with all tensors in pinned memory."""
        return self._with(lambda x: x.pin_memory())

    def _with(self, function: Callable[[Any], Any]) -> Ragged:
        parts, make = _parts_of_ragged(self)
        made: Ragged = make([function(part) for part in parts])
        return made

    def __reduce__(self) -> Any:
        # Unpickling calls the constructor, which checks values from a file.
        return type(self), (self.values, self.row_splits, self.uniform_row_lengths)

    def to_list(self) -> list[Any]:
        """Nested Python lists of the values."""
        return nest(self.values.tolist(), [splits.tolist() for splits in self.row_splits])


def _parts_of_ragged(ragged: Ragged) -> Parts:
    def make(parts: Sequence[Any]) -> Ragged:
        values, *row_splits = parts
        return Ragged(values, tuple(row_splits), ragged.uniform_row_lengths)

    return (ragged.values, *ragged.row_splits), make


def nest(items: list[Any], row_splits: Sequence[list[int]]) -> list[Any]:
    """Lists of the items, as the partitions, the outermost first, divide them."""
    for splits in reversed(row_splits):
        items = [items[begin:end] for begin, end in pairwise(splits)]
    return items


# ---- partitions ----------------------------------------------------------------------------------


def check_splits(
    splits: torch.Tensor, count: int, uniform: int | None = None
) -> tuple[int, int] | None:
    """Checks that the rows begin at 0, follow each other and end at `count`.

    Neither framework checks this, and with wrong splits kernels of both read outside the values.

    Returns:
      Length of the shortest and of the longest row, or None if there are no rows.
    """
    if splits.dim() != 1 or splits.shape[0] == 0:
        raise MismatchError(
            f"expected row splits of shape (rows + 1,), got shape {tuple(splits.shape)}"
        )
    first, last = int(splits[0].item()), int(splits[-1].item())
    if first != 0 or last != count:
        raise ValueRangeError(
            f"expected row splits from 0 to {count}, the number of values, got {first} to {last}"
        )
    if splits.shape[0] == 1:
        return None
    shortest, longest = (int(length.item()) for length in splits.diff().aminmax())
    if shortest < 0:
        raise ValueRangeError("expected row splits in ascending order, a row has a negative length")
    if uniform is not None and (shortest, longest) != (uniform, uniform):
        raise ValueRangeError(
            f"expected rows of the uniform length {uniform}, got from {shortest} to {longest}"
        )
    return shortest, longest


def _check_partitions(
    row_splits: Sequence[torch.Tensor], uniform: Sequence[int | None], count: int
) -> tuple[int, int] | None:
    """Checks all partitions; returns the lengths of the shortest and longest innermost row."""
    lengths = None
    for i, splits in enumerate(row_splits):
        with part(f"row_splits[{i}]"):
            inner = row_splits[i + 1].shape[0] - 1 if i + 1 < len(row_splits) else count
            lengths = check_splits(splits, inner, uniform[i])
    return lengths


def _uniform_row_lengths(ragged: Any) -> list[int | None]:
    lengths: list[int | None] = []
    for _ in range(ragged.ragged_rank):
        uniform = ragged.uniform_row_length
        lengths.append(None if uniform is None else int(to_dense_torch(uniform, {}).item()))
        ragged = ragged.values
    return lengths


# ---- to torch ------------------------------------------------------------------------------------


def _nested(
    values: torch.Tensor, offsets: torch.Tensor, lengths: tuple[int, int] | None
) -> torch.Tensor:
    try:
        # nested_tensor_from_jagged() calls this too. In torch 2.13 that function logs a warning
        # about tracing, once per process, which has nothing to do with the caller.
        from torch.nested._internal.nested_tensor import nested_view_from_values_offsets as make
    except ImportError:
        from torch.nested import nested_tensor_from_jagged as make
    nested: torch.Tensor = make(values, offsets)
    if lengths is not None:
        # Without the longest length torch pads to the number of all values. Passed to make(), the
        # length would make torch import torch._dynamo (seconds) and triton, to mark it as dynamic.
        import torch

        # The properties beside it have no setter in some releases (2.6).
        for name, length in zip(("min_seqlen", "max_seqlen"), lengths, strict=True):
            nested._metadata_cache[name] = torch.zeros(length, 0)
    return nested


def _to_torch(ragged: Any, options: Options) -> Assembly:
    uniform = _uniform_row_lengths(ragged)
    splits = ragged.nested_row_splits
    where = structural(options)

    def kind() -> tuple[str, tuple[int | None, ...]]:
        count, *inner = ragged.flat_values.shape
        _check_partitions([to_dense_torch(t, {}) for t in splits], uniform, count)
        nested = _fits_torch(uniform) and ragged.dtype.name != "string"
        shape = (splits[0].shape[0] - 1, *uniform, *inner)
        return "nested tensor" if nested else "Ragged", shape

    parts: list[Part] = [("values", ragged.flat_values, options, None)]
    parts += [(f"row_splits[{i}]", t, where, None) for i, t in enumerate(splits)]
    return kind, parts, lambda made: assemble(made[0], made[1:], uniform)


def _fits_torch(uniform: Sequence[int | None]) -> bool:
    """Whether a nested tensor can express it: one ragged dimension, directly after the batch."""
    return len(uniform) == 1 and uniform[0] is None


def assemble(values: Any, row_splits: Sequence[torch.Tensor], uniform: Sequence[int | None]) -> Any:
    """Checks converted values and partitions, and makes their torch form.

    Args:
      values: A torch.Tensor, a StringTensor, or a list of bytes.
      row_splits: One tensor for each partition, the outermost first.
      uniform: For each partition the uniform length of its rows, or None.
    """
    if isinstance(values, list):  # strings="list"
        _check_partitions(row_splits, uniform, len(values))
        return nest(values, [splits.tolist() for splits in row_splits])
    lengths = _check_partitions(row_splits, uniform, int(values.shape[0]))
    if not _fits_torch(uniform) or not _C.is_torch_tensor(values):
        return Ragged(values, tuple(row_splits), tuple(uniform))
    return _nested(values, row_splits[0], lengths)


# ---- to TensorFlow -------------------------------------------------------------------------------


def _check_split_dtypes(row_splits: Sequence[torch.Tensor]) -> None:
    dtypes = {str(splits.dtype) for splits in row_splits}
    if not dtypes <= {"torch.int32", "torch.int64"}:
        raise UnsupportedDtypeError(
            f"expected row splits of dtype torch.int32 or torch.int64, got {', '.join(dtypes)}"
        )
    if len(dtypes) > 1:
        raise MismatchError(
            f"expected row splits of one dtype, got {' and '.join(sorted(dtypes))}; cast them first"
        )


def _ragged_to_tf(ragged: Ragged, options: Options) -> Assembly:
    if not getattr(ragged.values, "shape", ()):
        raise UnsupportedTypeError(
            "values: expected a torch.Tensor or StringTensor with at least one dimension, got "
            f"{ragged.values!r}"
        )
    return _partitioned(ragged.values, ragged.row_splits, ragged.uniform_row_lengths, options)


def _partitioned(
    values: Any,
    row_splits: tuple[torch.Tensor, ...],
    uniform: tuple[int | None, ...],
    options: Options,
) -> Assembly:
    """A tf.RaggedTensor; a partition of uniform length is made from the length, without splits."""
    _check_split_dtypes(row_splits)
    _check_partitions(row_splits, uniform, int(values.shape[0]))
    kept = {name: options[name] for name in ("copy", "device") if name in options}
    parts: list[Part] = [("values", values, options, None)]
    for i, splits in enumerate(row_splits):
        if uniform[i] is None:
            parts.append((f"row_splits[{i}]", splits, kept, None))

    def kind() -> tuple[str, tuple[int | None, ...]]:
        return "RaggedTensor", Ragged(values, row_splits, uniform).shape

    return kind, parts, lambda made: _build(made, row_splits, uniform)


def _build(
    parts: Sequence[Any], row_splits: Sequence[torch.Tensor], uniform: Sequence[int | None]
) -> Any:
    """A tf.RaggedTensor of converted parts: the values, and the splits of no uniform length."""
    import tensorflow as tf

    values, *converted = parts
    for i in reversed(range(len(row_splits))):
        length = uniform[i]
        if length is None:
            values = tf.RaggedTensor.from_row_splits(values, converted.pop(), validate=False)
            continue
        # TensorFlow computes the splits: with given splits it does not keep the uniform length.
        dtype = {"torch.int32": tf.int32}.get(str(row_splits[i].dtype), tf.int64)
        values = tf.RaggedTensor.from_uniform_row_length(
            values,
            tf.constant(length, dtype),
            nrows=tf.constant(row_splits[i].shape[0] - 1, dtype),
            validate=False,
        )
    return values


def _nested_to_tf(nested: Any, options: Options) -> Assembly:
    ragged_dim = next(i for i, size in enumerate(nested.shape) if not isinstance(size, int))
    if ragged_dim != 1:
        raise UnsupportedTypeError(
            "expected a nested tensor whose ragged dimension is 1, directly after the batch, got "
            f"{ragged_dim}; transpose it first: x.transpose(1, {ragged_dim})"
        )
    if nested.lengths() is not None:
        _refusals.require_copy_allowed(
            options.get("copy"), "the nested tensor has holes between its rows"
        )
        nested = nested.contiguous()
    return _partitioned(nested.values(), (nested.offsets(),), (None,), options)


def _parts_of_nested(nested: Any) -> Parts:
    names, context = nested.__tensor_flatten__()
    inner = {name: getattr(nested, name) for name in names}
    # The other two tensors have no elements; their sizes are the shortest and the longest length.
    moved = [name for name in names if name in ("_values", "_offsets", "_lengths")]

    def make(parts: Sequence[Any]) -> Any:
        inner.update(zip(moved, parts, strict=True))
        return type(nested).__tensor_unflatten__(inner, context, nested.size(), nested.stride())

    return [inner[name] for name in moved], make


def _refuse_strided(nested: Any, options: Options) -> Any:
    raise UnsupportedTypeError(
        "expected a nested tensor with jagged layout, got one with strided layout, whose rows may "
        "differ in every dimension; make it jagged first: "
        "torch.nested.as_nested_tensor(x.unbind(), layout=torch.jagged)"
    )


COMPOSITES = (
    Composite(
        name="ragged",
        tf_keys=("tensorflow.python.ops.ragged.ragged_tensor.RaggedTensor",),
        torch_keys=("tensor_bridge.composite.ragged.Ragged",),
        to_torch=of_parts(TO_TORCH, _to_torch),
        to_tf=of_parts(TO_TF, _ragged_to_tf),
        parts=_parts_of_ragged,
    ),
    Composite(
        name="nested tensor",
        torch_keys=("torch.nested._internal.nested_tensor.NestedTensor", "torch.jagged"),
        to_tf=of_parts(TO_TF, _nested_to_tf),
        parts=_parts_of_nested,
    ),
    Composite(
        name="strided nested tensor",
        torch_keys=("torch.nested",),
        to_tf=of_parts(TO_TF, _refuse_strided),
    ),
)
