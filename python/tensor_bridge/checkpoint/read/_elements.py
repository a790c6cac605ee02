"""What the dtypes of a checkpoint become in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C
from tensor_bridge._dtypes import DtypeRow, named
from tensor_bridge.errors import UnsupportedDtypeError

if TYPE_CHECKING:
    import torch

    Decoder = Callable[[tuple[int, ...], Iterable[torch.Tensor]], torch.Tensor]

# Elements looked up at a time. Their numbers take four bytes each, and more in torch: pieces of
# 16 MB left a heap of 100 MB behind (glibc 2.36).
_PART = 1 << 18


def stored_dtype(row: DtypeRow, raw: bool) -> torch.dtype:
    """The torch dtype that the bytes are looked at with.

    Raises:
      UnsupportedDtypeError: torch has nothing for the dtype.
    """
    if row.kind == "shared":
        name = row.torch_name
    elif row.kind in ("viewed", "converted"):
        name = "torch.uint8"
    elif row.kind == "quantized" and raw:
        name = row.nearest
    else:
        advice = (
            "load(..., raw=True) gives the plain integers"
            if row.kind == "quantized"
            else row.reason
        )
        raise UnsupportedDtypeError(f"torch has nothing for {row.name}; {advice}")
    return named(name)


def known_row(entry: Any) -> DtypeRow:
    """The row of an entry's dtype.

    Raises:
      UnsupportedDtypeError: There is none.
    """
    row: DtypeRow | None = entry.row
    if row is None:
        raise entry.unsupported(f"no TensorFlow up to 2.21 has a dtype of {entry.dtype}")
    return row


def decoder_of(row: DtypeRow, raw: bool) -> Decoder | None:
    """What makes exact values of the stored bytes of a dtype that torch lacks; None elsewhere.

    It takes the shape, and the bytes in as many parts as one likes.
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
