"""The extension module: CPython's limited API over the C ABI of libtensor_bridge.so."""

from collections.abc import Sequence
from typing import Any, Literal

import torch

__version__: str

def convert_tf_to_pytorch(
    t: Any,
    /,
    *,
    copy: bool | None = None,
    device: torch.device | str | int | None = None,
    on_write: Literal["copy", "raise", "alias"] = "copy",
    raw: bool = False,
    scale: float | Sequence[float] | torch.Tensor | None = None,
    zero_point: int | Sequence[int] | torch.Tensor | None = None,
    axis: int | None = None,
    strings: Literal["tensor", "list"] = "tensor",
    unknown: Literal["raise", "keep"] = "raise",
    live: bool = False,
) -> Any: ...
def convert_tensor(t: Any, /, **options: Any) -> torch.Tensor: ...
def convert_tensor_back(x: Any, /, **options: Any) -> Any: ...
def convert_pytorch_to_tf(
    x: Any,
    /,
    *,
    copy: bool | None = None,
    device: Any = None,
    dtype: Any = None,
    grad: Literal["detach", "raise"] = "detach",
    unknown: Literal["raise", "keep"] = "raise",
) -> Any: ...
def explain_torch(
    x: Any, /, **options: Any
) -> tuple[int, int, int, tuple[int, ...] | None, int, str, str, str, str]: ...
def is_torch_tensor(x: Any, /) -> bool: ...
def convert_variable(
    handle: Any, context: Any, tf_dtype: int, /, **options: Any
) -> torch.Tensor: ...
def explain_tensor(
    t: Any, /, **options: Any
) -> tuple[int, int, int, tuple[int, ...] | None, int, str, str, str, str]: ...
def explain_variable(
    handle: Any, context: Any, tf_dtype: int, /, **options: Any
) -> tuple[int, int, int, tuple[int, ...] | None, int, str, str, str, str]: ...
def convert_node(
    value: Any, back: int, options: dict[str, Any], path: str, /
) -> tuple[Any, int]: ...
def is_eager_tensor(t: Any, /) -> bool: ...
def has_handle(t: Any, /) -> bool: ...
def tf_address(t: Any, /) -> int: ...
def dtype_rows() -> list[tuple[str, int, int, int, str, str, str, str]]: ...
def live_owners() -> int: ...
