"""A TensorFlow tensor and the torch tensor over its memory, and what a test asserts about the two.

Addresses are read through const pointers, bytes through ctypes: nothing here materialises a tensor.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
import torch
from tensorflow.core.framework import tensor_pb2

import tensor_bridge
from tensor_bridge.testing import live_owners, tf_data_address, torch_data_address

SHAPE = (4, 6)

Convert = Callable[..., torch.Tensor]


def numbers(shape: Sequence[int] = SHAPE, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """0, 1, 2, ... in a buffer of its own, so that no other test can hold the same memory."""
    count = 1
    for size in shape:
        count *= size
    return tf.cast(tf.reshape(tf.range(count, dtype=tf.int64) + 0, shape), dtype)


def from_bytes(raw: bytes, shape: Sequence[int], dtype: tf.DType) -> tf.Tensor:
    """A tensor of any dtype with these bytes; most have no other way to get values."""
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum, tensor_content=raw)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return tf.io.parse_tensor(proto.SerializeToString(), dtype)


def tf_bytes(t: tf.Tensor) -> bytes:
    nbytes = t.dtype.size * t.shape.num_elements()
    return ctypes.string_at(tf_data_address(t), nbytes) if nbytes else b""


def torch_bytes(x: torch.Tensor) -> bytes:
    nbytes = x.numel() * x.element_size()
    assert x.is_contiguous()
    return ctypes.string_at(torch_data_address(x), nbytes) if nbytes else b""


class Shared:
    """One conversion, with the bytes that TensorFlow had before."""

    def __init__(
        self, t: tf.Tensor | None = None, convert: Convert = tensor_bridge.to_torch, **options: Any
    ) -> None:
        self.tf = numbers() if t is None else t
        self.before = tf_bytes(self.tf)
        self.torch = convert(self.tf, **options)
        self.assert_shared()

    def assert_shared(self, x: torch.Tensor | None = None) -> None:
        """`x`, or the converted tensor, shows TensorFlow's memory and its values."""
        self.assert_untouched()
        if x is None:
            assert torch_bytes(self.torch) == self.before
        assert torch_data_address(self.torch if x is None else x) == tf_data_address(self.tf)

    def assert_moved(self, x: torch.Tensor | None = None) -> None:
        """`x`, or the converted tensor, is on memory of its own."""
        x = self.torch if x is None else x
        self.assert_untouched()
        first = tf_data_address(self.tf)
        assert not first <= torch_data_address(x) < first + len(self.before)

    def assert_untouched(self) -> None:
        """TensorFlow has the bytes that it had."""
        assert tf_bytes(self.tf) == self.before


def plain(x: torch.Tensor) -> torch.Tensor:
    """The same values in torch's own memory."""
    return x.detach().clone()


@contextlib.contextmanager
def nothing_kept() -> Iterator[None]:
    """What is converted inside is released inside, whatever happens."""
    before = live_owners()
    yield
    if live_owners() != before:
        gc.collect()
    assert live_owners() == before


def in_threads(*functions: Callable[[], Any], timeout: float = 60) -> list[Any]:
    """Runs the functions at once, each in a thread; their results. Raises what the first raised."""
    start = threading.Barrier(len(functions))
    results: list[Any] = [None] * len(functions)
    errors: list[BaseException] = []

    def run(i: int, function: Callable[[], Any]) -> None:
        try:
            start.wait(timeout)
            results[i] = function()
        except BaseException as e:
            errors.append(e)

    threads = [
        threading.Thread(target=run, args=(i, function), daemon=True)
        for i, function in enumerate(functions)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
        assert not thread.is_alive(), "a thread is stuck"
    if errors:
        raise errors[0]
    return results
