"""An entry of a checkpoint, whatever the format.

Not for: reading one. Formats derive from it and define `_read`, `_extent` and `_problems`; what
those raise becomes a CheckpointError here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tensor_bridge.checkpoint.read._damage import damaged, reading
from tensor_bridge.errors import (
    CheckpointError,
    FrameworkError,
    TensorBridgeError,
    UnsupportedDtypeError,
)

if TYPE_CHECKING:
    from tensor_bridge.checkpoint.read._quantization import Quantization


class Extent(NamedTuple):
    """A range of bytes: ``size`` of them at ``offset`` of ``file``."""

    file: Any
    offset: int
    size: int


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint, not read yet.

    Attributes:
      name: As in the mapping that holds it.
      kind: "variable", "slot", "counter", "state" or "metadata".
      key: As in the file.
      dtype: TensorFlow's name of its dtype.
      shape: Its sizes.
      nbytes: Number of bytes in the file.
      file: The file that contains it, or its first piece.
      offset: Its offset in that file; -1 if it is in several pieces.
      named: Whether the file has the name of its layer. If not, ``name`` is a path in the file that
        counts layers by class, "layers/dense_1/0" for the second Dense. It may resemble the name of
        another layer by chance, so only a rule places it.
    """

    name: str
    kind: str
    key: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    file: str
    offset: int
    named: bool = field(default=True, kw_only=True)

    @property
    def quantization(self) -> Quantization | None:
        """How its integers represent real numbers, if the file says so; else None."""
        return None

    def unsupported(self, reason: str) -> UnsupportedDtypeError:
        """The error for a tensor that torch cannot represent."""
        return UnsupportedDtypeError(f"{self.file}, entry {self.key!r}: {reason}")

    def damaged(self, message: str, offset: int = -1) -> CheckpointError:
        """The error for a tensor whose part of the file is not what it should be."""
        return damaged(self.file, message, entry=self.key, offset=offset)

    def read(self, raw: bool) -> Any:
        """Returns a new torch.Tensor on the CPU, or a StringTensor.

        Raises:
          CheckpointError: The file is damaged here.
          UnsupportedDtypeError: torch cannot represent it.
        """
        # Without `reading`, which would take a tenth of the time of making a view.
        try:
            return self._read(raw)
        except Exception as e:
            with reading(self.file, self.key):
                raise e from e.__cause__

    def _read(self, raw: bool) -> Any:
        raise TypeError(f"{type(self).__name__} cannot be read")

    def extent(self) -> Extent | None:
        """The range of the tensor's bytes if they are in one piece, as in memory; else None.

        Raises as `read`.
        """
        with reading(self.file, self.key):
            return self._extent()

    def _extent(self) -> Extent | None:
        return None

    @property
    def has_checksum(self) -> bool:
        """Whether `problems` can detect damage to any byte of the tensor."""
        return False

    def problems(self) -> Iterator[Exception]:
        """Yields the damage that checksums show."""
        try:
            with reading(self.file, self.key):
                yield from self._problems()
        except FrameworkError:
            raise
        except TensorBridgeError as e:
            yield e

    def _problems(self) -> Iterator[Exception]:
        return iter(())
