"""A torch tensor and the TensorFlow tensor over its memory, and what a test asserts about the two.

The mirror image of `sharing`: torch's memory, which torch must leave when it writes.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import tensorflow as tf
import torch
from refusals import BUILTIN_BASES
from sharing import SHAPE, tf_bytes, torch_bytes

import tensor_bridge
from tensor_bridge.testing import live_owners, tf_data_address, torch_data_address

ConvertBack = Callable[..., tf.Tensor]


def values(shape: Sequence[int] = SHAPE, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """0, 1, 2, ... in torch's own memory, which is aligned as TensorFlow wants it."""
    count = 1
    for size in shape:
        count *= size
    return torch.arange(count).reshape(tuple(shape)).to(dtype)


class Kept:
    """One conversion, with the bytes that torch had before."""

    def __init__(
        self,
        x: torch.Tensor | None = None,
        convert: ConvertBack = tensor_bridge.to_tf,
        **options: Any,
    ) -> None:
        self.torch = values() if x is None else x
        self.address = torch_data_address(self.torch)
        self.before = torch_bytes(self.torch)
        self.tf = convert(self.torch, **options)
        self.assert_shared()

    def assert_shared(self, x: torch.Tensor | None = None) -> None:
        """`x`, or the converted tensor, is where it was, and TensorFlow shows the same memory."""
        self.assert_kept()
        x = self.torch if x is None else x
        assert torch_data_address(x) == tf_data_address(self.tf) == self.address

    def assert_moved(self, x: torch.Tensor | None = None) -> None:
        """`x`, or the converted tensor, is on other memory."""
        self.assert_kept()
        x = self.torch if x is None else x
        assert not self.address <= torch_data_address(x) < self.address + len(self.before)

    def assert_kept(self) -> None:
        """TensorFlow is where it was and has the bytes that it got."""
        assert tf_data_address(self.tf) == self.address
        assert tf_bytes(self.tf) == self.before


def misaligned(offset: int, x: torch.Tensor | None = None) -> torch.Tensor:
    """A contiguous tensor with the values of `x`, `offset` bytes after a 64-byte boundary."""
    x = values() if x is None else x
    assert offset % x.element_size() == 0
    base = torch.zeros(x.numel() + 64, dtype=x.dtype)
    start = (-torch_data_address(base) % 64 + offset) // x.element_size()
    result = base[start : start + x.numel()].view(x.shape)
    result.copy_(x)
    assert torch_data_address(result) % 64 == offset % 64
    return result


def explained(interface: Any, x: Any, **options: Any) -> tensor_bridge.Explanation:
    """What the interface says of the conversion to TensorFlow."""
    explain = getattr(interface, "explain_back", interface.explain)
    explanation: tensor_bridge.Explanation = explain(x, **options)
    return explanation


def assert_to_tf_refused(
    interface: Any, x: Any, error: type[Exception], advice: str, **options: Any
) -> None:
    """The conversion raises exactly ``error``, whose message matches ``advice``; nothing leaks."""
    before = live_owners()
    with pytest.raises(BUILTIN_BASES[error]) as caught:
        interface.to_tf(x, **options)
    message = str(caught.value)
    assert type(caught.value) is error
    assert isinstance(caught.value, tensor_bridge.TensorBridgeError)
    assert re.search(advice, message), message
    assert "builtins." not in message
    del caught
    gc.collect(0)
    assert live_owners() == before
    explanation = explained(interface, x, **options)
    assert explanation.action == "refused"
    assert explanation.error is error
    assert explanation.reason == message
    assert str(explanation).startswith(f"refused ({error.__name__})")
    assert live_owners() == before


def assert_own(t: tf.Tensor, x: torch.Tensor) -> None:
    """`t` is in memory of TensorFlow's, aligned as it wants it, and none of `x`'s storage."""
    address = tf_data_address(t)
    assert address % 64 == 0
    if x.layout is torch.strided and not x.is_meta and x.numel():
        start = torch_data_address(whole(x))
        assert not start <= address < start + max(x.untyped_storage().nbytes(), 1)


def whole(x: torch.Tensor) -> torch.Tensor:
    """All bytes of a storage as a tensor, without materialising it."""
    storage = x.untyped_storage()
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),), (1,))
