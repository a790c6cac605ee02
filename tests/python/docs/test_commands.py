"""The commands of README and docs are run; make only shows what it would do."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
from pathlib import Path

import needs
import pytest
from native import package_dir
from pages import PAGES, ROOT, Block, Page

Located = tuple[Page, Block]

BLOCKS = [(page, block) for page in PAGES for block in page.blocks("sh")]


def programs(block: Block) -> set[str]:
    """The programs that a block calls: the first word of each command."""
    joined = block.text.replace("\\\n", " ")
    return {line.split()[0] for line in joined.splitlines() if line.strip()}


def calling(name: str) -> list[Located]:
    return [(page, block) for page, block in BLOCKS if name in programs(block)]


def ids(blocks: list[Located]) -> list[str]:
    return [f"{page.name}:{block.line}" for page, block in blocks]


KNOWN = ("make", "tensor-bridge", "cmake", "pip")
MAKE, CLI, CMAKE, PIP = map(calling, KNOWN)
CPP = Page(ROOT / "docs/guides/cpp.md")


def run(script: str, folder: Path, python: Path = Path(sys.executable), **env: str) -> str:
    """The output of a shell that stops at the first error and finds Python's programs first."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("LD_LIBRARY_PATH", "PYTHONPATH", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    }
    path = f"{python.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=inherited | {"PATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"} | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copy_of_the_tree(folder: Path) -> Path:
    """Copies the files that git tracks or would track, without build products."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def test_every_command_is_in_one_of_these_tests() -> None:
    assert all((MAKE, CLI, CMAKE, PIP))
    assert not ids([(page, block) for page, block in BLOCKS if programs(block) - set(KNOWN)])
    assert [page.name for page in PAGES if page.blocks("cmake")] == [CPP.name]


@pytest.mark.parametrize(("page", "block"), MAKE, ids=ids(MAKE))
def test_targets_of_make_are_there(page: Page, block: Block) -> None:
    for line in block.text.splitlines():
        if line.startswith("make "):
            run(re.sub("^make", "make --dry-run", line), ROOT)


# Several pages have the same lines.
CLI_LINES = sorted(
    {re.sub(" *#.*", "", line) for _, block in CLI for line in block.text.splitlines()}
)


# Makes the same trials as without --json; doctor/test_trials.py runs it and reads its output.
AGAIN = "tensor-bridge doctor --json"


@pytest.mark.parametrize("line", needs.parameters(CLI_LINES, {AGAIN: pytest.mark.exhaustive}))
def test_the_command_line_ends_well(line: str, tmp_path: Path) -> None:
    assert run(line, tmp_path)


# --- the SDK --------------------------------------------------------------------------------------

CONSUMING, INSTALLING = (block.text for _, block in CMAKE)
SITE = package_dir("torch").parent


def check_application(folder: Path, configure: str) -> None:
    """The page's CMake code and first program can be built, and print what the page says."""
    (code,) = CPP.blocks("cmake")
    program = CPP.blocks("cpp")[0]
    assert program.output is not None
    folder.mkdir()
    head = "cmake_minimum_required(VERSION 3.26...4.0)\nproject(app LANGUAGES CXX)\n"
    (folder / "CMakeLists.txt").write_text(head + code.text, "utf-8")
    (folder / "main.cc").write_text(program.text, "utf-8")
    printed = run(f"{configure} >&2\ncmake --build build >&2\nbuild/app", folder, SITE=str(SITE))
    assert program.prints(printed), printed


def test_an_application_finds_the_sdk_of_the_installed_package(tmp_path: Path) -> None:
    assert "tensor_bridge.config --cmakedir" in CONSUMING
    check_application(tmp_path / "app", CONSUMING.rstrip("\n"))


@pytest.mark.exhaustive
def test_the_sdk_is_built_and_found_without_pip(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    run(
        INSTALLING.replace("/opt/tensor_bridge", str(prefix)),
        copy_of_the_tree(tmp_path / "checkout"),
    )
    (found_with,) = re.findall(r'`(-DCMAKE_PREFIX_PATH="/opt/tensor_bridge;[^`]*)`', CPP.text)
    check_application(
        tmp_path / "app",
        f"cmake -S . -B build {found_with.replace('/opt/tensor_bridge', str(prefix))} "
        '-DTENSORFLOW_DIR="$SITE/tensorflow"',
    )


# --- installing -----------------------------------------------------------------------------------

# Packages that the reader's environment does not have yet.
NOT_YET = re.compile(
    r"_?_?editable|_?tf_torch_tensor_bridge|tensor_bridge"
    r"|scikit_build_core|cmake|ninja|apache_tvm_ffi|tvm_ffi|pip\b|.*\.pth$"
)
USE = """
import pathlib, sys, tensorflow as tf, tensor_bridge
assert pathlib.Path(tensor_bridge.__file__).is_relative_to(sys.prefix), tensor_bridge.__file__
t = tf.constant([1.0, 2.0])
x = tensor_bridge.to_torch(t, copy=False)
x.add_(1)
assert (x.tolist(), t[0]) == ([2.0, 3.0], 1.0)
"""


def environment(folder: Path) -> Path:
    """The Python of a new environment with the frameworks, but without us and build tools."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    frameworks = folder / "frameworks"
    frameworks.mkdir()
    for entry in SITE.iterdir():
        if not NOT_YET.match(entry.name):
            (frameworks / entry.name).symlink_to(entry)
    (packages,) = (folder / "lib").glob("python3*/site-packages")
    (packages / "frameworks.pth").write_text(f"{frameworks}\n", "utf-8")
    return folder / "bin" / "python"


@pytest.mark.exhaustive
def test_what_the_pages_say_of_pip_installs_it(tmp_path: Path) -> None:
    assert Path(site.getsitepackages()[0]) == SITE
    checkout = copy_of_the_tree(tmp_path / "checkout")
    python = environment(tmp_path / "environment")
    # Several pages have the same lines. The wheel is only for this torch.
    tree, wheel = sorted(
        {block.text.replace("make wheel\n", "") for _, block in PIP},
        key=lambda text: "dist/" in text,
    )
    build = "pip wheel --no-deps --no-build-isolation -w dist ."
    for script in (tree, f"{build}\n{wheel}"):
        run(f"{script}\npython -c '{USE}'\ntensor-bridge doctor", checkout, python)
        run("pip uninstall --yes tf-torch-tensor-bridge", checkout, python)
