"""The two directions, so that a test of both is written once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import needs
import tensorflow as tf
import torch
from sharing import Shared, numbers, tf_bytes, torch_bytes, values

import tensor_bridge
from tensor_bridge.testing import shares_memory


class Way(NamedTuple):
    """One direction of conversion.

    Attributes:
      leaf: Makes a tensor to convert, with 0, 1, 2, ...
      other: Makes a tensor of the target framework, which passes unchanged.
      refused: Makes a tensor that cannot be converted.
      bad: The exception for it.
    """

    name: str
    convert: Callable[..., Any]
    leaf: Callable[..., Any]
    other: Callable[..., Any]
    result: type
    refused: Callable[[], Any]
    bad: type[Exception]

    @property
    def action(self) -> str:
        """The action of `explain` for a leaf."""
        return needs.SHARED_TO_TF if self.name == "to_tf" else "shared"

    def share(self, source: Any = None, interface: Any = tensor_bridge) -> Shared:
        """A conversion of `source`, or of a leaf, that shares its memory."""
        source = self.leaf() if source is None else source
        return Shared(source, getattr(interface, self.name))

    def is_converted(self, source: Any, result: Any) -> bool:
        """Whether `result` is `source` in the other framework, sharing its memory if possible."""
        if not isinstance(result, self.result) or result.shape != source.shape:
            return False
        pair = (result, source) if self.name == "to_tf" else (source, result)
        shares = shares_memory(*pair) or (self.name == "to_tf" and not needs.SHARES_TO_TF)
        return shares and tf_bytes(pair[0]) == torch_bytes(pair[1])


TO_TORCH = Way(
    "to_torch",
    tensor_bridge.to_torch,
    numbers,
    values,
    torch.Tensor,
    lambda: tf.bitcast(tf.range(3) + 0, tf.qint32),
    tensor_bridge.UnsupportedDtypeError,
)
TO_TF = Way(
    "to_tf",
    tensor_bridge.to_tf,
    values,
    numbers,
    tf.Tensor,
    lambda: torch.empty(2, device="meta"),
    tensor_bridge.UnsupportedDeviceError,
)
WAYS = {way.name: way for way in (TO_TORCH, TO_TF)}
