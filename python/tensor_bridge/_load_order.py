"""Loads other packages' libraries before TensorFlow's, which would replace their symbols.

Not for: importing either framework's Python code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

# Note [TensorFlow's libraries are global]
# TensorFlow 2.19 to 2.21 ask the module below whether to load their libraries with RTLD_GLOBAL, and
# it says yes. Their definitions then replace all others of the same name in libraries that are
# loaded later: https://github.com/tensorflow/tensorflow/issues/124205
#   - LLVM, which triton needs;
#   - 3,500 functions of CUDA, which torch needs. TensorFlow's are stubs that lead to CUDA 12 if it
#     is found, and torch 2.14 is built for CUDA 13.
#
# TensorFlow's libraries must stay global. A library of operators that was linked without
# TensorFlow's, or that contains protobuf, depends on it: with RTLD_LOCAL the first kind cannot be
# loaded, and tensorflow_text 2.21 ends the process in `ngrams`. So we load the libraries of triton
# and torch before TensorFlow's, each RTLD_LOCAL and with all symbols resolved (RTLD_NOW). They keep
# their own definitions, and importing the package later finds its library loaded. TensorFlow uses
# its own CUDA.
GLOBAL_FLAGS = "tensorflow.python.pywrap_dlopen_global_flags"
GLOBAL_RANGE = ((2, 19), (2, 21))


def is_installed(name: str) -> bool:
    """Whether a top-level package could be imported; 0.1 ms, without importing anything."""
    if name in sys.modules:
        return sys.modules[name] is not None
    return PathFinder.find_spec(name) is not None


_loaded: set[str] = set()


def was_loaded(name: str) -> bool:
    """Whether a package's library was loaded before TensorFlow's."""
    return name in _loaded


def _folder(name: str) -> Path | None:
    # The current folder is left out: nobody has asked for the package yet.
    spec = PathFinder.find_spec(name, [*filter(None, sys.path)])
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _load(library: Path) -> bool:
    """Loads a native library; False if that fails: an unknown kind of file, or a broken one."""
    import ctypes

    try:
        ctypes.CDLL(str(library), mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError:
        return False
    return True


def _has_cuda_stubs() -> bool:
    """Whether the TensorFlow that is being imported defines CUDA's functions."""
    build = sys.modules.get("tensorflow.python.platform.build_info")
    # TensorFlow imports that module, to check the processor, before it loads a library.
    return bool(getattr(build, "build_info", {}).get("is_cuda_build"))


def _load_triton(folder: Path) -> None:
    if _load(folder / "_C" / "libtriton.so"):
        _loaded.add("triton")


def _load_torch(folder: Path) -> None:
    """Loads torch's libraries if torch is built with CUDA.

    It takes 0.25 s of processor time, which importing torch then saves. If torch is never imported,
    it costs 180 MiB of memory.
    """
    libraries = folder / "lib"
    if not (libraries / "libtorch_cuda.so").exists():
        return
    # This library loads all others, except two: torch loads these for linear algebra and for
    # kernels that are compiled at run time.
    if _load(libraries / "libtorch_python.so"):
        _load(libraries / "libtorch_cuda_linalg.so")
        _load(libraries / "libcaffe2_nvrtc.so")
        return
    # NVIDIA's libraries may be in a place where only torch's Python code looks.
    from contextlib import suppress

    with suppress(Exception):  # a broken torch: its own import will report it
        import torch  # noqa: F401


def _load_all() -> None:
    triton = _folder("triton")
    if triton is not None:
        _load_triton(triton)
    torch = _folder("torch") if _has_cuda_stubs() else None
    if torch is not None:
        _load_torch(torch)


class _BeforeTensorFlow:
    """Finds no module; notices TensorFlow's import of `GLOBAL_FLAGS`, just before it loads."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        # Other releases of TensorFlow try this import too, and have no such module.
        if name == GLOBAL_FLAGS and PathFinder.find_spec(name, path) is not None:
            _load_all()
        return None


def watch() -> None:
    """Loads the other libraries first, if TensorFlow is imported later and loads globally."""
    if not any(isinstance(finder, _BeforeTensorFlow) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BeforeTensorFlow())


def load_before_tensorflow() -> None:
    """Calls `watch` if there is a library to load first. Called when tensor_bridge is imported.

    Nothing is loaded until TensorFlow is, and TensorFlow is not changed.
    """
    if "tensorflow" not in sys.modules and (is_installed("triton") or is_installed("torch")):
        watch()
