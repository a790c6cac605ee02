"""Files for tests that take long to make: kept in build/ until an input changes."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from tree import ROOT


@functools.cache
def environment() -> str:
    """Python, and every installed distribution with its version, as an input."""
    every = {f"{each.name} {each.version}" for each in importlib.metadata.distributions()}
    return "\n".join([sys.version, *sorted(every)])


def made(name: str, inputs: Iterable[str | Path], make: Callable[[Path], None]) -> Path:
    """A folder that `make` has filled, now or in an earlier run with the same inputs.

    Args:
      name: The name of the folder in build/made. Tests that run at the same time need different
        names.
      inputs: Everything that the result depends on: texts, such as commands and versions, and
        existing files or folders of files.
      make: Fills the empty folder that it is given. If it raises, nothing is kept.
    """
    digest = hashlib.sha256()
    for given in inputs:
        for each in _files(given) if isinstance(given, Path) else [given]:
            data = each.read_bytes() if isinstance(each, Path) else b""
            digest.update(f"{each}\0{len(data)}\0".encode() + data)
    folder = ROOT / "build" / "made" / name
    # Written last, so that an interrupted result is made again.
    done = folder / ".inputs"
    if not done.is_file() or done.read_text("utf-8") != digest.hexdigest():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder)
        done.write_text(digest.hexdigest(), "utf-8")
    return folder


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    every = (each for each in path.rglob("*") if each.is_file())
    return sorted(each for each in every if "__pycache__" not in each.parts)
