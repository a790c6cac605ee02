"""The dtype table, read from the library; there is no second list."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from tensor_bridge import _C
from tensor_bridge.errors import UnsupportedDtypeError

if TYPE_CHECKING:
    import torch

__all__ = ["DtypeRow", "dtypes", "tf_dtype", "torch_dtype"]


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


@cache
def dtypes() -> tuple[DtypeRow, ...]:
    """Every row of the dtype table."""
    return tuple(DtypeRow(*row) for row in _C.dtype_rows())


@cache
def _names() -> dict[str, str]:
    rows = [row for row in dtypes() if row.kind == "shared" and row.torch_name]
    return {row.name: row.torch_name for row in rows} | {row.torch_name: row.name for row in rows}


def _other(name: str, framework: str) -> str:
    found = _names().get(name)
    if found is None:
        raise UnsupportedDtypeError(f"{framework} has no dtype for {name}")
    return found


def tf_dtype(dtype: torch.dtype) -> Any:
    """TensorFlow's dtype for one of torch's.

    Raises:
      UnsupportedDtypeError: there is none.
    """
    import tensorflow as tf

    return tf.dtypes.as_dtype(_other(str(dtype), "TensorFlow"))


def torch_dtype(dtype: Any) -> torch.dtype:
    """Torch's dtype for one of TensorFlow's.

    Raises:
      UnsupportedDtypeError: there is none.
    """
    import torch

    found: torch.dtype = getattr(torch, _other(dtype.name, "torch").removeprefix("torch."))
    return found
