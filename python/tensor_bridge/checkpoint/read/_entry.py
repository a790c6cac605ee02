"""An entry of a checkpoint, whatever the format.

Not for: reading one. Formats derive from it and define `_read`, `_extent` and `_problems`; what
those raise becomes a CheckpointError here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tensor_bridge.checkpoint.read._damage import reading
from tensor_bridge.errors import FrameworkError, TensorBridgeError, UnsupportedDtypeError

if TYPE_CHECKING:
    from tensor_bridge.checkpoint.read._quantization import Quantization

__all__ = ["Entry", "Extent"]


class Extent(NamedTuple):
    """Where bytes lie: ``size`` of them at ``offset`` of ``file``."""

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
      dtype: TensorFlow's name of it.
      shape: Its sizes.
      nbytes: Bytes in the file.
      file: The file that holds it, or its first piece.
      offset: Where in that file; -1 if it is in several pieces.
      named: Whether the file says which layer it is of. If not, ``name`` is a path in the file
        that counts layers by their class, "layers/dense_1/0" for the second Dense: it may be like
        the name of another layer by chance, and is to be placed by a rule alone.
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
        """How its integers stand for real numbers, if the file says that they do."""
        return None

    def unsupported(self, reason: str) -> UnsupportedDtypeError:
        """The error for a tensor that cannot be one of torch's."""
        return UnsupportedDtypeError(f"{self.file}, entry {self.key!r}: {reason}")

    def read(self, raw: bool) -> Any:
        """The tensor, or a StringTensor.

        Raises:
          CheckpointError: The file is damaged here.
          UnsupportedDtypeError: torch has nothing for it.
        """
        # No `reading`: it takes a tenth of the time in which a view is made.
        try:
            return self._read(raw)
        except Exception as e:
            with reading(self.file, self.key):
                raise e from e.__cause__

    def _read(self, raw: bool) -> Any:
        raise TypeError(f"{type(self).__name__} cannot be read")

    def extent(self) -> Extent | None:
        """Where the bytes of the tensor lie, if they lie in one piece just as in memory.

        Raises as `read`.
        """
        with reading(self.file, self.key):
            return self._extent()

    def _extent(self) -> Extent | None:
        return None

    @property
    def has_checksum(self) -> bool:
        """Whether `problems` can see damage to any byte of the tensor."""
        return False

    def problems(self) -> Iterator[Exception]:
        """What is wrong with the bytes, as far as checksums tell."""
        try:
            with reading(self.file, self.key):
                yield from self._problems()
        except FrameworkError:
            raise
        except TensorBridgeError as e:
            yield e

    def _problems(self) -> Iterator[Exception]:
        return iter(())
