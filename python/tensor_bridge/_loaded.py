"""What this process has loaded. Not for: importing anything, or judging versions."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def version_pair(version: str) -> tuple[int, int]:
    """(major, minor) of a version string such as "2.13.0+cpu"."""
    parts = version.split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (IndexError, ValueError):
        return 0, 0


def loaded_tensorflow() -> Any | None:
    """The tensorflow module if this process has loaded it; never imports it."""
    module = sys.modules.get("tensorflow")
    # A stub, or a module that is still being imported, has no version.
    return module if getattr(module, "__version__", None) is not None else None
