"""The two frameworks: lazy import, supported version ranges, conflicts.

torch is imported at the first conversion. TensorFlow never is: where it is not loaded there is no
TensorFlow tensor to convert.
"""

from __future__ import annotations

import sys
from typing import Any

from tensor_bridge.errors import FrameworkError

__all__ = [
    "TENSORFLOW_RANGE",
    "TORCH_RANGE",
    "ensure",
    "ensure_tensorflow",
    "loaded_tensorflow",
    "version_pair",
]

TORCH_RANGE = ((2, 6), (2, 15))
"""First and last supported (major, minor) of torch."""

TENSORFLOW_RANGE = ((2, 12), (2, 21))
"""First and last supported (major, minor) of TensorFlow."""

_OTHER_DISTRIBUTION = "tensor-bridge"
_OUR_DISTRIBUTION = "tf-torch-tensor-bridge"


def version_pair(version: str) -> tuple[int, int]:
    """(major, minor) of a version string such as "2.13.0+cpu"."""
    parts = version.split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (IndexError, ValueError):
        return 0, 0


def _check_range(
    name: str, version: str, supported: tuple[tuple[int, int], tuple[int, int]]
) -> tuple[int, int]:
    pair = version_pair(version)
    first, last = supported
    if not first <= pair <= last:
        upper = f"{last[0]}.{last[1] + 1}"
        raise FrameworkError(
            f"expected {name} {first[0]}.{first[1]} to {last[0]}.{last[1]}, got {name} {version}. "
            f"Install a supported release: pip install '{name}>={first[0]}.{first[1]},<{upper}'",
            name=name,
        )
    return pair


def _import_torch() -> Any:
    try:
        import torch
    except Exception as e:  # whatever a broken installation raises
        if isinstance(e, ModuleNotFoundError) and e.name == "torch":
            raise FrameworkError(
                "torch is not installed; tensor_bridge needs torch "
                f"{TORCH_RANGE[0][0]}.{TORCH_RANGE[0][1]} to "
                f"{TORCH_RANGE[1][0]}.{TORCH_RANGE[1][1]}. "
                f"Install it: pip install '{_OUR_DISTRIBUTION}[torch]'",
                name="torch",
            ) from e
        raise FrameworkError(
            f"torch is installed but cannot be imported: {type(e).__name__}: {e}. Install it "
            "again: pip install --force-reinstall torch",
            name="torch",
        ) from e
    if not hasattr(torch, "__version__"):
        raise FrameworkError(
            f"expected torch, got a folder of that name, {list(torch.__path__)}, which is not "
            "torch; remove it, or install torch again: pip install --force-reinstall torch",
            name="torch",
        )
    return torch


def loaded_tensorflow() -> Any | None:
    """The tensorflow module if this process has loaded it; never imports it."""
    module = sys.modules.get("tensorflow")
    # A stub, or a module that is still being imported, has no version.
    return module if getattr(module, "__version__", None) is not None else None


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
        f"pip uninstall -y {_OTHER_DISTRIBUTION} {_OUR_DISTRIBUTION} && "
        f"pip install {_OUR_DISTRIBUTION}",
        name="tensor_bridge",
    )


def ensure_tensorflow() -> Any:
    """Imports TensorFlow, checks its version, and initialises its eager context.

    For conversions to TensorFlow, which make the first TensorFlow tensor of a process.

    Raises:
      FrameworkError: TensorFlow is missing, broken or of an unsupported version.
    """
    first, last = TENSORFLOW_RANGE
    try:
        import tensorflow
        from tensorflow.python.eager import context
    except ModuleNotFoundError as e:
        if e.name is None or e.name.split(".")[0] != "tensorflow":
            raise FrameworkError(
                f"TensorFlow is installed but cannot be imported: {e}", name="tensorflow"
            ) from e
        raise FrameworkError(
            "TensorFlow is not installed; converting to it needs TensorFlow "
            f"{first[0]}.{first[1]} to {last[0]}.{last[1]}. "
            f"Install it: pip install '{_OUR_DISTRIBUTION}[tensorflow]'",
            name="tensorflow",
        ) from e
    except (ImportError, OSError) as e:
        raise FrameworkError(
            f"TensorFlow is installed but cannot be imported: {e}. Install it again: "
            "pip install --force-reinstall tensorflow",
            name="tensorflow",
        ) from e
    _check_range("tensorflow", tensorflow.__version__, TENSORFLOW_RANGE)
    context.context().ensure_initialized()
    return tensorflow


def ensure() -> tuple[int, int]:
    """Imports torch and checks what is loaded.

    Returns:
      torch's (major, minor), for the choice of its adapter.

    Raises:
      FrameworkError: torch is missing or broken, a version is unsupported, or another distribution
        with the same import name is installed.
    """
    _check_distribution()
    torch = _import_torch()
    pair = _check_range("torch", torch.__version__, TORCH_RANGE)
    tensorflow = loaded_tensorflow()
    if tensorflow is not None:
        _check_range("tensorflow", tensorflow.__version__, TENSORFLOW_RANGE)
    return pair
