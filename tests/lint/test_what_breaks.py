"""CONTRIBUTING.md lists all files that a new release of a framework may break.

Each listed file exists and has a comment that names the releases it was tried with. No other file
tests a release, imports a private module of a framework or looks up a mangled name.
"""

from __future__ import annotations

import re

import pytest
from tree import ROOT, files

HEADINGS = {
    "TensorFlow": "What breaks with a new TensorFlow",
    "torch": "What breaks with a new torch",
}
# Code that depends on the inside of a framework, in Python and in C++.
INSIDE = {
    "TensorFlow": re.compile(
        r"^\s*(?:from|import) tensorflow\.python|_import\(\"tensorflow\.python"
        r"|\"_ZN\w*10tensorflow",
        re.MULTILINE,
    ),
    "torch": re.compile(
        r"(?<![\w.\"])torch(?:\.\w+)*\._[a-z]\w*|\"_ZN\w*(?:3c10|21TH)|\"_Z16THP",
        re.MULTILINE,
    ),
}
TESTS_A_RELEASE = re.compile(
    r"^\s*#\s*(?:el)?if.*(?:TORCH_VERSION|TB_TORCH)|(?<!def )version_pair\(", re.MULTILINE
)
RELEASE = r"\b2\.\d+"


def listed(contributing: str, framework: str) -> list[str]:
    """The files of the list under the heading."""
    section = contributing.partition(f"## {HEADINGS[framework]}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)


def code(name: str, text: str) -> str:
    """A Python file without its comments; other files unchanged."""
    return re.sub(r"#.*", "", text) if name.endswith(".py") else text


def comments(name: str, text: str) -> str:
    """The comments and docstrings of a source file."""
    if name.endswith(".py"):
        return "\n".join(re.findall(r"#.*|\"\"\".*?\"\"\"", text, re.DOTALL | re.MULTILINE))
    return "\n".join(re.findall(r"//.*|^\s*#.*", text, re.MULTILINE))


def names_releases(name: str, text: str, framework: str) -> bool:
    said = comments(name, text)
    inside = f"adapters/{framework.lower()}/" in name
    return bool(re.search(RELEASE if inside else rf"{framework}\W[^.]*?{RELEASE}", said))


def sources() -> list[tuple[str, str]]:
    return [f for f in files("src", "python") if f[0].endswith((".py", ".cc", ".h", ".def"))]


@pytest.mark.parametrize("framework", HEADINGS)
def test_each_file_of_a_list_names_its_releases(framework: str) -> None:
    names = listed((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), framework)
    assert len(names) > 10
    assert len(set(names)) == len(names)
    assert not [name for name in names if not (ROOT / name).is_file()]
    read = [(name, (ROOT / name).read_text(encoding="utf-8")) for name in names]
    assert not [name for name, text in read if not names_releases(name, text, framework)]


@pytest.mark.parametrize("framework", HEADINGS)
def test_no_other_file_depends_on_the_inside(framework: str) -> None:
    names = listed((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), framework)
    inside = {name for name, text in sources() if INSIDE[framework].search(code(name, text))}
    assert len(inside) > 5
    assert not inside - set(names)


def test_no_other_file_tests_a_release() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = {name for framework in HEADINGS for name in listed(contributing, framework)}
    testing = {name for name, text in sources() if TESTS_A_RELEASE.search(text)}
    assert len(testing) > 3
    assert not testing - names


@pytest.mark.parametrize(
    ("framework", "line"),
    [
        ("TensorFlow", "    from tensorflow.python.eager import context\n"),
        ("TensorFlow", 'constexpr const char* k = "_ZNK10tensorflow6Tensor5SliceEll";\n'),
        ("torch", "    if torch._C._are_functorch_transforms_active():\n"),
        ("torch", "from torch.utils._pytree import tree_map\n"),
    ],
)
def test_a_use_of_the_inside_is_found(framework: str, line: str) -> None:
    assert INSIDE[framework].search(line)


@pytest.mark.parametrize(
    "line",
    [
        "#if TORCH_VERSION_MINOR >= 13\n",
        "#elif !TB_TORCH_AT_LEAST(13)\n",
        "    if version_pair(torch.__version__) < (2, 13):\n",
    ],
)
def test_a_test_of_a_release_is_found(line: str) -> None:
    assert TESTS_A_RELEASE.search(line)


@pytest.mark.parametrize(
    ("name", "text", "right"),
    [
        ("src/adapters/torch/a.cc", "// the same in 2.6 to 2.15\n", True),
        ("src/bridge/a.cc", "// torch 2.6 to 2.15\n", True),
        ("src/bridge/a.cc", "// the same in 2.6 to 2.15\n", False),
        ("src/bridge/a.cc", 'throwError("torch 2.6 to 2.15");\n', False),
        ("python/a.py", "import a  # private; torch 2.6\n", True),
        ("python/a.py", '"""What torch 2.6 has."""\n', True),
        ("python/a.py", "x = 'torch 2.6'\n", False),
    ],
)
def test_a_comment_without_releases_is_found(name: str, text: str, right: bool) -> None:
    assert names_releases(name, text, "torch") == right
