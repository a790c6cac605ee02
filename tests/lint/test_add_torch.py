"""The texts that `tools/add_torch.py` writes into the tree, without the builds."""

from __future__ import annotations

import subprocess

import add_torch
import pytest
import target
import torch_wheels
from tree import ROOT

OLD = torch_wheels.groups()
WITHOUT = [*OLD[:-1], OLD[-1][:-1]]


def texts() -> dict[str, str]:
    command = ["git", "ls-files", "--", *(f"*{suffix}" for suffix in add_torch.SUFFIXES)]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    paths = [ROOT / name for name in listed.stdout.splitlines()]
    return {str(path): path.read_text("utf-8") for path in paths if path.exists()}


@pytest.mark.skipif(len(OLD[-1]) == 1, reason="the newest release is a group of its own")
def test_a_release_that_is_taken_out_and_added_leaves_no_difference() -> None:
    changed = 0
    for name, text in texts().items():
        without = add_torch.rewritten(text, OLD, WITHOUT)
        changed += without != text
        assert add_torch.rewritten(without, WITHOUT, OLD) == text, name
    assert changed > 20


def test_each_list_and_range_gets_the_next_release() -> None:
    last = OLD[-1][-1]
    new = add_torch.after(last)
    for groups in ([*OLD[:-1], [*OLD[-1], new]], [*OLD, [new]]):
        every = {
            name: add_torch.rewritten(text, OLD, groups)
            for name, text in texts().items()
            if not name.endswith(("CHANGELOG.md", "test_add_torch.py"))
        }
        assert not [name for name, text in every.items() if f"{OLD[0][0]} to {last}" in text]
        cmake = every[str(ROOT / "cmake/torch_groups.cmake")]
        written = " ".join(f'"{" ".join(group)}"' for group in groups)
        assert f"set(TB_TORCH_GROUPS {written})" in cmake
        assert (
            f'"torch>={OLD[0][0]},<{add_torch.after(new)}"' in every[str(ROOT / "pyproject.toml")]
        )
        minor = new.split(".")[1]
        frameworks = every[str(ROOT / "python/tensor_bridge/_frameworks.py")]
        assert f"TORCH_RANGE = ((2, 6), (2, {minor}))" in frameworks


def test_a_release_that_is_not_the_next_is_refused() -> None:
    with pytest.raises(SystemExit, match="expected a release of torch"):
        add_torch.add("2.99.0", add_torch.matrix.ENVIRONMENTS[0])


def test_lists_are_written_for_each_processor_and_this_one_is_tested() -> None:
    *lists, tested = add_torch.steps("an environment", ["a test"])
    assert [arch for arch, *_ in lists] == list(target.SUPPORTED)
    assert all(words == ["build_wheel.py", "--real"] for _, *words in lists)
    assert tested == [target.ARCH, "matrix.py", "an environment", "--", "a test"]
