"""How integers represent real numbers, and torch's quantized tensors. Not for: files."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from tensor_bridge.errors import UnsupportedDtypeError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Quantization:
    """The real value of a stored integer is ``scale * (integer - zero_point)``.

    Attributes:
      scale: One number, or one for each index along ``axis``.
      zero_point: As many integers.
      axis: None for one scale.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None


def quantized(integers: torch.Tensor, how: Quantization) -> torch.Tensor:
    """A torch quantized tensor of int8, uint8 or int32; a copy.

    Raises:
      UnsupportedDtypeError: torch cannot represent it: it quantizes no other integers, and needs a
        positive, finite scale and a zero point that is one of the integers.
    """
    import torch

    if integers.dtype not in (torch.int8, torch.uint8, torch.int32):
        raise UnsupportedDtypeError(f"torch has no quantized {integers.dtype}")
    limits = torch.iinfo(integers.dtype)
    for scale, zero in zip(how.scale, how.zero_point, strict=True):
        if not (math.isfinite(scale) and scale > 0):
            raise UnsupportedDtypeError(f"torch has no quantized tensors of scale {scale}")
        if not limits.min <= zero <= limits.max:
            raise UnsupportedDtypeError(
                f"torch has no quantized {integers.dtype} of zero point {zero}"
            )
    _deprecation_is_known()
    result: torch.Tensor
    if how.axis is None:
        result = torch._make_per_tensor_quantized_tensor(integers, how.scale[0], how.zero_point[0])
        return result
    result = torch._make_per_channel_quantized_tensor(
        integers,
        torch.tensor(how.scale, dtype=torch.float64, device="cpu"),
        torch.tensor(how.zero_point, dtype=torch.int64, device="cpu"),
        how.axis,
    )
    return result


@lru_cache(maxsize=1)
def _deprecation_is_known() -> None:
    """Triggers and hides torch's deprecation warning, which comes once per process (torch 2.13).

    The documentation describes the alternative, ``raw=True``.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch._make_per_tensor_quantized_tensor(
            torch.zeros(1, dtype=torch.int8, device="cpu"), 1, 0
        )
