"""Types of the conversions' stub. Not for: running; there is no module."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeVar

import tensorflow as tf
import torch
from typing_extensions import TypedDict

from tensor_bridge.composite.string import StringTensor

class TfTensor(Protocol):
    """A tf.Tensor or tf.Variable.

    Known by its members: where TensorFlow has no types, a parameter of type tf.Tensor would take
    every value. A quotient of ragged or sparse tensors is no tf.Tensor.
    """

    @property
    def graph(self) -> Any: ...
    def __truediv__(self, other: Any, /) -> tf.Tensor: ...

class NamedTuple(Protocol):
    """Any named tuple, which remains one."""

    def _asdict(self) -> dict[str, Any]: ...

TorchTensor = torch.Tensor | StringTensor
Tf = TypeVar("Tf", bound=TfTensor)
Torch = TypeVar("Torch", bound=torch.Tensor)
Key = TypeVar("Key")

class ToTorchOptions(TypedDict, total=False):
    """Keywords with which a tensor becomes a torch.Tensor."""

    copy: bool | None
    device: torch.device | str | int | None
    on_write: Literal["copy", "raise", "alias"]
    raw: bool
    scale: float | Sequence[float] | torch.Tensor | None
    zero_point: int | Sequence[int] | torch.Tensor | None
    axis: int | None
    unknown: Literal["raise", "keep"]

class ToTfOptions(TypedDict, total=False):
    """Keywords of the conversion to TensorFlow."""

    copy: bool | None
    device: Any
    dtype: Any
    grad: Literal["detach", "raise"]
    unknown: Literal["raise", "keep"]
