"""Batches of our own value classes: the functions that torch's `default_collate` calls for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tensor_bridge.composite.ragged import Ragged
from tensor_bridge.composite.string import StringTensor
from tensor_bridge.errors import MismatchError

if TYPE_CHECKING:
    import torch

_REMEDY = "give the DataLoader a collate_fn= that says what their batch is"


def _one(what: str, found: Sequence[Any]) -> Any:
    """The one value that all items of a batch share.

    Raises:
      MismatchError: They differ.
    """
    for each in found[1:]:
        if each != found[0]:
            raise MismatchError(f"expected {what} in a batch, got {found[0]} and {each}; {_REMEDY}")
    return found[0]


def _joined_splits(splits: Sequence[torch.Tensor]) -> torch.Tensor:
    """The row splits of the concatenated values."""
    import torch

    _one("row splits of one dtype", [each.dtype for each in splits])
    lengths = torch.cat([each.diff() for each in splits])
    return torch.nn.functional.pad(lengths.cumsum(0, dtype=splits[0].dtype), (1, 0))


def _joined_strings(strings: Sequence[StringTensor], shape: Sequence[int]) -> StringTensor:
    import torch

    data = [each.bytes[int(each.offsets[0]) : int(each.offsets[-1])] for each in strings]
    offsets = _joined_splits([each.offsets for each in strings])
    return StringTensor(torch.cat(data), offsets, torch.Size(shape))


def _strings(batch: Sequence[StringTensor], *, collate_fn_map: Any = None) -> StringTensor:
    """A StringTensor with a leading dimension for the batch.

    Raises:
      MismatchError: Their shapes differ.
    """
    shape = _one("StringTensors of one shape", [tuple(each.shape) for each in batch])
    return _joined_strings(batch, (len(batch), *shape))


def _joined_values(values: Sequence[Any]) -> Any:
    import torch

    _one("Raggeds with values of one kind", [type(each).__name__ for each in values])
    inner = _one("Raggeds of one inner shape", [tuple(each.shape[1:]) for each in values])
    if isinstance(values[0], StringTensor):
        return _joined_strings(values, (sum(map(len, values)), *inner))
    _one("Raggeds of one dtype", [each.dtype for each in values])
    return torch.cat(list(values))


def _raggeds(batch: Sequence[Ragged], *, collate_fn_map: Any = None) -> Ragged:
    """A Ragged with one more partition, whose rows are the given values, as in `tf.ragged.stack`.

    Raises:
      MismatchError: They differ in more than the lengths of rows.
    """
    import torch

    _one("Raggeds of one ragged rank", [each.ragged_rank for each in batch])
    first = batch[0].row_splits[0]
    counts = [0, *(int(each.row_splits[0].shape[0]) - 1 for each in batch)]
    rows = torch.tensor(counts, device=first.device).cumsum(0).to(first.dtype)
    splits = zip(*(each.row_splits for each in batch), strict=True)
    lengths = (set(each) for each in zip(*(r.uniform_row_lengths for r in batch), strict=True))
    return Ragged(
        _joined_values([each.values for each in batch]),
        (rows, *map(_joined_splits, splits)),
        (None, *(each.pop() if len(each) == 1 else None for each in lengths)),
    )


COLLATE: dict[type, Callable[..., Any]] = {StringTensor: _strings, Ragged: _raggeds}
"""For each class, the function that makes a batch from a list of its values."""
