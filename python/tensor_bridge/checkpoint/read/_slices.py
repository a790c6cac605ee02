"""Partitioned variables: the slices of one, put together. Not for: where the slices are stored."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from tensor_bridge.errors import CheckpointError

if TYPE_CHECKING:
    import torch

Place = tuple[tuple[int, int], ...]
"""(start, length) for each axis."""


class Piece(NamedTuple):
    """A slice.

    Attributes:
      place: Where it is in the whole.
      copy: Writes its bytes to a uint8 tensor with one more axis than it, the bytes of an element.
    """

    place: Place
    copy: Callable[[torch.Tensor], None]


def place_of(extents: Sequence[int], shape: tuple[int, ...]) -> Place:
    """The place for pairs (start, length); length -1 is the whole axis."""
    pairs = itertools.zip_longest(*[iter(extents)] * 2)
    return tuple(
        (start, size if length < 0 else length)
        for (start, length), size in zip(pairs, shape, strict=True)
    )


def shape_of(place: Place) -> tuple[int, ...]:
    """The shape of a slice."""
    return tuple(length for _, length in place)


def join(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    pieces: Sequence[Piece],
    wrong: Callable[[str], CheckpointError],
) -> torch.Tensor:
    """The whole.

    Args:
      shape: Its sizes. Memory is allocated only after the slices are known to cover it.
      dtype: The dtype of the whole and of each slice.
      pieces: The slices; the caller has checked that their bytes exist.
      wrong: Makes the error for a message.

    Raises:
      CheckpointError: The slices do not cover each element exactly once.
    """
    import torch

    places = [piece.place for piece in pieces]
    # The sizes of slices are checked against the files; the size of the whole is only a claim.
    if sum(prod(shape_of(place)) for place in places) != prod(shape):
        raise wrong(f"expected slices that make up the shape {shape}, they do not")
    if not _apart(shape, places):
        raise wrong("expected slices that do not overlap, they do")
    whole = torch.empty(shape, dtype=dtype, device="cpu")
    into = whole.unsqueeze(-1).view(torch.uint8)
    for place, copy in pieces:
        copy(_inside(into, place))
    if dtype == torch.bool:
        into.clamp_(max=1)  # any byte is a bool in a file
    return whole


def _apart(shape: tuple[int, ...], places: list[Place]) -> bool:
    """Whether slices of as many elements as the whole do not overlap."""
    import torch

    split = [
        axis for axis, size in enumerate(shape) if any(place[axis] != (0, size) for place in places)
    ]
    if len(split) <= 1:
        axis = split[0] if split else 0
        # A scalar has no axis, and one slice.
        ordered = sorted(place[axis] for place in places) if shape else []
        ends = [start + length for start, length in ordered]
        return all(start == end for (start, _), end in zip(ordered, [0, *ends], strict=False))
    seen = torch.zeros(shape, dtype=torch.bool, device="cpu")
    for place in places:
        _inside(seen, place).fill_(True)
    return bool(seen.all())


def _inside(whole: torch.Tensor, place: Place) -> torch.Tensor:
    for axis, (start, length) in enumerate(place):
        whole = whole.narrow(axis, start, length)
    return whole
