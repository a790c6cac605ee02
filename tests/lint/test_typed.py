"""mypy and pyright in strict mode accept the uses in tests/typed and find every mistake.

basedpyright is pyright with its JavaScript in the wheel. It runs here with pyright's rules.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from made import environment, made
from tree import ROOT

TYPED = ROOT / "tests" / "typed"
FILES = sorted(TYPED.glob("*.py"))
MODULES = (
    *("", ".autograd", ".checkpoint", ".config", ".data", ".dlpack", ".doctor", ".records"),
    ".testing",
)


Found = list[tuple[str, int, str]]


def by_mypy(folder: Path) -> Found:
    """File, line and text of each error, where TensorFlow has no types."""
    return mypy(
        folder, "[mypy-tensorflow.*]", "follow_imports = skip", "ignore_missing_imports = True"
    )


def by_mypy_with_types(folder: Path) -> Found:
    return mypy(folder, f"mypy_path = {TYPED / 'stubs'}")


def mypy(folder: Path, *settings: str) -> Found:
    config = folder / "mypy.ini"
    # Not the configuration for the package itself.
    config.write_text("\n".join(["[mypy]", "strict = True", *settings]), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", config, "--no-error-summary"]
    command += ["--python-version=3.10", f"--cache-dir={ROOT / '.mypy_cache' / folder.name}"]
    done = subprocess.run([*command, *FILES], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    errors = re.findall(r"^(.+?):(\d+): error: (.+)$", done.stdout, re.MULTILINE)
    return [(Path(file).name, int(line), text) for file, line, text in errors]


def by_pyright(folder: Path) -> Found:
    """The same, with the types of TensorFlow that are in pyright."""
    config = folder / "pyrightconfig.json"
    settings = {
        "include": [*map(str, FILES)],
        "typeCheckingMode": "strict",
        "pythonVersion": "3.10",
    }
    config.write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "basedpyright", "--project", config, "--outputjson"]
    command += ["--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert found["summary"]["filesAnalyzed"] == len(FILES)
    return [
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1, each["message"])
        for each in found["generalDiagnostics"]
    ]


def expected(check: Callable[[Path], Found]) -> set[tuple[str, int]]:
    """The lines marked "error"; without TensorFlow's types its tensors are Any."""
    return {
        (file.name, number)
        for file in FILES
        if not (check is by_mypy and file.name == "tensors.py")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if line.endswith("# error")
    }


@pytest.mark.parametrize("check", [by_mypy, by_mypy_with_types, by_pyright])
def test_uses_are_clean_and_every_mistake_is_found(check: Callable[[Path], Found]) -> None:
    def write(folder: Path) -> None:
        (folder / "found.json").write_text(json.dumps(check(folder)), encoding="utf-8")

    inputs = [TYPED, ROOT / "python", Path(__file__), environment()]
    folder = made(f"typed-{check.__name__}", inputs, write)
    found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    lines = expected(check)
    assert [error for error in found if (error[0], error[1]) not in lines] == []
    assert {(file, line) for file, line, _ in found} == lines


def test_the_uses_have_every_public_name() -> None:
    nodes = list(ast.walk(ast.parse((TYPED / "uses.py").read_text(encoding="utf-8"))))
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    used |= {node.id for node in nodes if isinstance(node, ast.Name)}
    for module in MODULES:
        public = importlib.import_module(f"tensor_bridge{module}").__all__
        assert [name for name in public if name not in used] == [], module
