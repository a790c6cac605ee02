"""Build, loader and package each state the supported torch releases: they must agree.

The build says which adapter to make, the loader which to open, pyproject.toml what pip may install.
"""

from __future__ import annotations

import re

import pytest
from tree import ROOT

Minors = list[list[int]]


def cmake_groups(text: str) -> Minors:
    """TB_TORCH_GROUPS as lists of minors."""
    (line,) = re.findall(r"set\(TB_TORCH_GROUPS (.+)\)", text)
    return [[int(m.removeprefix("2.")) for m in g.split()] for g in re.findall(r'"([^"]+)"', line)]


def loader_groups(text: str) -> Minors:
    """kGroups, first and last minor each, as lists of minors."""
    (line,) = re.findall(r"kGroups\[\] = \{(.+)\};", text)
    return [list(range(int(a), int(b) + 1)) for a, b in re.findall(r"\{(\d+), (\d+)\}", line)]


def torch_range(text: str) -> tuple[int, int]:
    """First and last minor that the extra `torch` allows."""
    (found,) = re.findall(r'"torch>=2\.(\d+),<2\.(\d+)"', text)
    return int(found[0]), int(found[1]) - 1


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_build_and_loader_know_the_same_torch_groups() -> None:
    groups = cmake_groups(read("cmake/torch_groups.cmake"))
    assert loader_groups(read("src/bridge/torch_loader.cc")) == groups


def test_the_torch_extra_allows_what_the_build_knows() -> None:
    groups = cmake_groups(read("cmake/torch_groups.cmake"))
    minors = [minor for group in groups for minor in group]
    assert torch_range(read("pyproject.toml")) == (minors[0], minors[-1])


@pytest.mark.parametrize(
    "loader", ["kGroups[] = {{6, 6}, {7, 9}};", "kGroups[] = {{6, 6}, {7, 7}, {8, 10}};"]
)
def test_a_difference_is_found(loader: str) -> None:
    assert loader_groups(loader) != cmake_groups('set(TB_TORCH_GROUPS "2.6" "2.7" "2.8 2.9")')
