"""Copies of tensors over mapped files, made by the kernel. Not for: tensors of other memory."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tensor_bridge.errors import CheckpointError

if TYPE_CHECKING:
    import torch


class _Stretch(ctypes.Structure):
    """iovec."""

    _fields_ = [("begin", ctypes.c_void_p), ("size", ctypes.c_size_t)]


@lru_cache(maxsize=1)
def _read() -> Any:
    return ctypes.CDLL(None, use_errno=True).process_vm_readv


def owned(x: torch.Tensor) -> torch.Tensor:
    """Returns a tensor like ``x`` in its own memory, with the present values of ``x``.

    Reading a missing page of a truncated mapped file ends the process (SIGBUS). If the kernel
    copies it instead (process_vm_readv, on this process), it returns an error. If a sandbox does
    not allow that call, ``x`` itself is returned.

    Raises:
      CheckpointError: The file was truncated.
    """
    import torch

    if x.device.type != "cpu" or x.layout != torch.strided or x.is_quantized or x.numel() == 0:
        return x
    if x.is_conj() or x.is_neg():
        return x
    steps = sum((size - 1) * step for size, step in zip(x.shape, x.stride(), strict=True))
    count = steps + 1
    copy = torch.empty(count, dtype=x.dtype, device="cpu")
    size, done = count * x.element_size(), 0
    while done < size:
        here = _Stretch(copy.data_ptr() + done, size - done)
        there = _Stretch(x.data_ptr() + done, size - done)
        got = _read()(
            ctypes.c_int(os.getpid()),
            ctypes.byref(here),
            ctypes.c_ulong(1),
            ctypes.byref(there),
            ctypes.c_ulong(1),
            ctypes.c_ulong(0),
        )
        if got <= 0:
            if ctypes.get_errno() in (errno.EPERM, errno.ENOSYS):
                return x
            raise CheckpointError("the file was truncated while it was read")
        done += got
    return copy.as_strided(x.shape, x.stride())
