"""What is loaded just before TensorFlow's libraries, so that those do not take its place.

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
# TensorFlow 2.19 to 2.21 ask this module of theirs whether to load their libraries RTLD_GLOBAL, and
# it says yes. What they define then takes the place of every other definition of that name for
# whoever is loaded later: https://github.com/tensorflow/tensorflow/issues/124205
#   - LLVM, for triton;
#   - 3,500 functions of CUDA, for torch. TensorFlow's are stubs that lead to CUDA 12 where it finds
#     that, and torch 2.14 is built for 13.
#
# They stay loaded so. An operator's library that was linked without TensorFlow's, or that brings
# protobuf along, counts on it: with RTLD_LOCAL the first is not loaded, and tensorflow_text 2.21
# ends the process in `ngrams`. Instead the libraries of the others are loaded before theirs, each
# for itself (RTLD_LOCAL) and with all its symbols found (RTLD_NOW). Those stay its own; its later
# import takes what is loaded, and TensorFlow has its own CUDA.
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
    # Not out of the current folder: nobody has asked for the package yet.
    spec = PathFinder.find_spec(name, [*filter(None, sys.path)])
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _load(library: Path) -> bool:
    """Loads a native library; False where that fails: not one that we know, or a broken one."""
    import ctypes

    try:
        ctypes.CDLL(str(library), mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError:
        return False
    return True


def _has_cuda_stubs() -> bool:
    """Whether the TensorFlow that is being imported defines CUDA's functions."""
    build = sys.modules.get("tensorflow.python.platform.build_info")
    # It checks the processor by that module before it loads anything.
    return bool(getattr(build, "build_info", {}).get("is_cuda_build"))


def _load_triton(folder: Path) -> None:
    if _load(folder / "_C" / "libtriton.so"):
        _loaded.add("triton")


def _load_torch(folder: Path) -> None:
    """Loads torch's libraries where it is built with CUDA.

    It takes 0.25 s of processor time, which importing torch then saves, and 180 MiB of memory where
    nobody imports it.
    """
    libraries = folder / "lib"
    if not (libraries / "libtorch_cuda.so").exists():
        return
    # It brings all others along, but for the two that torch loads when linear algebra, or a kernel
    # that is compiled at run time, asks for them.
    if _load(libraries / "libtorch_python.so"):
        _load(libraries / "libtorch_cuda_linalg.so")
        _load(libraries / "libcaffe2_nvrtc.so")
        return
    # NVIDIA's libraries may be where only torch's Python code looks for them.
    from contextlib import suppress

    with suppress(Exception):  # of a broken torch, whose own import will say it
        import torch  # noqa: F401


def _load_all() -> None:
    triton = _folder("triton")
    if triton is not None:
        _load_triton(triton)
    torch = _folder("torch") if _has_cuda_stubs() else None
    if torch is not None:
        _load_torch(torch)


class _BeforeTensorFlow:
    """Finds no module; sees TensorFlow ask for its own, just before it loads its libraries."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        # Other releases ask too, and have no such module.
        if name == GLOBAL_FLAGS and PathFinder.find_spec(name, path) is not None:
            _load_all()
        return None


def watch() -> None:
    """Makes TensorFlow, if it is imported later and loads globally, load the others' first."""
    if not any(isinstance(finder, _BeforeTensorFlow) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BeforeTensorFlow())


def load_before_tensorflow() -> None:
    """`watch`, where there is anything to load first. Called when tensor_bridge is imported.

    Nothing is loaded before TensorFlow is, and TensorFlow stays as it is.
    """
    if "tensorflow" not in sys.modules and (is_installed("triton") or is_installed("torch")):
        watch()
