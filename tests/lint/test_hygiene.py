"""Texts that no tracked file may contain, and the greatest length of a source file."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tree import files

MAX_LINES = 800
SOURCES = (".py", ".pyi", ".c", ".cc", ".cpp", ".h", ".def", ".cmake")
# Each pattern is written so that it does not match its own text.
FORBIDDEN = {
    "a path of one machine": re.compile(r"/(?:work|farm|root|home/[a-z]\w*)/|/tmp/[a-z0-9_]+/"),
    "an index address": re.compile(
        r"(?:download\.pytorch|files\.pythonhosted|test\.pypi|pypi)[.](?:org|python)/(?:whl|simple|packages)"
        r"|--(?:extra-)?index[-]url|--find[-]links",
    ),
    "unfinished work": re.compile(r"\b(?:TO[D]O|FIX[M]E|XX[X])\b|(?i:\bnot[ ]implemented\b)"),
    "a merge conflict": re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE),
}
# The licence is quoted as it is, and so are the files that others made.
VERBATIM = ("LICENSE", "tests/data/")


def violations(name: str, text: str) -> Iterator[str]:
    if name.startswith(VERBATIM) and not name.endswith("README.md"):
        return
    for what, pattern in FORBIDDEN.items():
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{name}:{line}: {what}: {match.group()!r}"
    if name.startswith("python/") and re.search(r"^\s*raise NotImplemented[E]rror", text, re.M):
        yield f"{name}: an abstract method; the package has none"
    lines = text.count("\n")
    if name.endswith(SOURCES) and lines > MAX_LINES:
        yield f"{name}: {lines} lines, more than {MAX_LINES}: look for the second noun inside"
    if text and not text.endswith("\n"):
        yield f"{name}: no newline at the end"


def test_tracked_files_are_clean() -> None:
    found = [violation for name, text in files() for violation in violations(name, text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "cd /" + "work/main\n",
        "/" + "root/.cache\n",
        "/" + "home/someone/x\n",
        "/" + "tmp/build/x\n",
        "pip install --index" + "-url x\n",
        "https://download.pytorch" + ".org/whl/cpu\n",
        "# TO" + "DO: later\n",
        "def f():\n    raise NotImplemented" + "Error\n",
        "<" * 7 + " HEAD\n",
        "line\n" * (MAX_LINES + 1),
        "no newline",
    ],
)
def test_what_is_forbidden_is_found(text: str) -> None:
    assert list(violations("python/tensor_bridge/snippet.py", text))


def test_files_of_others_are_as_they_are() -> None:
    text = "/" + "tmp/build/x"
    assert not list(violations("tests/data/a/checkpoint", text))
    assert list(violations("tests/data/README.md", text))


def test_ordinary_text_is_not_found() -> None:
    text = "A network/home page, a todolist, /tmp and build/test.\n"
    assert not list(violations("docs/page.md", text))
