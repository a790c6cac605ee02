"""A pass over a loader that accelerate has prepared."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from functools import cache
from types import FrameType
from typing import Any

from tensor_bridge.data._device import Mover


def iterates(*kinds: str) -> bool:
    """Whether one of accelerate's classes of these names asks for the elements."""
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
    """Whether accelerate gives each rank its part of what is asked for.

    transformers' Trainer does so through accelerate.
    """
    return iterates("IterableDatasetShard", "DataLoaderDispatcher")


def device() -> Any | None:
    """Where accelerate trains; None for the host, where elements are anyway."""
    from accelerate.state import AcceleratorState

    place = AcceleratorState().device
    return None if place.type == "cpu" else place


def announced(elements: Mover) -> Iterator[Any]:
    """The elements; accelerate is told which one is the last, as by its own loaders.

    It takes an optimizer step there, however many were to be accumulated.
    """
    iterator: Iterator[Any] = _announced_class()(elements)
    return iterator


@cache
def _announced_class() -> type[Any]:
    from accelerate.data_loader import DataLoaderStateMixin
    from accelerate.state import GradientState

    class Announced(DataLoaderStateMixin):  # type: ignore[misc]
        _drop_last = True  # no element is added to the last batch, so none is to be taken away

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
