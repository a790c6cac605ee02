"""The dtype table, read from the library; there is no second list."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from tensor_bridge import _C

__all__ = ["DtypeRow", "dtypes"]


class DtypeRow(NamedTuple):
    """One dtype.

    Attributes:
      name: TensorFlow's name; torch's where TensorFlow has none.
      tf_enum: TensorFlow's DataType number; 0 where TensorFlow has no such dtype.
      torch_scalar: torch's ScalarType number; -1 where torch has no such dtype.
      itemsize: Bytes an element in TensorFlow's memory; 0 where that is not fixed.
      torch_name: "torch.float32"; "" where torch has no such dtype.
      kind: "shared", "viewed" (shared under another dtype), "converted" (exact values, one pass),
        "quantized", "refused", or "torch only".
      nearest: torch dtype of the default result; for "quantized" that of ``raw=True``; "" where
        refused.
      reason: Why a side lacks it, and what to do.
    """

    name: str
    tf_enum: int
    torch_scalar: int
    itemsize: int
    torch_name: str
    kind: str
    nearest: str
    reason: str

    @property
    def tf_name(self) -> str | None:
        """TensorFlow's name of the dtype, or None where it has none."""
        return self.name if self.tf_enum else None


@lru_cache(maxsize=1)
def dtypes() -> tuple[DtypeRow, ...]:
    """Every row of the dtype table."""
    return tuple(DtypeRow(*row) for row in _C.dtype_rows())
