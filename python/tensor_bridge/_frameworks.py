"""The two frameworks: lazy import, supported version ranges, conflicts.

torch is imported at the first conversion. A conversion to torch never imports TensorFlow: without
it there is no TensorFlow tensor to convert.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, NamedTuple

from tensor_bridge import _triton
from tensor_bridge._loaded import loaded_tensorflow, version_pair
from tensor_bridge.errors import FrameworkError

TORCH_RANGE = ((2, 6), (2, 15))
"""First and last supported (major, minor) of torch."""

TENSORFLOW_RANGE = ((2, 12), (2, 21))
"""First and last supported (major, minor) of TensorFlow."""

_OTHER_DISTRIBUTION = "tensor-bridge"
_OUR_DISTRIBUTION = "tf-torch-tensor-bridge"

# No index has it.
FROM_HERE = (
    "tensor_bridge from a checkout (pip install --no-build-isolation --force-reinstall --no-deps "
    ".) or from its wheel (pip install --force-reinstall --no-deps WHEEL)"
)
"""Where it can be installed from."""


_Range = tuple[tuple[int, int], tuple[int, int]]


def _check_range(name: str, version: str, supported: _Range) -> tuple[int, int]:
    pair = version_pair(version)
    first, last = supported
    if pair < first or (pair > last and supported is not TORCH_RANGE):
        upper = f"{last[0]}.{last[1] + 1}"
        raise FrameworkError(
            f"expected {name} {first[0]}.{first[1]} to {last[0]}.{last[1]}, got {name} {version}. "
            f"Install a supported release: pip install '{name}>={first[0]}.{first[1]},<{upper}'",
            name=name,
        )
    return pair


def _import(module: str, name: str, supported: _Range) -> Any:
    """Imports ``module``, part of the framework that is called ``name``.

    Raises:
      FrameworkError: it is missing or broken.
    """
    package = module.split(".")[0]
    first, last = supported
    try:
        imported = import_module(module)
    except Exception as e:  # whatever a broken installation raises
        if isinstance(e, ModuleNotFoundError) and e.name == package:
            raise FrameworkError(
                f"{name} is not installed; tensor_bridge needs {name} {first[0]}.{first[1]} to "
                f"{last[0]}.{last[1]}. Install it: pip install '{package}>={first[0]}.{first[1]},"
                f"<{last[0]}.{last[1] + 1}'",
                name=package,
            ) from e
        raise FrameworkError(
            f"{name} is installed but cannot be imported: {type(e).__name__}: {e}. Install it "
            f"again: pip install --force-reinstall {package}",
            name=package,
        ) from e
    if module == package and not hasattr(imported, "__version__"):
        # A namespace package over the remains of an uninstallation, or a user's own torch.py.
        where = getattr(imported, "__file__", None) or next(iter(imported.__path__))
        raise FrameworkError(
            f"expected {name}, got something else of that name, {where}; rename or remove it, or "
            f"install {name} again: pip install --force-reinstall {package}",
            name=package,
        )
    return imported


def _check_distribution() -> None:
    """Refuses to work beside the other project whose import name is the same."""
    from importlib import metadata

    try:
        other = metadata.version(_OTHER_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return
    raise FrameworkError(
        f"{_OTHER_DISTRIBUTION} {other} is installed too. It is another project (CUDA only, no "
        f"TensorFlow) with the same import name, and each overwrites the other's files. Keep one: "
        f"pip uninstall -y {_OTHER_DISTRIBUTION} {_OUR_DISTRIBUTION}, then install the one again, "
        f"{FROM_HERE}",
        name="tensor_bridge",
    )


def ensure_tensorflow() -> Any:
    """Imports TensorFlow, checks its version, and initialises its eager context.

    For conversions to TensorFlow, which make the first TensorFlow tensor of a process.

    Raises:
      FrameworkError: TensorFlow is missing, broken or of an unsupported version.
    """
    tensorflow = _import("tensorflow", "TensorFlow", TENSORFLOW_RANGE)
    _check_range("tensorflow", tensorflow.__version__, TENSORFLOW_RANGE)
    # No public function makes the runtime ready without making a tensor (TensorFlow 2.12 to 2.21).
    context = _import("tensorflow.python.eager.context", "TensorFlow", TENSORFLOW_RANGE)
    context.context().ensure_initialized()
    return tensorflow


class Copying(NamedTuple):
    """Why every conversion of this process copies, and what to do about it."""

    reason: str
    remedy: str


copying: Copying | None = None
"""None where memory is shared, or nothing was converted yet."""


def say_that_it_copies(reason: str) -> None:
    """Warns, once in a process, that every conversion copies."""
    global copying
    if copying is not None:
        return
    import warnings

    (_, first), last = TORCH_RANGE
    upper = f"{last[0]}.{last[1] + 1}"
    remedy = (
        f"install a newer tensor_bridge, or an older torch: pip install 'torch<{upper}'"
        if version_pair(sys.modules["torch"].__version__) > last
        else f"install another build of torch 2.{first} to {last[0]}.{last[1]}, as from PyPI: "
        f"pip install --force-reinstall 'torch>=2.{first},<{upper}'"
    )
    copying = Copying(reason, remedy)
    warnings.warn(
        f"{reason}: every conversion copies, because writes to shared memory could not be "
        f"intercepted. To share, {remedy}",
        RuntimeWarning,
        stacklevel=2,
    )


def adapters() -> tuple[str, ...]:
    """The adapters that are installed, each by the first torch release of its group."""
    from tensor_bridge import config

    try:
        libraries = config.library_dir().glob("libtensor_bridge_torch_*.so")
    except FrameworkError:
        return ()
    names = (path.stem.removeprefix("libtensor_bridge_torch_") for path in libraries)
    pairs = sorted(tuple(map(int, name.split("_"))) for name in names)
    return tuple(".".join(map(str, pair)) for pair in pairs)


def _is_proven(version: str) -> bool:
    """Whether an adapter is proven with this release of torch, which is in the supported range.

    The wheel's adapters are built from released headers, and a pre-release ("2.10.0a0+gitabc",
    "2.14.0.dev20260801") may have the layout of the release before. A single adapter was built from
    the headers of the torch that was installed then.
    """
    import re

    released = re.fullmatch(r"\d+(\.\d+)*(\.post\d+)?", version.partition("+")[0])
    return released is not None or len(adapters()) == 1


def ensure() -> tuple[int, int, bool]:
    """Imports torch and checks what is loaded.

    Returns:
      torch's major and minor version, which choose the adapter, and whether that adapter is proven
      with this torch. torch may be newer than the range.

    Raises:
      FrameworkError: torch is missing or broken, a version is unsupported, or another distribution
        with the same import name is installed.
    """
    _check_distribution()
    torch = _import("torch", "torch", TORCH_RANGE)
    pair = _check_range("torch", torch.__version__, TORCH_RANGE)
    tensorflow = loaded_tensorflow()
    if tensorflow is not None:
        _check_range("tensorflow", tensorflow.__version__, TENSORFLOW_RANGE)
        _triton.warn_of_abort()
    return (*pair, _is_proven(torch.__version__))
