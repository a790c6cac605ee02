"""The decisions that the CMake modules make without a compiler: adapter groups, version."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cmake_script import CMAKE, run_cmake
from tree import ROOT, files


def fake_torch(folder: Path, minor: int, header: str = "torch/headeronly/version.h") -> Path:
    version = folder / "torch" / "include" / header
    version.parent.mkdir(parents=True)
    version.write_text(
        f"#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR {minor}\n", encoding="utf-8"
    )
    return folder / "torch"


GROUPS = {6: 6, 7: 7, 8: 8, 9: 8, 10: 10, 11: 10, 12: 10, 13: 13, 14: 13, 15: 13}


@pytest.mark.parametrize(("minor", "first"), GROUPS.items())
def test_a_known_torch_gets_the_adapter_of_its_group(
    tmp_path: Path, minor: int, first: int
) -> None:
    torch = fake_torch(tmp_path, minor)
    script = f'include(torch_groups)\ntb_torch_version("{torch}" v)\ntb_torch_group("${{v}}" g)\n'
    assert run_cmake(tmp_path, script + 'message("group ${g}")') == (True, f"group 2_{first}")


@pytest.mark.parametrize("minor", [5, 99, 130])
def test_an_unknown_torch_is_an_error_that_lists_the_known_ones(tmp_path: Path, minor: int) -> None:
    script = f'include(torch_groups)\ntb_torch_group("2.{minor}" g)\n'
    ok, text = run_cmake(tmp_path, script)
    assert not ok
    assert f"torch 2.{minor} is not supported" in text
    assert "2.6 | 2.7 | 2.8 2.9 | 2.10 2.11 2.12 | 2.13 2.14 2.15" in text


def test_the_version_is_also_found_where_older_releases_have_it(tmp_path: Path) -> None:
    torch = fake_torch(tmp_path, 8, "torch/csrc/api/include/torch/version.h")
    script = f'include(torch_groups)\ntb_torch_version("{torch}" v)\nmessage("${{v}}")\n'
    assert run_cmake(tmp_path, script) == (True, "2.8")


@pytest.mark.parametrize(
    ("string", "agrees"),
    [("1.2.3", True), ("1.2.3rc1", True), ("1.2.4", False), ("1.2", False), ("1.2.30", False)],
)
def test_the_version_string_agrees_with_the_numbers(
    tmp_path: Path, string: str, agrees: bool
) -> None:
    lines = ["VERSION_MAJOR 1", "VERSION_MINOR 2", "VERSION_PATCH 3", f'VERSION "{string}"']
    header = tmp_path / "version.h"
    header.write_text("".join(f"#define TENSOR_BRIDGE_{line}\n" for line in lines), "utf-8")
    script = f'include(version)\ntb_read_version("{header}" v)\nmessage("found ${{v}}")\n'
    ok, text = run_cmake(tmp_path, script)
    assert ok == agrees
    assert ("found 1.2.3" if agrees else "TENSOR_BRIDGE_VERSION is not") in text


@pytest.mark.parametrize("portable", ["OFF", "ON"])
def test_all_that_is_installed_is_compiled_with_the_options_that_harden_it(
    tmp_path: Path, portable: str
) -> None:
    ninja = shutil.which("ninja", path=str(Path(sys.executable).parent)) or "ninja"
    options = {
        "CMAKE_MAKE_PROGRAM": ninja,
        "Python_EXECUTABLE": sys.executable,
        "TENSOR_BRIDGE_REQUIRE_TORCH": "ON",
        "TENSOR_BRIDGE_PORTABLE": portable,
    }
    given = [f"-D{name}={value}" for name, value in options.items()]
    command = [CMAKE, "-S", str(ROOT), "-B", str(tmp_path), "-G", "Ninja", *given]
    subprocess.run(command, check=True, capture_output=True)
    compiled = json.loads((tmp_path / "compile_commands.json").read_text(encoding="utf-8"))
    commands = {str(Path(each["file"]).relative_to(ROOT)): each["command"] for each in compiled}
    # Only linked against, never installed.
    stand_ins = {f"cmake/portable/{name}.cc" for name in ("libdl", "libpthread")}
    ours = {name: command for name, command in commands.items() if name not in stand_ins}
    # Compiled for torch before 2.13, instead of copy_on_write_hook.cc and with the same options.
    elsewhere = {"src/adapters/torch/copy_on_write_guard.cc"}
    assert {name for name, _ in files("src/*.cc")} - elsewhere <= set(ours)
    assert ("cmake/portable/added.cc" in ours) == (portable == "ON")
    for name, each in ours.items():
        assert {"-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"} <= set(each.split()), name


def test_no_compiler_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    ninja = shutil.which("ninja", path=str(Path(sys.executable).parent)) or "ninja"
    command = [CMAKE, "-S", str(ROOT), "-B", str(tmp_path), "-G", "Ninja"]
    result = subprocess.run(
        [*command, f"-DCMAKE_MAKE_PROGRAM={ninja}"],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": str(tmp_path), "CXX": ""},
    )
    assert result.returncode != 0
    text = " ".join(result.stderr.split())
    assert "needs a C++20 compiler" in text
    assert "apt-get install g++" in text
    assert "make wheel" in text


def test_a_framework_that_an_isolated_build_hides_is_found(tmp_path: Path) -> None:
    """pip hides the environment from imports; sysconfig still names it."""
    (tmp_path / "site/torch/include").mkdir(parents=True)
    (tmp_path / "site/torch/__init__.py").touch()
    python = tmp_path / "python"
    says = f"sysconfig.get_path = lambda _: '{tmp_path / 'site'}'"
    python.write_text(
        f"#!/bin/sh\nexec {sys.executable} -I -S -c "
        f'"import sys, sysconfig; {says}; exec(sys.argv[1])" "$2"\n'
    )
    python.chmod(0o755)
    script = f'set(Python_EXECUTABLE "{python}")\ninclude(wheels)\ntb_find_wheel(torch "" dirs)\n'
    ok, text = run_cmake(tmp_path, script + 'message("dirs ${dirs}")')
    assert ok, text
    assert f"dirs {tmp_path / 'site/torch'}" in text


def test_without_torch_the_first_sentence_is_the_remedy(tmp_path: Path) -> None:
    ninja = shutil.which("ninja", path=str(Path(sys.executable).parent)) or "ninja"
    command = [CMAKE, "-S", str(ROOT), "-B", str(tmp_path), "-G", "Ninja"]
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    python.chmod(0o755)
    result = subprocess.run(
        [
            *command,
            f"-DCMAKE_MAKE_PROGRAM={ninja}",
            f"-DPython_EXECUTABLE={python}",
            "-DTENSOR_BRIDGE_BUILD_PYTHON=OFF",
            "-DTENSOR_BRIDGE_REQUIRE_TORCH=ON",
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    said = " ".join(result.stderr.partition("(message):")[2].split())
    assert said.startswith("Build without isolation, where torch is installed: pip install")
    assert "pip install --no-build-isolation ." in said.partition(". The build")[0]
    assert "uv pip install" in said
