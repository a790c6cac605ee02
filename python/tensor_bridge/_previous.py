"""What torch tensors keep of memory that they left at a write, and giving it back."""

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
    """Gives back the memory that torch tensors left when a write moved them.

    A tensor that shares memory with TensorFlow moves onto memory of its own at a write, and keeps
    the former memory, because an operation in another thread may still be reading it. So there are
    two buffers until the tensor dies. After this call there is one, as far as torch is concerned;
    TensorFlow keeps the former one for as long as it needs it.

    Call it when no operation runs any more that began before the write (the threads that use the
    tensor are joined, or wait), and when nothing uses a pointer that was taken before it:
    ``const_data_ptr()``, or an export through DLPack that is older than ``to_tf``. Later writes and
    later threads do not matter.

    Args:
      x: A torch.Tensor, a torch.nn.Module (its parameters and buffers), or a structure or an
        iterator of them. Views count as the tensor that they are of.

    Returns:
      The number of buffers that were given back; 0 if no tensor kept one. A tensor of
      ``torch.load``, ``torch.from_numpy``, ``torch.frombuffer`` or ``torch.from_dlpack`` goes on
      to keep its own, because an array may show it; ``clone()`` it.

    Raises:
      UnsupportedTypeError: A value that is no torch tensor, or a sparse one.

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
