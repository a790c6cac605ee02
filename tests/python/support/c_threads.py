"""Threads that Python does not know: started by pthread_create, running a C function.

And tensors that Python does not know, for these threads to release: the neutral family of the C
ABI.
"""

from __future__ import annotations

import ctypes
from typing import Any

from tensor_bridge import config

_libc = ctypes.CDLL(None)
_LIBRARY = ctypes.CDLL(config.library_dir() / "libtensor_bridge.so")
_LIBRARY.tb_tf_to_torch_consume.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_LIBRARY.tb_last_error.restype = ctypes.c_char_p

RELEASE_TORCH_TENSOR: Any = _LIBRARY.tb_torch_tensor_release


def run_in_c_threads(function: Any, arguments: list[ctypes.c_void_p]) -> None:
    """`function(argument)` for each argument, each in a C thread; waits for all without the GIL."""
    threads = []
    for argument in arguments:
        thread = ctypes.c_ulong()
        assert _libc.pthread_create(ctypes.byref(thread), None, function, argument) == 0
        threads.append(thread)
    for thread in threads:
        assert _libc.pthread_join(thread, None) == 0


def tf_tensor(values: int) -> ctypes.c_void_p:
    """A TF_Tensor of float32 zeros."""
    tensorflow = ctypes.CDLL("libtensorflow_framework.so.2")
    allocate = tensorflow.TF_AllocateTensor
    allocate.restype = ctypes.c_void_p
    allocate.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    dims = ctypes.c_int64(values)
    return ctypes.c_void_p(allocate(1, ctypes.byref(dims), 1, 4 * values))


def torch_tensor(values: int = 16, *, written: bool = False) -> ctypes.c_void_p:
    """A tb_torch_tensor over a TF_Tensor that nobody else holds, moved by a write or not."""
    out = ctypes.c_void_p()
    status = _LIBRARY.tb_tf_to_torch_consume(tf_tensor(values), None, ctypes.byref(out))
    assert status == 0, _LIBRARY.tb_last_error()
    if written:
        data = ctypes.c_void_p()
        assert _LIBRARY.tb_torch_tensor_mutable_data(out, ctypes.byref(data)) == 0
        ctypes.memset(data, 1, 4 * values)
    return out
