"""A C view of a torch tensor on a GPU: its memory is released only after it was read."""

from __future__ import annotations

import ctypes

import tensorflow as tf
import torch
from cuda_gate import gated, wait_until

import tensor_bridge
from tensor_bridge import config
from tensor_bridge.testing import live_owners, tf_data_address

COUNT = 1 << 16


def capsule_of_view(x: torch.Tensor) -> object:
    """The DLPack capsule of a tb_tensor over `x`, which is then dropped."""
    library = ctypes.PyDLL(str(config.library_dir() / "libtensor_bridge.so"))
    view, structure = ctypes.c_void_p(), ctypes.c_void_p()
    assert library.tb_torch_tensor_view(ctypes.c_void_p(x._cdata), ctypes.byref(view)) == 0
    assert library.tb_tensor_to_dlpack(view, ctypes.byref(structure)) == 0
    library.tb_tensor_release(view)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    return new(structure, b"dltensor_versioned", None)


def test_a_view_outlives_what_was_queued_on_it() -> None:
    before = live_owners()
    for i in range(3):
        assert wait_until(lambda: live_owners() == before)
        t = tf.fill([COUNT], float(i))
        address = tf_data_address(t)
        x = tensor_bridge.to_torch(t)
        capsule = capsule_of_view(x)
        x.add_(1)  # x moves, so that only the view has TensorFlow's memory
        torch.cuda.synchronize()
        assert wait_until(lambda: live_owners() == before + 1)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side), gated(side):
            y = torch.utils.dlpack.from_dlpack(capsule)
            assert y.data_ptr() == address
            z = y * 1
            del y, t, capsule
            kept = [tf.fill([COUNT], -1.0) for _ in range(16)]
            float(kept[-1][0])
        side.synchronize()
        assert z.unique().tolist() == [float(i)]
        del kept
