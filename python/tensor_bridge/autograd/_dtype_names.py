"""The dtypes that both frameworks have, from one to the other."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from tensor_bridge import _dtypes
from tensor_bridge.errors import UnsupportedDtypeError

if TYPE_CHECKING:
    import torch

__all__ = ["tf_dtype", "torch_dtype"]


@cache
def _names() -> dict[str, str]:
    rows = [row for row in _dtypes.dtypes() if row.kind == "shared" and row.torch_name]
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
