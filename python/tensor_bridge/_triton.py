"""triton beside TensorFlow, whose libraries can end the process that imports it.

Not for: importing either.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder

from tensor_bridge._loaded import loaded_tensorflow, version_pair
from tensor_bridge.errors import FrameworkError

__all__ = ["check", "import_aborts", "keep_tensorflow_local", "prepare", "warn_of_abort"]

# TensorFlow 2.19 to 2.21 ask this module of theirs whether to load their libraries RTLD_GLOBAL, and
# it says yes. Their LLVM then takes the place of every other one that is loaded later, triton's
# first of all: https://github.com/tensorflow/tensorflow/issues/124205
_GLOBAL_FLAGS = "tensorflow.python.pywrap_dlopen_global_flags"


_GLOBAL_RANGE = ((2, 19), (2, 21))


def is_installed(name: str) -> bool:
    """Whether a top-level package could be imported; 0.1 ms, without importing anything."""
    if name in sys.modules:
        return sys.modules[name] is not None
    return PathFinder.find_spec(name) is not None


def keep_tensorflow_local() -> None:
    """Makes TensorFlow, if it is imported later, load its libraries as every other release does.

    Only where triton is installed, which would end the process otherwise. A TensorFlow that is
    loaded, or being loaded, stays as it is. Called when tensor_bridge is imported.
    """
    if "tensorflow" not in sys.modules and is_installed("triton"):
        # An import that fails is how a TensorFlow without the module is recognised by its code.
        sys.modules.setdefault(_GLOBAL_FLAGS, None)  # type: ignore[arg-type]


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
    """Keeps TensorFlow, which is imported after this call, from crashing triton.

    TensorFlow 2.19 to 2.21 load their libraries with RTLD_GLOBAL, so that their LLVM takes the
    place of triton's; importing triton, as any optimizer of torch and `torch.compile` do where it
    is installed, then ends the process. Importing tensor_bridge before TensorFlow is enough where
    triton is installed; this says so whether it is or not, and finds out if it is too late.

    Raises:
      FrameworkError: TensorFlow is loaded already, and in that way.
    """
    if sys.modules.get(_GLOBAL_FLAGS) is None:
        sys.modules[_GLOBAL_FLAGS] = None  # type: ignore[assignment]
        return
    tensorflow = loaded_tensorflow()
    version = getattr(tensorflow, "__version__", "0")
    if _GLOBAL_RANGE[0] <= version_pair(version) <= _GLOBAL_RANGE[1]:
        raise FrameworkError(
            f"expected to be called before TensorFlow is imported, but TensorFlow {version} is "
            f"loaded; {_TRITON_REMEDY}",
            name="tensorflow",
        )
