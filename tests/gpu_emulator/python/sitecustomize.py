"""Loads the emulated CUDA runtime in each Python process of the rig before its program.

torch's libraries look for libcudart.so.13 in NVIDIA's packages before LD_LIBRARY_PATH. They use a
library that is already loaded under that name instead, so NVIDIA's file need not change.
"""

import ctypes
import os

if "CUDA_EMU_LIB" in os.environ:
    ctypes.CDLL(os.path.join(os.environ["CUDA_EMU_LIB"], "libcudart.so.13"))  # noqa: PTH118 # fast
