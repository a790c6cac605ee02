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
USES, MISTAKES = TYPED / "uses.py", TYPED / "mistakes.py"
MODULES = (
    *("", ".autograd", ".checkpoint", ".config", ".data", ".dlpack", ".doctor", ".records"),
    ".testing",
)


def by_mypy(folder: Path) -> list[tuple[str, int, str]]:
    """File, line and text of each error."""
    config = folder / "mypy.ini"
    # Not the configuration for the package itself.
    config.write_text("[mypy]\nstrict = True\n", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", config, "--no-error-summary"]
    command += ["--python-version=3.10", f"--cache-dir={ROOT / '.mypy_cache' / 'users'}", TYPED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    errors = re.findall(r"^(.+?):(\d+): error: (.+)$", done.stdout, re.MULTILINE)
    return [(Path(file).name, int(line), text) for file, line, text in errors]


def by_pyright(folder: Path) -> list[tuple[str, int, str]]:
    config = folder / "pyrightconfig.json"
    settings = {"include": [str(TYPED)], "typeCheckingMode": "strict", "pythonVersion": "3.10"}
    config.write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "basedpyright", "--project", config, "--outputjson"]
    command += ["--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert found["summary"]["filesAnalyzed"] == len(list(TYPED.glob("*.py")))
    return [
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1, each["message"])
        for each in found["generalDiagnostics"]
    ]


@pytest.mark.parametrize("check", [by_mypy, by_pyright])
def test_uses_are_clean_and_every_mistake_is_found(
    check: Callable[[Path], list[tuple[str, int, str]]],
) -> None:
    def write(folder: Path) -> None:
        (folder / "found.json").write_text(json.dumps(check(folder)), encoding="utf-8")

    inputs = [TYPED, ROOT / "python", Path(__file__), environment()]
    folder = made(f"typed-{check.__name__}", inputs, write)
    found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    assert [error for error in found if error[0] == USES.name] == []
    lines = MISTAKES.read_text(encoding="utf-8").splitlines()
    expected = {n for n, line in enumerate(lines, 1) if line.endswith("# error")}
    assert {line for _, line, _ in found} == expected


def test_the_uses_have_every_public_name() -> None:
    nodes = list(ast.walk(ast.parse(USES.read_text(encoding="utf-8"))))
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    used |= {node.id for node in nodes if isinstance(node, ast.Name)}
    for module in MODULES:
        public = importlib.import_module(f"tensor_bridge{module}").__all__
        assert [name for name in public if name not in used] == [], module
