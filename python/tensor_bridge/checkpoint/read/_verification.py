"""How much of a checkpoint its checksums cover."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verification:
    """The result of `Checkpoint.verify`.

    Attributes:
      compared: Number of tensors with a checksum, which was compared.
      without: Number of tensors without one: damage to their bytes cannot be detected.
    """

    compared: int
    without: int

    def __str__(self) -> str:
        return f"{self.compared} of {self.compared + self.without} tensors have a checksum"
