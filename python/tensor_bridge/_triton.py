"""triton beside TensorFlow, whose libraries can end the process that imports it.

Not for: importing either.
"""

from __future__ import annotations

import sys

from tensor_bridge._load_order import GLOBAL_FLAGS, GLOBAL_RANGE, is_installed, was_loaded, watch
from tensor_bridge._loaded import loaded_tensorflow, version_pair
from tensor_bridge.errors import FrameworkError


def import_aborts() -> bool:
    """Whether importing triton, which any optimizer of torch does, would crash beside TensorFlow.

    So it is after TensorFlow 2.19 to 2.21 was imported, unless triton or tensor_bridge was imported
    before it.
    """
    tensorflow = loaded_tensorflow()
    return (
        tensorflow is not None
        and GLOBAL_RANGE[0] <= version_pair(tensorflow.__version__) <= GLOBAL_RANGE[1]
        and sys.modules.get(GLOBAL_FLAGS) is not None
        and not was_loaded("triton")
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
        watch()
        return
    if import_aborts():
        version = sys.modules["tensorflow"].__version__
        raise FrameworkError(
            f"expected to be called before TensorFlow is imported, but TensorFlow {version} is "
            f"loaded; {_TRITON_REMEDY}",
            name="tensorflow",
        )
