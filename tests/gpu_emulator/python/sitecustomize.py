"""Read by each Python process of the rig before its program: CUDA's runtime is the emulated one.

torch's libraries look for libcudart.so.13 beside NVIDIA's packages before LD_LIBRARY_PATH. What is
loaded already under that name is taken instead, and NVIDIA's file stays as it is.
"""

import ctypes
import os

if "CUDA_EMU_LIB" in os.environ:
    ctypes.CDLL(os.path.join(os.environ["CUDA_EMU_LIB"], "libcudart.so.13"))  # noqa: PTH118 # fast
