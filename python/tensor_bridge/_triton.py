"""triton beside TensorFlow, whose libraries can make importing triton abort the process.

Not for: importing either.
"""

from __future__ import annotations

import sys

from tensor_bridge._load_order import GLOBAL_FLAGS, GLOBAL_RANGE, is_installed, was_loaded, watch
from tensor_bridge._loaded import loaded_tensorflow, version_pair
from tensor_bridge.errors import FrameworkError


def import_aborts() -> bool:
    """Whether importing triton, as any optimizer of torch does, would abort the process.

    It would after an import of TensorFlow 2.19 to 2.21, unless triton or tensor_bridge was imported
    before TensorFlow.
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
    "every import that loads TensorFlow"
)


def check(what: str) -> None:
    """Checks that a call, which imports triton, would not abort the process.

    Args:
      what: The call, as the message names it.

    Raises:
      FrameworkError: It would abort.
    """
    if import_aborts():
        version = sys.modules["tensorflow"].__version__
        raise FrameworkError(
            f"{what} imports triton, and TensorFlow {version}, which was imported before "
            f"tensor_bridge, has replaced triton's LLVM by its own: the process would abort. "
            f"Instead {_TRITON_REMEDY}",
            name="triton",
        )


_warned = False


def warn_of_abort() -> None:
    """Warns, once in a process, of an abort that this package can no longer prevent."""
    global _warned
    if _warned or not import_aborts():
        return
    _warned = True
    import warnings

    version = sys.modules["tensorflow"].__version__
    warnings.warn(
        f"TensorFlow {version} was imported before tensor_bridge, and its LLVM has replaced "
        "triton's: making any optimizer of torch, or torch.compile, will abort this process. "
        f"Instead {_TRITON_REMEDY}",
        RuntimeWarning,
        stacklevel=2,
    )


def prepare() -> None:
    """Prepares the process to use triton beside TensorFlow; call it before importing TensorFlow.

    TensorFlow 2.19 to 2.21 load their libraries with RTLD_GLOBAL, so their LLVM replaces triton's.
    Importing triton, as any optimizer of torch and `torch.compile` do if it is installed, then
    aborts the process. Importing tensor_bridge before TensorFlow prevents that if triton is
    importable at that time; after this call triton may also be added to the path later.

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
