"""Mutants of the package's sources: each leaves out one wait, event or the like of the GPU path.

They are found by pattern, so a new wait is a new mutant. All mutants are compiled into one build,
and the environment variable TB_MUTANT names the call to leave out. Not for: running (mutate.py).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

# Functions of the CUDA runtime that order or query work, or protect captures. Each returns an
# error, 0 for none.
_CUDA = (
    r"cuda(?:Event(?:Record|Query|Synchronize)|Stream(?:WaitEvent|Synchronize|Query|IsCapturing)"
    r"|DeviceSynchronize|ThreadExchangeStreamCaptureMode)"
)
# Such functions of ours and of torch, by their verbs. Waits for a condition variable, which take a
# lock, are not meant. TensorFlow's function waits for its compute stream.
_OURS = r"(?:wait|block|order|record|synchronize)(?:[A-Z]\w*)?|releaseLater|refuseCapture"
_TENSORFLOW = r"TFE_TensorHandleDevicePointer"
_OBJECT = r"(?:\w+(?:\([^()]*\))?(?:\.|->|::))*"
_CALL = re.compile(rf"{_OBJECT}\b({_CUDA}|{_OURS}|{_TENSORFLOW})\(")
_COMMENT = re.compile(r"//[^\n]*")
_ASSIGNMENT = re.compile(r"[;{})]\s*(\w+ = )$")
_PYTHON = re.compile(r"(?:wait|record|synchronize)(?:_\w+)?$")

_SWITCH = """#include <cstdlib>
#include <cstring>
static bool tbIsMade(const char* mutant) {
  const char* left_out = std::getenv("TB_MUTANT");
  return left_out == nullptr || std::strcmp(left_out, mutant) != 0;
}
"""

CPP_FOLDERS = ("src/adapters/tensorflow", "src/adapters/torch", "src/bridge", "src/c_api")
PYTHON_FILE = "python/tensor_bridge/data/_device.py"


class Mutant(NamedTuple):
    """A call to leave out, from `begin` to `end` of a file's text."""

    path: str
    line: int
    code: str
    begin: int
    end: int
    is_statement: bool

    @property
    def name(self) -> str:
        """The place in a compiler's format, which is the value of TB_MUTANT."""
        return f"{self.path}:{self.line}: {self.code}"

    def switch(self) -> tuple[str, str]:
        """The texts to write before and after the call."""
        made = '"' + self.name.replace("\\", "\\\\").replace('"', '\\"') + '"'
        if self.path.endswith(".py"):
            return f'__import__("os").environ.get("TB_MUTANT") == {made} or ', ""
        if self.is_statement:
            return f"static_cast<void>(tbIsMade({made}) && (", ", true))"
        return f"(tbIsMade({made}) ? ", " : 0)"


def _end_of_call(text: str, begin: int) -> int:
    """The place behind the parenthesis that closes the one before `begin`."""
    depth = 1
    for i in range(begin, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i + 1
    raise ValueError("a call without an end")


def of_cpp(path: str, text: str) -> Iterator[Mutant]:
    """Leaves out statements that are calls. Other calls of CUDA return success instead."""
    code = _COMMENT.sub(lambda comment: " " * len(comment.group()), text)
    for call in _CALL.finditer(code):
        end = _end_of_call(code, call.end())
        if code[call.end() : end].startswith(("lock,", "lock)")):
            continue
        assignment = _ASSIGNMENT.search(code, 0, call.start())
        begin = assignment.start(1) if assignment else call.start()
        starts = code[:begin].rstrip()[-1:] in set(";{})")
        is_statement = starts and code[end : end + 1] == ";"
        if is_statement or re.fullmatch(_CUDA, call.group(1)):
            line = code.count("\n", 0, begin) + 1
            yield Mutant(path, line, " ".join(text[begin:end].split()), begin, end, is_statement)


def of_python(path: str, text: str) -> Iterator[Mutant]:
    """Leaves out statements that call methods that order streams."""
    begins = [0]
    for line in text.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    for node in ast.walk(ast.parse(text)):
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
            continue
        function = node.value.func
        if isinstance(function, ast.Attribute) and _PYTHON.match(function.attr):
            begin = begins[node.lineno - 1] + node.col_offset
            end = begins[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
            code = " ".join(text[begin:end].split())
            yield Mutant(path, node.lineno, code, begin, end, True)


def switched(path: str, text: str, mutants: Iterable[Mutant]) -> str:
    """The file's text with a switch around each of its mutants."""
    inserted: list[tuple[int, int, str]] = []
    for mutant in mutants:
        before, after = mutant.switch()
        # If two calls end at the same place, the inner one is closed first.
        inserted += [(mutant.begin, 0, before), (mutant.end, -mutant.begin, after)]
    for place, _, added in sorted(inserted, reverse=True):
        text = text[:place] + added + text[place:]
    return text if path.endswith(".py") else _SWITCH + text


def all_of(checkout: Path) -> dict[str, list[Mutant]]:
    """The mutants of each file of a checkout."""
    found: dict[str, list[Mutant]] = {}
    for folder in CPP_FOLDERS:
        for file in sorted((checkout / folder).glob("*.cc")):
            path = str(file.relative_to(checkout))
            found[path] = list(of_cpp(path, file.read_text("utf-8")))
    found[PYTHON_FILE] = list(of_python(PYTHON_FILE, (checkout / PYTHON_FILE).read_text("utf-8")))
    return {path: mutants for path, mutants in found.items() if mutants}
