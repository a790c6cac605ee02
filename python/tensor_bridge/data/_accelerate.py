"""A pass over a loader that accelerate has prepared."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from functools import cache
from types import FrameType
from typing import Any

from tensor_bridge.data._device import Mover
from tensor_bridge.errors import InvalidOptionError


def iterates(*kinds: str) -> bool:
    """Whether an accelerate class with one of these names asks for the elements."""
    if "accelerate" not in sys.modules:
        return False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        its_own = frame.f_globals.get("__name__") == "accelerate.data_loader"
        if its_own and type(frame.f_locals.get("self")).__name__ in kinds:
            return True
        frame = frame.f_back
    return False


def shares_out() -> bool:
    """Whether accelerate gives each rank its part of the elements; transformers' Trainer does."""
    return iterates("IterableDatasetShard", "DataLoaderDispatcher")


def refuse_shared_twice(remedy: str) -> None:
    """Refuses a dataset that gives each rank a part, if accelerate shares it out.

    Args:
      remedy: What else to do than leave shard= and rank= out.

    Raises:
      InvalidOptionError: accelerate asks for the elements, and gives each rank its part of them.
    """
    if shares_out():
        raise InvalidOptionError(
            "accelerate gives each rank its part of what a dataset yields, and shard= or rank= "
            "gave this one a part already, so that some elements would reach no rank. Leave them "
            f"out{remedy}"
        )


def device() -> Any | None:
    """The device on which accelerate trains; None for the host, where elements already are."""
    from accelerate.state import AcceleratorState

    place = AcceleratorState().device
    return None if place.type == "cpu" else place


def announced(elements: Mover) -> Iterator[Any]:
    """The elements; accelerate is told which is the last, as its own loaders tell it.

    At the last element it takes an optimizer step, even before enough gradients are accumulated.
    """
    iterator: Iterator[Any] = _announced_class()(elements)
    return iterator


@cache
def _announced_class() -> type[Any]:
    from accelerate.data_loader import DataLoaderStateMixin
    from accelerate.state import GradientState

    class Announced(DataLoaderStateMixin):  # type: ignore[misc]
        _drop_last = True  # nothing is added to the last batch, so nothing has to be removed

        def __init__(self, elements: Mover) -> None:
            self._elements = elements
            self.gradient_state = GradientState()
            self.begin()

        def __iter__(self) -> Iterator[Any]:
            return self

        def __next__(self) -> Any:
            try:
                element = next(self._elements)
            except StopIteration:
                self.end()
                raise
            self.end_of_dataloader = self._elements.delivered_last
            return element

        def __del__(self) -> None:
            self.end()

    return Announced


def is_alone() -> bool:
    """Whether accelerate trains in one process only."""
    from accelerate.state import PartialState

    return int(PartialState().num_processes) == 1


def tell_of_files() -> None:
    """Warns that `save_state` leaves out the positions of ranks."""
    warnings.warn(
        "accelerate's save_state() and load_state() leave the position of this loader out on "
        "several ranks, of which each would write to the same file. Save loader.state_dict() of "
        "each rank in a file of its own",
        stacklevel=4,
    )
