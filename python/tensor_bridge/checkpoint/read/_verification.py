"""How much of a checkpoint its checksums say something of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verification:
    """What `Checkpoint.verify` compared.

    Attributes:
      compared: Number of tensors that have a checksum, which was compared.
      without: Number of tensors that have none: damage to their bytes cannot be seen.
    """

    compared: int
    without: int

    def __str__(self) -> str:
        return f"{self.compared} of {self.compared + self.without} tensors have a checksum"
