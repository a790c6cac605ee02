"""singles(): the single examples of a batch, parsed together where possible."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tensor_bridge.records._batch import RecordBatch
from tensor_bridge.records._spec_parser import SpecParser

__all__ = ["singles"]

# As many as a processor's cache holds with their tensors.
_AT_ONCE = 16


def singles(parser: SpecParser, batch: RecordBatch) -> Iterator[Any]:
    """Yields the result of ``parser.parse_one`` for each record.

    Raises:
      RecordError: As `SpecParser.parse_one`, after yielding the records before the wrong one.
    """
    if parser.spec is None:
        yield from batch.to_bytes()
        return
    at, count = 0, len(batch)
    while at < count:
        end = min(at + _AT_ONCE, count)
        made = parser.singles(batch, at, end)
        yield from made
        at += len(made)
        if at < end:  # the next one is wrong, or more than its columns
            yield parser.parse_one(batch[at : at + 1])
            at += 1
