"""A copy of the package whose files a test may spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import tensor_bridge
from tensor_bridge import config

FROM_COPY = """
import sys
sys.meta_path = [f for f in sys.meta_path if not type(f).__module__.startswith("_editable")]
sys.path.insert(0, {folder!r})
import tensor_bridge
assert tensor_bridge.__file__.startswith({folder!r})
"""
"""Imports it in a new process, which an editable installation would lead to the original."""


def copy_of_the_package(folder: Path) -> Path:
    """The package with its libraries, importable from ``folder``."""
    package = folder / "tensor_bridge"
    source = Path(tensor_bridge.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    for library in config.library_dir().glob("*.so"):
        shutil.copy(library, package)
    return package
