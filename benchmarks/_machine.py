"""The machine and versions of a benchmark, for the JSON beside the numbers.

No host, user or path is named.
"""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path


def describe_machine() -> dict[str, object]:
    """The processor, memory and system, and how busy it was."""
    return {
        "cpu": _proc_field("/proc/cpuinfo", "model name") or platform.processor(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {_major_minor(platform.release())}",
        "libc": " ".join(platform.libc_ver()),
        "load_average_1m": round(os.getloadavg()[0], 2),
    }


def describe_versions() -> dict[str, str]:
    """Versions of everything on which the numbers depend."""
    import tensorflow as tf
    import torch

    import tensor_bridge

    return {
        "tensor_bridge": tensor_bridge.__version__,
        "tensorflow": tf.__version__,
        "torch": torch.__version__,
        "numpy": metadata.version("numpy"),
        "python": platform.python_version(),
        "python_compiler": platform.python_compiler(),
    }


def _major_minor(release: str) -> str:
    return ".".join(release.split(".")[:2])


def _proc_field(file: str, name: str) -> str | None:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)
