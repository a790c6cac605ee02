"""Partitions of ragged values, from which `RaggedFeature` makes rows.

All records of a batch are partitioned at once. Each of the six kinds of partition is reduced to the
lengths of the rows. The lengths are checked for each record. TensorFlow only checks that they cover
the values of the whole batch, so that a row may take the values of another record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tensor_bridge.composite import ragged
from tensor_bridge.errors import RecordError
from tensor_bridge.records._features import RaggedFeature

if TYPE_CHECKING:
    import torch

__all__ = ["Values", "assembled", "finished", "partitioned"]


@dataclass
class Values:
    """The values of a batch, and their division into rows.

    Attributes:
      values: All values, a torch.Tensor or StringTensor.
      counts: The number of items in each record, int64. An item is a row of the outermost `splits`,
        or a value without splits.
      splits: Row splits inside the records, the outermost first.
      uniform: For each of `splits` the uniform length of its rows, or None.
    """

    values: Any
    counts: torch.Tensor
    splits: list[torch.Tensor]
    uniform: list[int | None]


def _splits_of(lengths: torch.Tensor) -> torch.Tensor:
    """The row splits of rows of these lengths, of the same dtype."""
    import torch

    splits = torch.zeros(lengths.shape[0] + 1, dtype=lengths.dtype, device="cpu")
    torch.cumsum(lengths, 0, out=splits[1:])
    return splits


def partitioned(values: Values, partition: Any, column: Values | None, key: str) -> Values:
    """Returns `values` with one more partition, outside those that it has.

    Args:
      values: The values to divide.
      partition: A partition of one of the six kinds.
      column: The values of the partition's feature; None for UniformRowLength.
      key: Key of the feature, for errors.

    Raises:
      RecordError: A record's partition does not divide its values.
    """
    if column is None:
        return _uniform(values, partition.length, key)
    lengths, rows = _LENGTHS[type(partition)](column.values, column.counts, values.counts)
    _check(lengths, rows, values.counts, f"{key!r}: {type(partition).__name__}")
    return Values(
        values.values, rows, [_splits_of(lengths), *values.splits], [None, *values.uniform]
    )


def _uniform(values: Values, length: int, key: str) -> Values:
    if bool((values.counts % length).any()):
        raise RecordError(
            f"feature {key!r}: expected a multiple of {length} items in each record, for rows of "
            "uniform length; the number in a record is not a multiple"
        )
    rows = values.counts // length
    if values.splits:
        import torch

        splits = torch.arange(int(rows.sum()) + 1, dtype=torch.int64, device="cpu") * length
        return Values(values.values, rows, [splits, *values.splits], [length, *values.uniform])
    inner = tuple(values.values.shape)[1:]
    count = int(values.values.shape[0]) // length
    return Values(values.values.reshape(count, length, *inner), rows, [], [])


# Each takes three things: the partition's numbers, the count of them in each record, and the count
# of items in each record. It returns the lengths of all rows, and the count of rows in each record.
_Lengths = Callable[
    ["torch.Tensor", "torch.Tensor", "torch.Tensor"], "tuple[torch.Tensor, torch.Tensor]"
]


def _row_lengths(numbers: Any, counts: Any, items: Any) -> Any:
    return numbers, counts


def _row_limits(numbers: Any, counts: Any, items: Any) -> Any:
    return numbers - _before(numbers, counts), counts


def _row_starts(numbers: Any, counts: Any, items: Any) -> Any:
    # A row ends where the next one begins, and the last row ends with the record's items. If the
    # first row does not begin at 0, the lengths do not add up to the items, which _check() refuses.
    ends = numbers.roll(-1)
    last = counts.cumsum(0)[counts > 0] - 1
    ends[last] = items[counts > 0]
    return ends - numbers, counts


def _row_splits(numbers: Any, counts: Any, items: Any) -> Any:
    import torch

    lengths = numbers - _before(numbers, counts)
    first = (counts.cumsum(0) - counts)[counts > 0]
    if bool(numbers[first].any()):
        lengths = lengths.clone()
        lengths[first] = -1  # the first split must be 0; _check() refuses a negative length
        return lengths, counts
    kept = torch.ones(numbers.shape[0], dtype=torch.bool, device="cpu")
    kept[first] = False
    return lengths[kept], (counts - 1).clamp(min=0)


def _value_rowids(numbers: Any, counts: Any, items: Any) -> Any:
    import torch

    record = torch.repeat_interleave(counts)
    falls = (numbers < _before(numbers, counts)) | (numbers < 0)
    if bool(falls.any()) or not torch.equal(counts, items):
        return torch.full((1,), -1, dtype=torch.int64), counts
    rows = torch.zeros_like(counts)
    last = (counts.cumsum(0) - 1)[counts > 0]
    rows[counts > 0] = numbers[last] + 1
    begins = rows.cumsum(0) - rows
    total = int(rows.sum())
    # A damaged id may be any number, because rows without values take no bytes in the record.
    if total > _MAX_ROWS + 8 * numbers.shape[0]:
        raise RecordError(f"ValueRowIds: expected fewer rows for so few values, got {total}")
    return torch.bincount(numbers + begins[record], minlength=total), rows


_MAX_ROWS = 1 << 24
_LENGTHS: dict[type, _Lengths] = {
    RaggedFeature.RowLengths: _row_lengths,
    RaggedFeature.RowLimits: _row_limits,
    RaggedFeature.RowStarts: _row_starts,
    RaggedFeature.RowSplits: _row_splits,
    RaggedFeature.ValueRowIds: _value_rowids,
}


def _before(numbers: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """For each number the previous number in its record; 0 for the first number."""
    before = numbers.roll(1)
    before[(counts.cumsum(0) - counts)[counts > 0]] = 0
    return before


def _check(lengths: Any, rows: Any, items: Any, what: str) -> None:
    import torch

    good = not lengths.numel() or int(lengths.min()) >= 0
    if good:
        record = torch.repeat_interleave(rows)
        sums = torch.zeros_like(items).index_add_(0, record, lengths)
        good = torch.equal(sums, items)
    if not good:
        raise RecordError(
            f"feature {what}: expected a partition that divides the values of each record; the "
            "partition of a record does not"
        )


def finished(values: Values, outer: Sequence[torch.Tensor], dtype: str) -> Any:
    """Returns the value in the form that `to_torch` returns for a tf.RaggedTensor.

    Args:
      values: The values of a batch.
      outer: Row splits outside the records, if records have rows.
      dtype: Dtype of the row splits, "int32" or "int64".
    """
    splits = [*outer, _splits_of(values.counts), *values.splits]
    uniform = [None] * (len(splits) - len(values.splits)) + values.uniform
    return assembled(values.values, splits, uniform, dtype)


def assembled(
    values: Any, splits: Sequence[torch.Tensor], uniform: Sequence[int | None], dtype: str
) -> Any:
    """Like `finished`, from row splits. Without row splits it returns the values."""
    import torch

    if not splits:
        return values
    if dtype == "int32":
        if max(int(s[-1]) for s in splits) > 2**31 - 1:
            raise RecordError(
                'expected fewer than 2**31 values; use row_splits_dtype="int64" for so many'
            )
        splits = [s.to(torch.int32) for s in splits]
    return ragged.assemble(values, splits, uniform)
