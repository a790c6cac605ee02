"""collate: batches of single examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensor_bridge.composite import StringTensor
from tensor_bridge.records._record_dataset import ParsedRecords
from tensor_bridge.records._shared import in_worker, packed

__all__ = ["collate"]


def collate(examples: Sequence[Any]) -> Any:
    """Makes a batch of examples: ``DataLoader(dataset, 64, collate_fn=records.collate)``.

    Args:
      examples: The batch that a `RecordDataset` passes to a DataLoader, or a list of single
        examples, such as those of an `IterableRecordDataset` or those that a transform has changed.

    Returns:
      For a batch of a `RecordDataset`, the result of `parse_example`: the batch is parsed as a
      whole. For a list, copies: tensors of one shape and dtype are stacked, bytes and StringTensors
      of one shape become a StringTensor, Python numbers become a tensor, and dicts are collated by
      key. Other values, and tensors whose shapes differ, stay a list.
    """
    if isinstance(examples, ParsedRecords):
        parser, batch = examples.parser, examples.batch
        return parser.parse_to_share(batch) if in_worker() else parser.parse(batch)
    collated = _collated(list(examples))
    return packed(collated) if in_worker() else collated


def _collated(values: list[Any]) -> Any:
    import torch

    first = values[0]
    if isinstance(first, Mapping):
        return {key: _collated([value[key] for value in values]) for key in first}
    if isinstance(first, (bytes, bytearray)):
        return StringTensor.from_list([bytes(value) for value in values])
    if isinstance(first, StringTensor) and len({tuple(value.shape) for value in values}) == 1:
        strings = [string for value in values for string in value.reshape(-1).to_bytes()]
        return StringTensor.from_list(strings).reshape(len(values), *first.shape)
    if isinstance(first, torch.Tensor) and first.layout is torch.strided and not first.is_nested:
        if len({(value.shape, value.dtype) for value in values}) == 1:
            return torch.stack(values)
        return values
    if isinstance(first, (bool, int, float)):
        return torch.tensor(values)
    return values
