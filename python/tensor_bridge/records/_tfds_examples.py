"""Examples of a TFDS data set out of batches of records. Not for: their values (`_tfds_values`)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import Any

from tensor_bridge.composite import Ragged, StringTensor
from tensor_bridge.errors import RecordError
from tensor_bridge.records._batch import RecordBatch
from tensor_bridge.records._features import FixedLenSequenceFeature, RaggedFeature
from tensor_bridge.records._spec_parser import SpecParser

__all__ = ["ExampleParser"]


class ExampleParser:
    """Parses records as `SpecParser.parse_one` does, many of them at once.

    A column of sequences is parsed as a ragged one, since padding would hide the lengths.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        """Compiles a spec of FixedLenFeatures and FixedLenSequenceFeatures, as `Plan` has it."""
        self._one = SpecParser(spec)
        self._rows = {
            key: feature.shape
            for key, feature in spec.items()
            if isinstance(feature, FixedLenSequenceFeature)
        }
        ragged = {key: RaggedFeature(spec[key].dtype) for key in self._rows}
        # Rows of no values cannot be counted by the values.
        self._many = SpecParser(spec | ragged) if all(map(prod, self._rows.values())) else None

    def parse(self, batch: RecordBatch) -> Iterator[dict[str, Any]]:
        """Yields the features of each record.

        Raises:
          RecordError: As `SpecParser.parse_one`, after yielding the records before the wrong one.
        """
        if len(batch) > 1 and self._many is not None:
            try:
                columns = self._many.parse(batch)
                values = [self._split(key, column) for key, column in columns.items()]
            except RecordError:
                pass  # parse one by one, so that the records before the wrong one are delivered
            else:
                for each in zip(*values, strict=True):
                    yield dict(zip(columns, each, strict=True))
                return
        for i in range(len(batch)):
            yield self._one.parse_one(batch[i : i + 1])

    def _split(self, key: str, column: Any) -> Any:
        shape = self._rows.get(key)
        if shape is None:
            return _split(column)
        if isinstance(column, Ragged):
            values, splits = column.values, column.row_splits[0].tolist()
        else:
            values, splits = column.values(), column.offsets().tolist()
        size = prod(shape)
        if any(end % size for end in splits):
            raise RecordError(f"feature {key!r}: expected a multiple of {size} values")
        return [
            values[begin:end].reshape((end - begin) // size, *shape)
            for begin, end in pairwise(splits)
        ]


def _split(column: Any) -> Any:
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
