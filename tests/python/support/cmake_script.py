"""Runs a few lines with our CMake modules. Not for what needs a compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tree import ROOT

CMAKE = shutil.which("cmake", path=str(Path(sys.executable).parent)) or "cmake"


def run_cmake(folder: Path, script: str, **env: str) -> tuple[bool, str]:
    """Runs `script` with our modules on the path: whether it succeeded, and what it printed."""
    path = folder / "script.cmake"
    prelude = (
        f'list(APPEND CMAKE_MODULE_PATH "{ROOT / "cmake"}")\nset(PROJECT_BINARY_DIR "{folder}")\n'
    )
    path.write_text(prelude + script, encoding="utf-8")
    result = subprocess.run(
        [CMAKE, "-P", str(path)],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | env,
    )
    return result.returncode == 0, " ".join((result.stdout + result.stderr).split())
