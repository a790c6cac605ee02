"""Tensors that Python does not know, through the neutral family of the C interface."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence

from c_threads import run_in_c_threads, tf_tensor
from needs import torch_release

from tensor_bridge import config

SIZE = 64  # elements of 4 bytes
_LIBRARY = ctypes.CDLL(config.library_dir() / "libtensor_bridge.so")
_POINTER = ctypes.c_void_p
_LIBRARY.tb_tf_to_torch.argtypes = (_POINTER, _POINTER, _POINTER)
_LIBRARY.tb_torch_to_tf.argtypes = (_POINTER, _POINTER, _POINTER)
_LIBRARY.tb_torch_tensor_view.argtypes = (_POINTER, _POINTER)
_LIBRARY.tb_torch_tensor_mutable_data.argtypes = (_POINTER, _POINTER)
_LIBRARY.tb_tensor_data.argtypes = (_POINTER,)
_LIBRARY.tb_tensor_data.restype = _POINTER
_LIBRARY.tb_tensor_release.argtypes = (_POINTER,)
_LIBRARY.tb_last_error.restype = ctypes.c_char_p


@functools.cache
def _tensorflow() -> ctypes.CDLL:
    library = ctypes.CDLL("libtensorflow_framework.so.2")
    library.TF_TensorData.argtypes = library.TF_DeleteTensor.argtypes = (_POINTER,)
    library.TF_TensorData.restype = _POINTER
    return library


def _call(name: str, *arguments: ctypes.c_void_p | None) -> ctypes.c_void_p:
    out = ctypes.c_void_p()
    if getattr(_LIBRARY, name)(*arguments, ctypes.byref(out)) != 0:
        raise RuntimeError(f"{name}: {_LIBRARY.tb_last_error().decode()}")
    return out


def _torch_bytes(x: ctypes.c_void_p) -> bytes:
    view = _call("tb_torch_tensor_view", x)
    try:
        return ctypes.string_at(_LIBRARY.tb_tensor_data(view), 4 * SIZE)
    finally:
        _LIBRARY.tb_tensor_release(view)


def run_steps(steps: Sequence[str]) -> str:
    """Does the steps on one buffer, compares after each, releases all; returns what was wrong."""
    tensorflow = _tensorflow()
    assert _LIBRARY.tb_use_torch(*torch_release) == 0
    first = tf_tensor(SIZE)
    ctypes.memset(tensorflow.TF_TensorData(first), 0x11, 4 * SIZE)
    of_tf = [(first, b"\x11" * 4 * SIZE)]
    of_torch = [[_call("tb_tf_to_torch", first, None), of_tf[0][1]]]
    try:
        for i, step in enumerate(steps):
            if step == "again" and of_tf:
                of_torch.append([_call("tb_tf_to_torch", of_tf[-1][0], None), of_tf[-1][1]])
            elif step == "back" and of_torch:
                x, content = of_torch[-1]
                of_tf.append((_call("tb_torch_to_tf", x, None), content))
            elif step == "write" and of_torch:
                data = _call("tb_torch_tensor_mutable_data", of_torch[-1][0])
                ctypes.memset(data, i + 1, 4 * SIZE)
                of_torch[-1][1] = bytes([i + 1]) * 4 * SIZE
            elif step == "drop torch" and of_torch:
                _LIBRARY.tb_torch_tensor_release(of_torch.pop(0)[0])
            elif step == "drop tf" and of_tf:
                tensorflow.TF_DeleteTensor(of_tf.pop(0)[0])
            for t, content in of_tf:
                if ctypes.string_at(tensorflow.TF_TensorData(t), 4 * SIZE) != content:
                    return f"TensorFlow's values after step {i}"
            for x, content in of_torch:
                if _torch_bytes(x) != content:
                    return f"torch's values after step {i}"
        return ""
    finally:
        run_in_c_threads(_LIBRARY.tb_torch_tensor_release, [x for x, _ in of_torch])
        run_in_c_threads(tensorflow.TF_DeleteTensor, [t for t, _ in of_tf])
