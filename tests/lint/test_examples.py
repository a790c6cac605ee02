"""The tests run every block of code on the pages, or the block says why not."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tree import ROOT, files

# Languages by any name that a highlighter knows. The tests of the docs run only those in RUN.
RUN = ("python", "cpp", "c", "sh", "cmake")
OTHERS = (
    "py",
    "python3",
    "py3",
    "pycon",
    "ipython",
    "c++",
    "cxx",
    "cc",
    "bash",
    "shell",
    "console",
)
FENCE = re.compile(r"^(?P<indent>[ \t>]*)(?P<fence>```+|~~~+)(?P<info>[^\n`]*)$")
REASON = re.compile(r"^<!-- not run: \S.* -->$")
DIRECTIVE = re.compile(r"^\s*\.\. (?:code|code-block|sourcecode|highlight)::\s*(\S*)")


def unrun(name: str, text: str) -> Iterator[str]:
    """The blocks of a Markdown page that no test runs and that do not say why."""
    lines = text.splitlines()
    closes: str | None = None
    for number, line in enumerate(lines, 1):
        fence = FENCE.match(line)
        if fence is None:
            continue
        if closes is not None:  # within a block
            if fence["fence"].startswith(closes) and not fence["info"].strip():
                closes = None
            continue
        closes = fence["fence"]
        language, *words = fence["info"].lower().replace("{code-block}", " ").split() or [""]
        if language not in RUN + OTHERS:
            continue
        if "not-run" in words:
            if number < 2 or not REASON.match(lines[number - 2]):
                yield f"{name}:{number}: above it, <!-- not run: the reason --> is missing"
        elif language in OTHERS or fence["indent"] or fence["fence"] != "```" or "{" in line:
            yield f"{name}:{number}: {line.strip()!r} is not run; write ```python at the margin"


FRESH = re.compile(r"^```python[^\n]* fresh\b", re.MULTILINE)


def unannounced(name: str, text: str) -> Iterator[str]:
    """The blocks that the tests run in a new process, where the paragraph above does not say so."""
    for fence in FRESH.finditer(text):
        above = text[: fence.start()].strip().rpartition("\n\n")[2]
        if "new process" not in " ".join(above.split()).lower():
            line = text.count("\n", 0, fence.start()) + 1
            yield f'{name}:{line}: the paragraph above does not say "in a new process"'


def test_pages_say_where_an_example_needs_a_new_process() -> None:
    found = [problem for name, text in files("*.md") for problem in unannounced(name, text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("above", "problems"),
    [
        ("In a new process:", 0),
        ("All of it, in a new\nprocess:", 0),
        ("In a process:", 1),
        ("In a new process:\n\nAnother paragraph:", 1),
    ],
)
def test_an_example_without_the_words_is_found(above: str, problems: int) -> None:
    assert len(list(unannounced("page.md", f"{above}\n\n```python fresh\n1\n```\n"))) == problems


def test_every_example_of_the_pages_is_run() -> None:
    found = [problem for name, text in files("*.md") for problem in unrun(name, text)]
    assert not found, "\n".join(found)


def test_pages_with_examples_are_where_the_tests_look() -> None:
    with_examples = {
        name for name, text in files("*.md") if re.search(rf"^```({'|'.join(RUN)})\b", text, re.M)
    }
    assert with_examples
    assert not {name for name in with_examples if "/" in name and not name.startswith("docs/")}


def test_the_reference_has_no_examples_of_its_own() -> None:
    found = [
        f"{name}: {line.strip()}"
        for name, text in files("*.rst")
        for line in text.splitlines()
        if DIRECTIVE.match(line)
    ]
    assert not found, "examples belong in docstrings or Markdown: " + "; ".join(found)
    assert list((ROOT / "docs/reference").glob("*.rst"))


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("```python\nprint(1)\n```\n", 0),
        ("```python fresh\nprint(1)\n```\n", 0),
        ("```sh\nmake\n```\n", 0),
        ("```bash\nmake\n```\n", 1),
        ("```cmake not-run\nproject(a)\n```\n", 1),
        ("```text\n```python\n```\n", 0),
        ("```py\nprint(1)\n```\n", 1),
        ("~~~python\nprint(1)\n~~~\n", 1),
        ("````python\nprint(1)\n````\n", 1),
        ("- item\n\n  ```python\n  print(1)\n  ```\n", 1),
        ("```{code-block} python\nprint(1)\n```\n", 1),
        ("```python not-run\nprint(1)\n```\n", 1),
        ("<!-- not run: needs a GPU -->\n```python not-run\nprint(1)\n```\n", 0),
        ("<!-- not run: -->\n```cpp not-run\nint i;\n```\n", 1),
    ],
)
def test_an_example_that_is_not_run_is_found(text: str, problems: int) -> None:
    assert len(list(unrun("page.md", text))) == problems
