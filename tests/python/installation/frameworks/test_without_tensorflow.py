"""The package in an environment that has torch and not TensorFlow, NumPy or protobuf."""

from __future__ import annotations

import os
import subprocess
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest
from package_copy import copy_of_the_package
from tree import ROOT

# The package's requirement and optional ones, torch with its requirements, and pytest with its own.
LINKED = (
    *("optree", "crc32c", "pillow"),
    *("torch", "filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "sympy"),
    *("typing_extensions", "pytest", "iniconfig", "packaging", "pluggy", "pygments"),
)


def environment(folder: Path) -> Path:
    """A virtual environment with links to those packages and a copy of ours; its interpreter."""
    venv.EnvBuilder(symlinks=True).create(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in LINKED:
        package = distribution(name)
        names = {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}
        assert names, name
        for each in names:
            (packages / each).symlink_to(Path(str(package.locate_file(each))))
    copy_of_the_package(packages)
    return folder / "bin/python"


@pytest.mark.alone
def test_records_and_checkpoints_work_where_tensorflow_is_not_installed(tmp_path: Path) -> None:
    python = environment(tmp_path / "environment")
    tests = ROOT / "tests/without_tensorflow"
    command = [python, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", tests, tests]
    done = subprocess.run(
        [*map(str, command), "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
