"""For tests of code that shares tensors: addresses, sharing, and live owners."""

from __future__ import annotations

from math import prod
from typing import Any

from tensor_bridge import _C, _dense

__all__ = ["live_owners", "shares_memory", "tf_data_address", "torch_data_address"]


def live_owners() -> int:
    """TensorFlow buffers that tensor_bridge keeps alive right now, summed over all threads.

    Exact while no other thread converts or releases.
    """
    return _C.live_owners()


def tf_data_address(t: Any) -> int:
    """Address of the elements of an eager tf.Tensor, or of a tf.Variable's current value."""
    if not _C.is_eager_tensor(t):
        t = t.read_value()
    return _C.tf_address(t)


def torch_data_address(x: Any) -> int:
    """Address of the elements of a torch.Tensor.

    It is read through a const pointer: ``x.data_ptr()`` would move a protected tensor onto memory
    of its own.
    """
    return _dense.torch_address(x)


def shares_memory(one: Any, other: Any) -> bool:
    """Whether two values, each an eager tf.Tensor, a variable or a torch.Tensor, share memory.

    That is, whether they start at the same address; tensors without elements share nothing. The
    call never moves a protected tensor.
    """
    return _elements(one) > 0 and _elements(other) > 0 and _address(one) == _address(other)


def _elements(value: Any) -> int:
    return int(value.numel()) if _C.is_torch_tensor(value) else prod(value.shape)


def _address(value: Any) -> int:
    return torch_data_address(value) if _C.is_torch_tensor(value) else tf_data_address(value)
