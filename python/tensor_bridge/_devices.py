"""TensorFlow's logical GPUs, and the numbers of the same GPUs in torch, DLPack and CUDA.

TensorFlow counts logical devices: with `tf.config.set_visible_devices` or virtual devices its GPU:1
may be any of the process's GPUs. Not for: finding the device of memory; its address tells that.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from tensor_bridge import _C


class kept:  # noqa: N801  used like a function
    """Restores torch's current device, which TensorFlow changes to the one that it works on."""

    __slots__ = ("_device",)

    def __enter__(self) -> None:
        cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)
        ready = cuda is not None and cuda.is_initialized()
        self._device: int | None = cuda.current_device() if ready else None

    def __exit__(self, *error: object) -> None:
        if self._device is not None:
            sys.modules["torch"].cuda.set_device(self._device)


@cache
def gpu_of_logical(logical: int) -> int:
    """The GPU that TensorFlow's logical device ``GPU:logical`` is on.

    A tensor that is put on the device tells it. After that TensorFlow's visible devices are fixed.
    """
    import tensorflow as tf

    with kept(), tf.init_scope(), tf.device(f"GPU:{logical}"):
        found = _C.gpu_of_address(_C.tf_address(tf.constant([0.0])))
    return logical if found < 0 else found


def logical_of_gpu(gpu: int) -> int | None:
    """The first of TensorFlow's logical devices on a GPU; None if TensorFlow does not use it."""
    import tensorflow as tf

    count = len(tf.config.list_logical_devices("GPU"))
    return next((i for i in range(count) if gpu_of_logical(i) == gpu), None)
