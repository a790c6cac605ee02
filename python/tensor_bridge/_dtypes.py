"""The dtype table, read from the library; there is no second list."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from tensor_bridge import _C
from tensor_bridge.errors import UnsupportedDtypeError

if TYPE_CHECKING:
    import torch


class DtypeRow(NamedTuple):
    """One dtype.

    Attributes:
      name: TensorFlow's name; torch's where TensorFlow has none.
      tf_enum: TensorFlow's DataType number; 0 where TensorFlow has no such dtype.
      torch_scalar: torch's ScalarType number; -1 where torch has no such dtype.
      itemsize: Bytes per element in TensorFlow's memory; 0 where that is not fixed.
      torch_name: "torch.float32"; "" where torch has no such dtype.
      kind: "shared", "viewed" (shared under another dtype), "converted" (exact values, one pass),
        "quantized", "copied" (strings, to a `StringTensor`), "refused", or "torch only".
      nearest: torch dtype of the default result; for "quantized" the one of ``raw=True``; "" where
        there is none.
      reason: Why a framework lacks it, and what to do.
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
    rows = [DtypeRow(*row) for row in _C.dtype_rows()]
    # The library makes one dense tensor, so it refuses strings; `to_torch` makes a StringTensor.
    return tuple(row._replace(kind="copied") if row.name == "string" else row for row in rows)


@cache
def _rows() -> dict[int | str, DtypeRow]:
    rows: dict[int | str, DtypeRow] = {}
    for row in dtypes():
        if row.tf_enum:
            rows.update({row.tf_enum: row, row.name: row, row.torch_name: row})
    rows.pop("", None)  # the name of dtypes that torch lacks
    return rows


def row_of(dtype: int | str | torch.dtype) -> DtypeRow | None:
    """The row of a dtype that TensorFlow has, by its number or name, or by torch's dtype."""
    return _rows().get(dtype if isinstance(dtype, int) else str(dtype))


def _shared(name: str, framework: str) -> DtypeRow:
    row = row_of(name)
    if row is None or row.kind != "shared":
        raise UnsupportedDtypeError(f"{framework} has no dtype for {name}")
    return row


def tf_dtype(dtype: torch.dtype) -> Any:
    """TensorFlow's dtype for one of torch's.

    Raises:
      UnsupportedDtypeError: there is none.
    """
    import tensorflow as tf

    return tf.dtypes.as_dtype(_shared(str(dtype), "TensorFlow").name)


def torch_dtype(dtype: Any) -> torch.dtype:
    """Torch's dtype for one of TensorFlow's.

    Raises:
      UnsupportedDtypeError: there is none.
    """
    return named(_shared(dtype.name, "torch").torch_name)


def named(name: str) -> torch.dtype:
    """Torch's dtype for a name of the table, such as "torch.float32"."""
    import torch

    found: torch.dtype = getattr(torch, name.removeprefix("torch."))
    return found
