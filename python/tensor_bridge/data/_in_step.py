"""Passes of several ranks that end together."""

from __future__ import annotations

from typing import Any

from tensor_bridge.data import _sharding
from tensor_bridge.data._elements import Elements
from tensor_bridge.data._process import OfOneProcess


class InStep(OfOneProcess):
    """`Elements` that end on all ranks as soon as one rank has no more."""

    def __init__(self, elements: Elements) -> None:
        super().__init__()
        self._elements = elements
        self.state_dict = elements.state_dict
        self.build = elements.build

    def __iter__(self) -> InStep:
        self._check_process()
        return self

    def __next__(self) -> Any:
        return self.build(self.next_flat())

    def next_flat(self) -> list[Any]:
        """As `Elements.next_flat`."""
        self._check_process()
        flat: list[Any] | None = None
        try:
            flat = self._elements.next_flat()
        except StopIteration:
            pass
        more = False
        try:
            more = _sharding.agree(flat is not None)
        finally:
            if not more:
                self._elements.close()
        if flat is None or not more:
            raise StopIteration
        return flat
