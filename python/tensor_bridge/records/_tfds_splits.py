"""The splits of a TFDS data set, and the syntax of ``split=``. Not for: reading (`_tfds`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tensor_bridge import _refusals
from tensor_bridge.errors import InvalidOptionError

__all__ = ["ShardRange", "Split", "select"]


@dataclass(frozen=True)
class Split:
    """A prepared split.

    Attributes:
      name: Name of the split, for example "train".
      shard_lengths: Number of examples in each shard.
      num_bytes: Number of bytes by dataset_info.json; 0 if it does not say.
      files: File names of the shards in the folder, in order.
    """

    name: str
    shard_lengths: tuple[int, ...]
    num_bytes: int
    files: tuple[str, ...]

    @property
    def num_examples(self) -> int:
        """Number of examples in all shards."""
        return sum(self.shard_lengths)


class ShardRange(NamedTuple):
    """The examples from `begin` to `end` of a shard with `length` examples."""

    file: str
    begin: int
    end: int
    length: int


_PART = re.compile(r"(?P<name>[\w-]+)(?:\[(?P<slice>[\w%:.-]+)\])?")
_BOUND = re.compile(r"(?:(?P<number>-?[\d_.]+)(?P<unit>%|shard)?)?")


def select(spec: str, splits: Mapping[str, Split]) -> list[ShardRange]:
    """The examples that a specification selects, in order.

    Args:
      spec: TFDS' syntax: "train", "train[:10%]", "train[100:]", "train[2shard]", "a+b", "all".
      splits: The splits by name.

    Raises:
      InvalidOptionError: The specification is invalid, or names an unknown split.
    """
    if not isinstance(spec, str):
        raise InvalidOptionError(f"expected split= as str, got {_refusals.a_class(spec)}")
    if spec in splits:
        return _ranges(splits[spec], 0, splits[spec].num_examples)
    found = []
    for part in re.split(r"\s*\+\s*", spec):
        match = _PART.fullmatch(part)
        if match is None:
            raise _unknown(spec, f"got {part!r}")
        name, bounds = match["name"], match["slice"]
        if name == "all" and "all" not in splits:
            if bounds:
                raise _unknown(spec, '"all" takes no slice')
            for split in splits.values():
                found += _ranges(split, 0, split.num_examples)
            continue
        if name not in splits:
            raise InvalidOptionError(
                f"split={spec!r}: there is no split {name!r}; there are: "
                f"{', '.join(splits) or 'none'}"
            )
        split = splits[name]
        found += _ranges(split, *_bounds(spec, bounds, split))
    return found


def _unknown(spec: str, reason: str) -> InvalidOptionError:
    return InvalidOptionError(
        f"split={spec!r}: expected a split like train, train[:10%], train[100:200], train[2shard] "
        f"or train+test; {reason}"
    )


def _bounds(spec: str, text: str | None, split: Split) -> tuple[int, int]:
    """The begin and the end of a slice, with TFDS' rounding of percents."""
    total = split.num_examples
    if text is None:
        return 0, total
    bounds = [_BOUND.fullmatch(bound) for bound in text.split(":")]
    if len(bounds) > 2 or not all(bounds) or not any(b and b[0] for b in bounds):
        raise _unknown(spec, f"[{text}] is not a slice")
    found = [bound for bound in bounds if bound is not None]
    unit = found[0]["unit"] or found[-1]["unit"] or ""
    try:
        numbers = [
            None if bound["number"] is None else _number(bound["number"], unit) for bound in found
        ]
    except ValueError:
        raise _unknown(spec, f"[{text}] has other than whole numbers") from None
    if len(numbers) == 1:
        if unit != "shard" or numbers[0] is None:
            raise _unknown(spec, "a single number needs the unit shard")
        numbers.append(numbers[0] + 1)
    if unit == "%" and any(abs(number or 0) > 100 for number in numbers):
        raise _unknown(spec, "percents must be from -100 to 100")
    begin, end = numbers
    if unit == "%":
        first = 0 if begin is None else round(begin * total / 100.0)
        last = total if end is None else round(end * total / 100.0)
    elif unit == "shard":
        lengths = split.shard_lengths
        first = 0 if begin is None else sum(lengths[: int(begin)])
        if end is not None and end <= 0:
            end += len(lengths)
        last = total if end is None else sum(lengths[: int(end)])
    else:
        first = 0 if begin is None else int(begin)
        last = total if end is None else int(end)
    if abs(first) > total or abs(last) > total:
        raise _unknown(spec, f"{split.name} has {total} examples")
    return first + total * (first < 0), last + total * (last < 0)


def _number(text: str, unit: str) -> float:
    return float(text) if unit == "%" else int(text)


def _ranges(split: Split, begin: int, end: int) -> list[ShardRange]:
    found = []
    at = 0
    for file, length in zip(split.files, split.shard_lengths, strict=True):
        first, last = max(begin - at, 0), min(end - at, length)
        if first < last:
            found.append(ShardRange(file, first, last, length))
        at += length
    return found
