"""An entry of a checkpoint, whatever the format. Not for: reading one; formats derive from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Entry", "Extent"]


@dataclass(frozen=True)
class Extent:
    """Where bytes lie: ``size`` of them at ``offset`` of ``file``."""

    file: Any
    offset: int
    size: int


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint, not read yet.

    Attributes:
      name: As in the mapping that holds it.
      kind: "variable", "slot", "counter" or "metadata".
      key: As in the file.
      dtype: TensorFlow's name of it.
      shape: Its sizes.
      nbytes: Bytes in the file.
      file: The file that holds it, or its first piece.
      offset: Where in that file; -1 if it is in several pieces.
    """

    name: str
    kind: str
    key: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    file: str
    offset: int

    def read(self, raw: bool) -> Any:
        """The tensor, or a StringTensor."""
        raise TypeError(f"{type(self).__name__} cannot be read")

    def extent(self) -> Extent | None:
        """Where the bytes of the tensor lie, if they lie in one piece just as in memory."""
        return None

    def problems(self) -> Iterator[Exception]:
        """What is wrong with the bytes, as far as checksums tell."""
        return iter(())
