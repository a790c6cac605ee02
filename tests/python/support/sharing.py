"""A TensorFlow tensor and a torch tensor over the same memory, and assertions about the two.

Addresses are read through const pointers, bytes through ctypes: nothing here materialises a tensor.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import threading
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import tensorflow as tf
import torch
from tensorflow.core.framework import tensor_pb2

import tensor_bridge
from tensor_bridge.testing import live_owners, tf_data_address, torch_data_address

SHAPE = (4, 6)

Convert = Callable[..., Any]


@contextlib.contextmanager
def owners(more: int = 0) -> Iterator[Callable[[], int]]:
    """After the block torch keeps so many more TensorFlow buffers alive than before; gives how many
    it is at the moment.
    """
    before = live_owners()
    yield lambda: live_owners() - before
    assert live_owners() == before + more


def numbers(shape: Sequence[int] = SHAPE, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """0, 1, 2, ... in a buffer of its own, so that no other test can hold the same memory."""
    return tf.cast(tf.reshape(tf.range(prod(shape), dtype=tf.int64) + 0, shape), dtype)


def values(shape: Sequence[int] = SHAPE, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """0, 1, 2, ... in torch's own memory, which is aligned as TensorFlow wants it."""
    return torch.arange(prod(shape)).reshape(tuple(shape)).to(dtype)


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
    """One conversion, in either direction, with the bytes that its source had before."""

    def __init__(
        self, source: Any = None, convert: Convert = tensor_bridge.to_torch, **options: Any
    ) -> None:
        source = numbers() if source is None else source
        from_torch = isinstance(source, torch.Tensor)
        self.address = (torch_data_address if from_torch else tf_data_address)(source)
        self.before = torch_bytes(source) if from_torch else tf_bytes(source)
        result = convert(source, **options)
        self.tf, self.torch = (result, source) if from_torch else (source, result)
        self.assert_shared()

    def assert_shared(self, x: torch.Tensor | None = None) -> None:
        """Asserts that `x`, or torch's tensor, shares TensorFlow's memory, which has not moved."""
        self.assert_untouched()
        if x is None:
            assert torch_bytes(self.torch) == self.before
        assert torch_data_address(self.torch if x is None else x) == self.address

    def assert_moved(self, x: torch.Tensor | None = None) -> None:
        """Asserts that `x`, or torch's tensor, is on other memory."""
        self.assert_untouched()
        x = self.torch if x is None else x
        assert not self.address <= torch_data_address(x) < self.address + len(self.before)

    def assert_untouched(self) -> None:
        """Asserts that TensorFlow's tensor has not moved and has its former bytes."""
        assert tf_data_address(self.tf) == self.address
        assert tf_bytes(self.tf) == self.before


def shared_to_tf(
    x: torch.Tensor | None = None, convert: Convert = tensor_bridge.to_tf, **options: Any
) -> Shared:
    """A conversion of torch's tensor: torch must leave its own memory when it writes."""
    return Shared(values() if x is None else x, convert, **options)


def assert_own(t: tf.Tensor, x: torch.Tensor) -> None:
    """Asserts that `t` is in TensorFlow's own aligned memory, outside `x`'s storage."""
    address = tf_data_address(t)
    assert address % 64 == 0
    if x.layout is torch.strided and not x.is_meta and x.numel():
        storage = x.untyped_storage()
        # All bytes of the storage, without materialising it.
        whole = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),), (1,))
        start = torch_data_address(whole)
        assert not start <= address < start + max(storage.nbytes(), 1)


def plain(x: torch.Tensor) -> torch.Tensor:
    """The same values in torch's own memory."""
    return x.detach().clone()


def saved(x: Any) -> Any:
    """What `torch.save` writes of it, loaded."""
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    return torch.load(file)


@contextlib.contextmanager
def nothing_kept() -> Iterator[Callable[[], int]]:
    """What is converted inside is released inside, whatever happens; gives what `owners` gives."""
    before = live_owners()
    yield lambda: live_owners() - before
    if live_owners() != before:
        gc.collect()
    assert live_owners() == before


def in_threads(*functions: Callable[[], Any], timeout: float = 60) -> list[Any]:
    """Runs the functions at once, each in a thread; their results. Raises the first error."""
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
