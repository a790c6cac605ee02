"""The processor that a wheel is made for: this machine's, or the one that `make ARCH=` names."""

from __future__ import annotations

import os
import platform
from pathlib import Path

SUPPORTED = ("x86_64", "aarch64")
ARCH = os.environ.get("TENSOR_BRIDGE_ARCH") or platform.machine()
if ARCH not in SUPPORTED:
    raise SystemExit(f"ARCH={ARCH}: wheels are made for {' and '.join(SUPPORTED)}")
CROSS = platform.machine() != ARCH
# Of files and folders for another processor, which lie beside those for this one.
SUFFIX = f"-{ARCH}" if CROSS else ""
PLATFORM = f"manylinux_2_28_{ARCH}"
TOOLCHAIN = Path(__file__).resolve().parents[1] / "cmake" / "cross" / f"{ARCH}.cmake"


def tool(name: str) -> str:
    """The command of a compiler, or of what reads its output."""
    return f"{ARCH}-linux-gnu-{name}" if CROSS else name
