"""Stored values in torch: the dtype of their bytes, and their decoders."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tensor_bridge import _C
from tensor_bridge._dtypes import DtypeRow, named
from tensor_bridge.errors import UnsupportedDtypeError

if TYPE_CHECKING:
    import torch

    Decoder = Callable[[tuple[int, ...], Iterable[torch.Tensor]], torch.Tensor]

__all__ = ["decoder_of", "stored_dtype"]

# Elements looked up at a time. Their numbers take four bytes each, and more in torch: pieces of
# 16 MB left a heap of 100 MB behind (glibc 2.36).
_PART = 1 << 18


def stored_dtype(row: DtypeRow, raw: bool, advice: str = "") -> torch.dtype:
    """The torch dtype with which stored bytes are viewed.

    Args:
      row: The stored dtype.
      raw: Whether quantized values are viewed as plain integers.
      advice: How to get the plain integers; by default with `checkpoint.load`.

    Raises:
      UnsupportedDtypeError: torch has no counterpart of the dtype.
    """
    if row.kind == "shared":
        name = row.torch_name
    elif row.kind in ("viewed", "converted"):
        name = "torch.uint8"
    elif row.kind == "quantized" and raw:
        name = row.nearest
    else:
        if row.kind != "quantized":
            advice = row.reason
        elif not advice:
            advice = "load(..., raw=True) gives the plain integers"
        raise UnsupportedDtypeError(f"torch has nothing for {row.name}; {advice}")
    return named(name)


def decoder_of(row: DtypeRow, raw: bool) -> Decoder | None:
    """A function that makes exact values from stored bytes of a dtype that torch lacks, else None.

    The function takes the shape, and the bytes in any number of parts.
    """
    found = None if raw else _C.narrow_values(row.tf_enum)
    if found is None:
        return None
    import torch

    table = torch.frombuffer(bytearray(found), dtype=named(row.nearest))

    def decode(shape: tuple[int, ...], stored: Iterable[torch.Tensor]) -> torch.Tensor:
        values = torch.empty(shape, dtype=table.dtype, device="cpu")
        rest = values.reshape(-1)
        for part in stored:
            for codes in part.reshape(-1).split(_PART):
                torch.index_select(table, 0, codes.to(torch.int32), out=rest[: len(codes)])
                rest = rest[len(codes) :]
        return values

    return decode
