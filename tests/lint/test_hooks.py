"""The table of the package's functions that the extension calls is right and complete."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from tree import ROOT

EXTENSION = ROOT / "src/extension"
SOURCES = {path.name: path.read_text(encoding="utf-8") for path in EXTENSION.glob("*.cc")}
ROW = re.compile(r'^inline Hook (\w+)\{"([\w.]+)",\s*"(\w+)"\};$', re.MULTILINE)
# The arguments of a call, in format letters of Py_BuildValue.
CALL = re.compile(r'hooks::(\w+)\.call\(\s*(?:"\((\w*)\)")?')


class Hook(NamedTuple):
    name: str
    module: str
    attribute: str


HOOKS = [Hook(*row) for row in ROW.findall((EXTENSION / "hooks.h").read_text(encoding="utf-8"))]


def defined(module: str, name: str) -> ast.stmt | None:
    """The top-level statement of a module that defines a name."""
    path = (ROOT / "python").joinpath(*module.split(".")).with_suffix(".py")
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        match statement:
            case (
                ast.FunctionDef(name=found)
                | ast.ClassDef(name=found)
                | ast.AnnAssign(target=ast.Name(id=found))
            ):
                if found == name:
                    return statement
            case ast.Assign(targets=[ast.Name(id=found)]) if found == name:
                return statement
    return None


def numbers_of_arguments(function: ast.FunctionDef) -> range:
    """The numbers of positional arguments that a function accepts."""
    most = len(function.args.posonlyargs) + len(function.args.args)
    return range(most - len(function.args.defaults), most + 1)


def violations(sources: dict[str, str]) -> Iterator[str]:
    known = {hook.name: defined(hook.module, hook.attribute) for hook in HOOKS}
    for file, text in sources.items():
        if file != "hooks.cc":
            for found in re.findall(r"\bPyImport_(?:Import|Add|Exec|Reload)\w*", text):
                yield f"{file} calls {found}; what the extension calls has a row in hooks.h"
        for name, letters in CALL.findall(text):
            function = known.get(name)
            if not isinstance(function, ast.FunctionDef):
                yield f"{file} calls {name}, which is no function of a row"
            elif len(letters) not in numbers_of_arguments(function):
                yield f"{file} calls {name} with {len(letters)} arguments"


def test_the_table_is_read() -> None:
    text = (EXTENSION / "hooks.h").read_text(encoding="utf-8")
    assert len(HOOKS) == text.count("inline Hook ") > 10


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.name)
def test_each_row_exists_and_is_used(hook: Hook) -> None:
    assert defined(hook.module, hook.attribute) is not None
    assert any(re.search(rf"hooks::{hook.name}\b", text) for text in SOURCES.values())


def test_the_extension_calls_nothing_else_and_each_as_it_is_declared() -> None:
    assert not list(violations(SOURCES))


@pytest.mark.parametrize(
    "line",
    [
        'PyObject* module = PyImport_ImportModule("tensor_bridge._options");',
        'hooks::gone.call("(O)", value);',
        "hooks::device_pair.call();",
        'hooks::device_pair.call("(OO)", value, value);',
        "hooks::by_status.call();",
    ],
)
def test_another_call_is_found(line: str) -> None:
    assert len(list(violations({"some.cc": line}))) == 1
