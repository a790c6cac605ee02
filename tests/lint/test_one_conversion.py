"""docs/one_conversion.md names existing files, each once, and functions that are in them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tree import ROOT

PAGE = "docs/one_conversion.md"
FILE = re.compile(r"`((?:python|src|include|tests)/[\w./]+)`")
FUNCTION = re.compile(r"`(\w+)\(\)`")


def steps(text: str) -> Iterator[tuple[str, str]]:
    """The file and the text of each step."""
    for step in re.findall(r"^\d+\. (.+(?:\n    ?.+)*)", text, re.MULTILINE):
        yield FILE.findall(step)[0], step


def violations(text: str) -> Iterator[str]:
    named = FILE.findall(text)
    for name in sorted(set(named)):
        if named.count(name) > 1:
            yield f"{name} is named {named.count(name)} times"
        if not (ROOT / name).is_file():
            yield f"{name} does not exist"
    numbers = [int(number) for number in re.findall(r"^(\d+)\. ", text, re.MULTILINE)]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the steps are numbered {numbers}"
    for name, step in steps(text):
        source = (ROOT / name).read_text(encoding="utf-8") if (ROOT / name).is_file() else ""
        for function in FUNCTION.findall(step):
            if not re.search(rf"\b{function}\b", source):
                yield f"{name} has no {function}()"


def test_the_page_names_each_file_once_and_what_is_in_it() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert not list(violations(text))
    assert len(list(steps(text))) > 20
    assert sum(len(FUNCTION.findall(step)) for _, step in steps(text)) > 15


@pytest.mark.parametrize(
    "wrong",
    [
        "1. `src/core/gone.cc` is gone\n",
        "1. `src/core/dtype.cc` maps\n2. `src/core/dtype.cc` again\n",
        "2. `src/core/dtype.cc` is the first step\n",
        "1. `src/core/dtype.cc` has\n   `noSuchFunction()` in it\n",
    ],
)
def test_a_wrong_step_is_found(wrong: str) -> None:
    assert list(violations(wrong))
