"""Python's interface of the emulated device: its calls and its violations.

NOT A GPU. Works only in a process of the rig, which `tests/gpu_emulator/emulated_gpu.py` starts.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

LIBRARIES = Path(os.environ["CUDA_EMU_LIB"])
MODES = ("immediate", "lazy", "random")

_device = ctypes.CDLL(str(LIBRARIES / "libemu.so"))
for _name in ("emu_violation", "emu_unemulated_name", "emu_call"):
    getattr(_device, _name).restype = ctypes.c_char_p
_device.emu_pending.restype = ctypes.c_int64


class Call(NamedTuple):
    """A line of the log: a call of CUDA, an operator, or WAIT if the host waits for the device."""

    thread: int
    name: str
    stream: int | None
    text: str


def load() -> None:
    """Imports both frameworks and replaces their kernels with the stand-ins."""
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    # In the order that the docs recommend, in which each framework has its own CUDA.
    import tensor_bridge  # noqa: F401, I001
    import tensorflow as tf
    import torch

    torch.ops.load_library(str(LIBRARIES / "libemu_torch.so"))
    tf.load_library(str(LIBRARIES / "libemu_tf.so"))


def mode() -> str:
    """When the work of a stream runs."""
    return MODES[_device.emu_mode()]


def pending() -> int:
    """The number of operations that are queued and not done."""
    return int(_device.emu_pending())


def take_violations() -> list[str]:
    """Removes and returns the violations since the last call: races, forbidden calls.

    The plugin does not see them then.
    """
    found = [_device.emu_violation(i).decode() for i in range(_device.emu_violations())]
    _device.emu_clear_violations()
    return found


def take_missing_kernels() -> list[str]:
    """Removes and returns the kernels without a stand-in that were launched since the last call."""
    found = [_device.emu_unemulated_name(i).decode() for i in range(_device.emu_unemulated())]
    _device.emu_clear_unemulated()
    return found


def _call(line: str) -> Call:
    thread, name, stream, text = line.split("\t", 3)
    return Call(int(thread), name, None if stream == "-" else int(stream), text)


@contextmanager
def logged() -> Iterator[list[Call]]:
    """A list that has the calls of all threads during the block when the block ends."""
    calls: list[Call] = []
    _device.emu_keep_calls(1)
    try:
        yield calls
    finally:
        calls += [_call(_device.emu_call(i).decode()) for i in range(_device.emu_calls())]
        _device.emu_keep_calls(0)


def host_waits(calls: list[Call]) -> list[Call]:
    """The calls at which a host thread waits for the device, whether its work is done or not."""
    return [call for call in calls if call.name == "WAIT"]
