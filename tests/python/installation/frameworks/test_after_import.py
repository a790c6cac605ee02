"""Functions that wait for a module's import: they run once, and the import is unchanged."""

from __future__ import annotations

from pathlib import Path

from fresh import run_python

START = """
import sys
sys.path.insert(0, {folder!r})
from tensor_bridge._after_import import _finder, after_import
before = [finder for finder in sys.meta_path if finder is not _finder]
waiting = len(_finder.actions)
did = []
"""


def run(folder: Path, code: str) -> str:
    return run_python(START.format(folder=str(folder)) + code).check()


def test_it_acts_when_the_module_has_run_and_only_then(tmp_path: Path) -> None:
    (tmp_path / "later.py").write_text("value = 1\n")
    run(
        tmp_path,
        """
import importlib.util
for i in range(2):
    after_import("later", lambda i=i: did.append((i, sys.modules["later"].value)))
assert importlib.util.find_spec("later") is not None and did == []
import later
assert did == [(0, 1), (1, 1)]
assert "exec_module" not in vars(later.__spec__.loader)
after_import("later", lambda: did.append("at once"))
assert did[2:] == ["at once"]
importlib.reload(later)
assert len(did) == 3 and len(_finder.actions) == waiting
""",
    )


def test_an_import_that_fails_fails_as_it_did_and_may_succeed_later(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text("import os\nos.environ['SET']\n")
    run(
        tmp_path,
        """
import os
after_import("failing", lambda: did.append(1))
after_import("missing", lambda: did.append(2))
for name, error in (("failing", KeyError), ("missing", ModuleNotFoundError)):
    try:
        __import__(name)
    except error:
        pass
    else:
        raise AssertionError(name)
assert did == []
os.environ["SET"] = ""
import failing
assert did == [1]
""",
    )


def test_nothing_stays_in_the_way_of_imports_once_torch_is_there() -> None:
    run_python(
        """
import sys, tensor_bridge
from tensor_bridge._after_import import _finder
assert _finder in sys.meta_path
import torch, torch._dynamo, torch.utils.data
assert _finder not in sys.meta_path and not _finder.actions
"""
    ).check()


def test_a_torch_that_lacks_the_tables_is_imported_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("__version__ = '1.0'\n")
    run(tmp_path, "import torch\nassert torch.__version__ == '1.0'\n")
