"""triton beside TensorFlow, whose libraries can end the process that imports it.

Not for: importing either.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from tensor_bridge._loaded import loaded_tensorflow, version_pair
from tensor_bridge.errors import FrameworkError

__all__ = ["check", "import_aborts", "load_before_tensorflow", "prepare", "warn_of_abort"]

# TensorFlow 2.19 to 2.21 ask this module of theirs whether to load their libraries RTLD_GLOBAL, and
# it says yes. Their LLVM then takes the place of every other one that is loaded later, triton's
# first of all: https://github.com/tensorflow/tensorflow/issues/124205
#
# They stay loaded so. An operator's library that was linked without TensorFlow's, or that brings
# protobuf along, counts on it: with RTLD_LOCAL the first is not loaded, and tensorflow_text 2.21
# ends the process in `ngrams`. Instead triton's library is loaded before theirs. Then it has found
# all its symbols, and those are its own; its later import takes what is loaded.
_GLOBAL_FLAGS = "tensorflow.python.pywrap_dlopen_global_flags"
_GLOBAL_RANGE = ((2, 19), (2, 21))


def is_installed(name: str) -> bool:
    """Whether a top-level package could be imported; 0.1 ms, without importing anything."""
    if name in sys.modules:
        return sys.modules[name] is not None
    return PathFinder.find_spec(name) is not None


_loaded = False


def _load_library() -> None:
    """Loads triton's native library, 0.1 s, and nothing of its Python code."""
    global _loaded
    # Not out of the current folder: nobody has asked for triton yet.
    spec = PathFinder.find_spec("triton", [*filter(None, sys.path)])
    if spec is None or spec.origin is None:
        return
    import ctypes

    library = Path(spec.origin).parent / "_C" / "libtriton.so"
    try:
        ctypes.CDLL(str(library), mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError:
        return  # Not the triton that we know, or none that can be imported: as if we were not here.
    _loaded = True


class _BeforeTensorFlow:
    """Finds no module; sees TensorFlow ask for its own, just before it loads its libraries."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        # Other releases ask too, and have no such module.
        if name == _GLOBAL_FLAGS and PathFinder.find_spec(name, path) is not None:
            _load_library()
        return None


def _watch() -> None:
    if not any(isinstance(finder, _BeforeTensorFlow) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BeforeTensorFlow())


def load_before_tensorflow() -> None:
    """Makes TensorFlow, if it is imported later and loads globally, load triton's library first.

    Only where triton is installed, which would end the process otherwise. Nothing is loaded before
    TensorFlow is, and TensorFlow stays as it is. Called when tensor_bridge is imported.
    """
    if "tensorflow" not in sys.modules and is_installed("triton"):
        _watch()


def import_aborts() -> bool:
    """Whether importing triton, which any optimizer of torch does, would crash beside TensorFlow.

    So it is after TensorFlow 2.19 to 2.21 was imported, unless triton or tensor_bridge was imported
    before it.
    """
    tensorflow = loaded_tensorflow()
    return (
        tensorflow is not None
        and _GLOBAL_RANGE[0] <= version_pair(tensorflow.__version__) <= _GLOBAL_RANGE[1]
        and sys.modules.get(_GLOBAL_FLAGS) is not None
        and not _loaded
        and "triton" not in sys.modules
        and is_installed("triton")
    )


_TRITON_REMEDY = (
    "import tensor_bridge (or triton) before TensorFlow, in the file that starts the program above "
    "all that imports it"
)


def check(what: str) -> None:
    """Refuses what would import triton where that ends the process.

    Raises:
      FrameworkError: It would.
    """
    if import_aborts():
        version = sys.modules["tensorflow"].__version__
        raise FrameworkError(
            f"{what} imports triton, and TensorFlow {version}, which was imported before "
            f"tensor_bridge, has put its LLVM in the place of triton's: the process would abort. "
            f"Instead {_TRITON_REMEDY}",
            name="triton",
        )


_warned = False


def warn_of_abort() -> None:
    """Warns, once in a process, of an abort that is to come and not ours to prevent."""
    global _warned
    if _warned or not import_aborts():
        return
    _warned = True
    import warnings

    version = sys.modules["tensorflow"].__version__
    warnings.warn(
        f"TensorFlow {version} was imported before tensor_bridge, and its LLVM has taken the place "
        "of triton's: making any optimizer of torch, or torch.compile, will abort this process. "
        f"Instead {_TRITON_REMEDY}",
        RuntimeWarning,
        stacklevel=2,
    )


def prepare() -> None:
    """Says that triton is to be used beside TensorFlow, and finds out if it is too late for that.

    TensorFlow 2.19 to 2.21 load their libraries with RTLD_GLOBAL, so that their LLVM takes the
    place of triton's; importing triton, as any optimizer of torch and `torch.compile` do where it
    is installed, then ends the process. Importing tensor_bridge before TensorFlow prevents it where
    triton is installed by then; after this call it may also come to the path later.

    Raises:
      FrameworkError: TensorFlow was imported before tensor_bridge, and triton would abort.
    """
    if "tensorflow" not in sys.modules:
        _watch()
        return
    if import_aborts():
        version = sys.modules["tensorflow"].__version__
        raise FrameworkError(
            f"expected to be called before TensorFlow is imported, but TensorFlow {version} is "
            f"loaded; {_TRITON_REMEDY}",
            name="tensorflow",
        )
