"""The build, the loader and the package name the same supported torch releases.

The build makes the adapters, the loader opens them, and pyproject.toml says what pip may install.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cmake_script import run_cmake
from tree import ROOT

from tensor_bridge._frameworks import TENSORFLOW_RANGE, TORCH_RANGE

Minors = list[list[int]]


def cmake_groups(text: str) -> Minors:
    """TB_TORCH_GROUPS as lists of minors."""
    (line,) = re.findall(r"set\(TB_TORCH_GROUPS (.+)\)", text)
    return [[int(m.removeprefix("2.")) for m in g.split()] for g in re.findall(r'"([^"]+)"', line)]


def header_groups(text: str) -> Minors:
    """kTorchGroups, which has the first and last minor of each group, as lists of minors."""
    (line,) = re.findall(r"kTorchGroups\[\] = \{(.+)\};", text)
    return [list(range(int(a), int(b) + 1)) for a, b in re.findall(r"\{(\d+), (\d+)\}", line)]


def torch_range(text: str) -> tuple[int, int]:
    """The first and last minor that the extra `torch` allows."""
    (found,) = re.findall(r'"torch>=2\.(\d+),<2\.(\d+)"', text)
    return int(found[0]), int(found[1]) - 1


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_the_loader_knows_the_groups_of_the_build(tmp_path: Path) -> None:
    header = tmp_path / "torch_groups.h"
    ok, said = run_cmake(tmp_path, f'include(torch_groups)\ntb_write_torch_groups("{header}")\n')
    assert ok, said
    text = header.read_text(encoding="utf-8")
    groups = cmake_groups(read("cmake/torch_groups.cmake"))
    assert header_groups(text) == groups
    first, last = groups[0][0], groups[-1][-1]
    assert f"kLastTorchMinor = {last};" in text
    assert f'TB_TORCH_RANGE "2.{first} to 2.{last}"' in text
    assert f"\"'torch>=2.{first},<2.{last + 1}'\"" in text


def test_the_torch_extra_allows_what_the_build_knows() -> None:
    groups = cmake_groups(read("cmake/torch_groups.cmake"))
    minors = [minor for group in groups for minor in group]
    assert torch_range(read("pyproject.toml")) == (minors[0], minors[-1])


def test_the_package_accepts_what_the_extras_allow() -> None:
    project = read("pyproject.toml")
    assert tuple((2, minor) for minor in torch_range(project)) == TORCH_RANGE
    (_, first), (_, last) = TENSORFLOW_RANGE
    for name in ("tensorflow", "tensorflow-cpu"):
        assert re.search(rf'"{name}>=2\.{first},<2\.{last + 1}[";]', project)


TEXTS = (
    "README.md",
    "docs/versions.md",
    "docs/guides/troubleshooting.md",
)


@pytest.mark.parametrize("path", TEXTS)
def test_texts_name_the_same_torch_releases(path: str) -> None:
    text = read(path)
    (_, first), (_, last) = TORCH_RANGE
    spans = re.findall(r"2\.(\d+) to \"?\s*\"?2\.(\d+)", text)
    torches = [span for span in spans if span[0] == str(first)]
    assert torches or path.startswith("docs")
    assert set(torches) <= {(str(first), str(last))}
    for low, high in re.findall(r"'torch>=2\.(\d+),<2\.(\d+)'", text):
        assert int(high) == last + 1
        assert int(low) in (first, 13)


@pytest.mark.parametrize(
    "header", ["kTorchGroups[] = {{6, 6}, {7, 9}};", "kTorchGroups[] = {{6, 6}, {7, 7}, {8, 10}};"]
)
def test_a_difference_is_found(header: str) -> None:
    assert header_groups(header) != cmake_groups('set(TB_TORCH_GROUPS "2.6" "2.7" "2.8 2.9")')
