"""singles(): the single examples of a batch, parsed together where possible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tensor_bridge.composite import StringTensor
from tensor_bridge.errors import RecordError
from tensor_bridge.records._batch import RecordBatch
from tensor_bridge.records._features import FixedLenFeature, as_feature
from tensor_bridge.records._spec_parser import SpecParser

__all__ = ["singles", "split"]


def singles(parser: SpecParser, batch: RecordBatch) -> Iterator[Any]:
    """Yields the result of ``parser.parse_one`` for each record.

    If every value has the same shape in all records, the batch is parsed as a whole and the
    examples are views of its columns, which takes a fraction of the time.

    Raises:
      RecordError: As `SpecParser.parse_one`, after yielding the records before the wrong one.
    """
    if parser.spec is None:
        yield from batch.to_bytes()
        return
    if len(batch) > 1 and _has_fixed_shapes(parser.spec):
        try:
            columns = parser.parse(batch)
        except RecordError:
            pass  # parse one by one, so that the records before the wrong one are delivered
        else:
            keys = tuple(columns)
            for values in zip(*map(split, columns.values()), strict=True):
                yield dict(zip(keys, values, strict=True))
            return
    for number in range(len(batch)):
        yield parser.parse_one(batch[number : number + 1])


def _has_fixed_shapes(spec: Any) -> bool:
    if not isinstance(spec, Mapping):
        return False
    features = [as_feature(given, key) for key, given in spec.items()]
    return all(isinstance(each, FixedLenFeature) and each.decode is None for each in features)


def split(column: Any) -> Any:
    """The values of each record."""
    if not isinstance(column, StringTensor):
        return column.unbind(0)
    shape = column.shape[1:]
    count = shape.numel()
    if not count:
        return [column.reshape(-1).reshape(shape)] * column.shape[0]
    # Each record's offsets, counted from its first byte.
    offsets = column.offsets.unfold(0, count + 1, count)
    own = offsets - offsets[:, :1]
    parts = column.bytes.split(own[:, -1].tolist())
    return [
        StringTensor._unchecked(data, where, shape)
        for data, where in zip(parts, own.unbind(0), strict=True)
    ]
