"""infer(): a spec proposed from the first records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tensor_bridge import _C
from tensor_bridge._options import checks_keywords
from tensor_bridge.errors import CheckpointError, RecordError
from tensor_bridge.records._batch import RecordBatch
from tensor_bridge.records._features import (
    FixedLenFeature,
    FixedLenSequenceFeature,
    SequenceFeatures,
    VarLenFeature,
)

__all__ = ["Spec", "infer", "infer_from"]

_TYPES = {1: "bytes", 2: "float32", 3: "int64"}


class Spec(dict[str, Any]):
    """A spec that prints as Python source, ready to paste."""

    def __repr__(self) -> str:
        lines = "".join(f"    {key!r}: {feature!r},\n" for key, feature in self.items())
        return f"{{\n{lines}}}" if lines else "{}"


@dataclass
class _Seen:
    """The values that records have for a key."""

    types: set[str] = field(default_factory=set)
    counts: set[int] = field(default_factory=set)
    records: int = 0


@checks_keywords
def infer(paths: Any, *, records: int = 100) -> Any:
    """Proposes a spec for the records of files.

    A key with the same number of values in every record becomes a FixedLenFeature, and every other
    key a VarLenFeature. Decoders of bytes (images, tensors) are not proposed: add ``decode=``.

    Args:
      paths: TFRecord or ArrayRecord files: a path, a pattern, a URL, or a list of them.
      records: The number of records to read.

    Returns:
      A dict of features by key, or a `SequenceFeatures` of two such dicts for SequenceExamples. It
      prints as Python source.

    Raises:
      RecordError: There are no records, they are not Examples (TensorBoard's events and
        ExampleListWithContext are other messages), or a key has values of several dtypes.
      RecordNotFoundError: A file is missing, or a pattern matches nothing.
    """
    from tensor_bridge.records._array_record import open_records
    from tensor_bridge.records._paths import expand

    first: list[bytes] = []
    for path in expand(paths):
        file = open_records(path)
        while len(first) < records and (batch := file.read(records - len(first))) is not None:
            first += batch.to_bytes()
    return infer_from(first)


def infer_from(batch: Any) -> Any:
    """Proposes a spec for records in memory, like `infer`.

    Args:
      batch: Records as for `parse_example`.
    """
    given = RecordBatch.of(batch)
    if len(given) == 0:
        raise RecordError("expected records to propose a spec from, got none")
    maps = list(_keys(given))
    lists = _collected(maps, in_lists=True)
    context = _collected(maps, in_lists=False)
    _check_message(given, context, lists)
    features = Spec((key, _feature(key, seen, len(given))) for key, seen in sorted(context.items()))
    if not lists:
        return features
    sequence = Spec(
        (key, _list_feature(key, seen, len(given))) for key, seen in sorted(lists.items())
    )
    return SequenceFeatures(features, sequence)


def _check_message(given: RecordBatch, context: dict[str, _Seen], lists: dict[str, _Seen]) -> None:
    """Refuses other messages that can be read as Examples: fields have numbers, and no names."""
    for key in context:
        name = key.encode("utf-8", "surrogateescape")
        # An entry of a map of features itself: its field 1, and after it nothing or its field 2.
        if name[:1] == b"\n" and name[1:2] and name[2 + name[1] :][:1] in (b"", b"\x12"):
            raise RecordError(
                "expected a tf.train.Example or SequenceExample, got examples within a message, "
                "as in an ExampleListWithContext of TensorFlow Ranking: parse it with its own "
                "classes, and its examples with parse_example()"
            )
    if not context and not lists and any(each not in (b"", b"\n\0") for each in given.to_bytes()):
        raise RecordError(
            "expected a tf.train.Example or SequenceExample, got records with no features, as "
            "other messages have (events of TensorBoard, for example): parse them with their own "
            "classes"
        )


def _keys(batch: RecordBatch) -> Iterator[list[tuple[bool, bytes, int, int]]]:
    for begin, size in zip(batch.begins.tolist(), batch.sizes.tolist(), strict=True):
        try:
            yield _C.example_keys(batch.address + begin, size)
        except CheckpointError as e:
            raise RecordError(str(e)) from None


def _collected(
    maps: Iterable[list[tuple[bool, bytes, int, int]]], *, in_lists: bool
) -> dict[str, _Seen]:
    found: dict[str, _Seen] = {}
    for entries in maps:
        once = set()
        for lists, name, kind, count in entries:
            if lists != in_lists:
                continue
            key = name.decode("utf-8", "surrogateescape")
            seen = found.setdefault(key, _Seen())
            if key not in once and kind:
                seen.records += 1
                once.add(key)
            if kind:
                seen.types.add(_TYPES[kind])
                seen.counts.add(count)
    return found


def _dtype(key: str, seen: _Seen) -> str:
    if len(seen.types) > 1:
        raise RecordError(
            f"feature {key!r}: expected one dtype in all records, got "
            f"{' and '.join(sorted(seen.types))}"
        )
    # All features are empty, so any dtype fits.
    return next(iter(seen.types), "bytes")


def _feature(key: str, seen: _Seen, records: int) -> Any:
    dtype = _dtype(key, seen)
    if seen.records < records or len(seen.counts) != 1 or 0 in seen.counts:
        return VarLenFeature(dtype)
    (count,) = seen.counts
    return FixedLenFeature(() if count == 1 else (count,), dtype)


def _list_feature(key: str, seen: _Seen, records: int) -> Any:
    dtype = _dtype(key, seen)
    if len(seen.counts) != 1 or 0 in seen.counts:
        return VarLenFeature(dtype)
    (count,) = seen.counts
    return FixedLenSequenceFeature(
        () if count == 1 else (count,), dtype, allow_missing=seen.records < records
    )
