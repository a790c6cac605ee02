"""The memory that a torch tensor still keeps after a write moved it, and its release."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from tensor_bridge import _C, _structures
from tensor_bridge._refusals import class_name
from tensor_bridge.errors import UnsupportedTypeError


def _tensors(value: Any) -> Iterator[Any]:
    """The torch tensors in a structure."""
    torch = sys.modules.get("torch")
    if _C.is_torch_tensor(value):
        yield value
    elif torch is not None and isinstance(value, torch.nn.Module):
        yield from value.parameters()
        yield from value.buffers()
    elif isinstance(value, Iterator):
        for child in value:
            yield from _tensors(child)
    elif isinstance(value, _structures.PLAIN):
        return
    elif _structures.is_node(value):
        for child in _structures.children(value)[1]:
            yield from _tensors(child)
    else:
        raise UnsupportedTypeError(
            "expected torch tensors, modules, or a structure of them, got a "
            f"{class_name(value)}; give the tensors that it is made of"
        )


def release_previous(x: Any) -> int:
    """Releases the former memory of torch tensors that a write moved.

    A write moves a tensor that shares memory with TensorFlow onto memory of its own. The tensor
    keeps the former buffer too, because an operation in another thread may still be reading it, so
    it holds two buffers until it dies. After this call it holds one. TensorFlow keeps the former
    buffer for as long as it needs it.

    Call it when every operation that began before the write has finished (the threads that use the
    tensor are joined, or wait), and when nothing uses a pointer that was taken before the write:
    ``const_data_ptr()``, or an export through DLPack that is older than ``to_tf``. Later writes and
    later threads do not matter.

    Args:
      x: A torch.Tensor of any shape and dtype, a torch.nn.Module (its parameters and buffers), or a
        structure or an iterator of them. A view stands for its base tensor.

    Returns:
      The number of buffers that were released; 0 if no tensor kept one. A tensor of ``torch.load``,
      ``torch.from_numpy``, ``torch.frombuffer`` or ``torch.from_dlpack`` still keeps its former
      memory, because an array may show it; ``clone()`` it instead.

    Raises:
      UnsupportedTypeError: A value is not a torch tensor, or is a sparse one.

    Example:
      >>> import tensorflow as tf, tensor_bridge
      >>> t = tf.constant([1.0, 2.0])
      >>> x = tensor_bridge.to_torch(t)
      >>> _ = x.add_(1)  # TensorFlow holds the buffer, so x moves
      >>> tensor_bridge.release_previous(x)
      1
    """
    released = sum(_C.release_previous(tensor) for tensor in list(_tensors(x)))
    if released:
        _C.trim_heap()
    return released
