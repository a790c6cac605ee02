"""The checks of `make release-check` after the tests, on the files that would be published.

    python tools/release_check.py

Expects the wheel of `make wheel` in dist/, puts the source distribution beside it, and prints every
violation: version and changelog, metadata, the limited API, the results of the matrix, of source
installs and of aarch64, what people are told to install, and a source distribution that builds
where only one torch is installed.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aarch64
import advice
import build_wheel
import install_group
import matrix
import source_installs
import torch_wheels

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
PACKAGED = ("CMakeLists.txt", "LICENSE", "cmake", "include", "python", "src")


def run(*command: str | Path) -> tuple[int, str]:
    """The exit code and the whole output."""
    done = subprocess.run(command, cwd=DIST, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def version() -> str:
    text = (ROOT / "include/tensor_bridge/version.h").read_text("utf-8")
    (found,) = re.findall(r'#define TENSOR_BRIDGE_VERSION "([^"]+)"', text)
    return str(found)


def changelog_violations(text: str, wanted: str) -> Iterator[str]:
    """Checks that the newest entry is that of the version."""
    entries = re.findall(r"^## \[?([^\]\s]+)\]?.*$", text, re.MULTILINE)
    if not entries or entries[0] != wanted:
        yield f"CHANGELOG.md: its first entry is {entries[:1]}, the version is {wanted}"


def wheel_violations(wheel: Path) -> Iterator[str]:
    """Rules of `make wheel`, version, and CPython's limited API."""
    yield from build_wheel.violations(wheel)
    if f"-{version()}-" not in wheel.name:
        yield f"{wheel.name}: the version is {version()}"
    code, text = run(sys.executable, "-m", "abi3audit", "--strict", wheel)
    if code != 0:
        yield f"abi3audit:\n{text}"
    commit = build_wheel.COMMIT.read_text("utf-8").strip()
    if has_changed_since(commit):
        yield f"{wheel.name}: built from {commit}; what it is built of has changed since"


def has_changed_since(commit: str) -> bool:
    """Whether a source of the wheel has changed, or the commit is missing for the comparison.

    Later commits may change the tests and the results of the matrix.
    """
    command = ["git", "diff", "--quiet", commit, "--", *PACKAGED]
    return subprocess.run(command, cwd=ROOT, check=False).returncode != 0


def matrix_violations() -> Iterator[str]:
    """Checks for a result of all tests, without failures, in every environment, and the table.

    A result must be from the same sources, but not from the same wheel: compilers' output differs.
    """
    found = {path.stem for path in matrix.RESULTS.glob("*.json")}
    for environment in matrix.ENVIRONMENTS:
        if environment.name not in found:
            yield f"matrix: no result for {environment.name}"
    for result in matrix.results():
        environment = matrix.Environment(**result["environment"])
        name, left_out = environment.name, sorted(matrix.LEFT_OUT) if environment.tensorflow else []
        everything = [str(environment.tests.relative_to(ROOT))]
        if result["tests"] != everything or result["left out"] != left_out:
            yield f"matrix: {name}: {result['tests']} without {result['left out']} is not all"
        if has_changed_since(commit := result["wheel"]["commit"]):
            yield f"matrix: {name}: the result is of {commit}; what is built has changed since"
        for failure in result["failed"]:
            yield f"matrix: {name}: {failure}"
    if matrix.PAGE.read_text("utf-8") != matrix.updated_page():
        yield "docs/versions.md: not the table of the results; python tools/matrix.py --table"


def is_in_history(commit: str) -> bool:
    """Whether the commit is this one or one before it. Files that were changed are of no commit."""
    command = ["git", "merge-base", "--is-ancestor", commit, "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


def kept_violations(path: Path, violations: Callable[[dict[str, Any]], list[str]]) -> Iterator[str]:
    """Checks for a result that is kept of a commit of this history, and for what it says."""
    if not path.exists():
        yield f"{path.stem}: no result; expected {path}"
        return
    result = json.loads(path.read_text("utf-8"))
    if not is_in_history(commit := result["commit"]):
        yield f"{path.name}: the result is of {commit}, no commit of this history; run it again"
    for each in violations(result):
        yield f"{path.name}: {each}"


def on_demand_violations() -> Iterator[str]:
    """Checks the results of installs from source, and of aarch64.

    Both take too long to be run for every commit, so they may be of older sources.
    """
    for environment in source_installs.ENVIRONMENTS:
        path = source_installs.RESULTS / f"{environment.name}.json"
        yield from kept_violations(path, source_installs.violations)
    yield from kept_violations(aarch64.RESULT, aarch64.violations)


def build_sdist() -> Path:
    for old in DIST.glob("*.tar.gz"):
        old.unlink()
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", DIST, ROOT]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (sdist,) = DIST.glob("*.tar.gz")
    return sdist


def sdist_violations(sdist: Path) -> Iterator[str]:
    """Checks that it has all compiled and imported files, and no tests."""
    with tarfile.open(sdist) as archive:
        there = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(
        ["git", "ls-files", *PACKAGED],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in sorted(set(listed.stdout.split()) - there):
        yield f"{sdist.name}: no {name}"
    for name in sorted(name for name in there if name.startswith(("tests/", "benchmarks/"))):
        yield f"{sdist.name}: has {name}"


_USE = """
import pathlib, sys, torch, tensor_bridge
assert pathlib.Path(tensor_bridge.__file__).is_relative_to(sys.prefix), tensor_bridge.__file__
y = tensor_bridge.dlpack.from_dlpack(torch.arange(6.0), on_write="copy")
assert y.tolist() == [0, 1, 2, 3, 4, 5]
folder = pathlib.Path(tensor_bridge.__file__).parent
adapters = [p.name for p in folder.glob("libtensor_bridge_torch_*")]
print("adapters:", adapters)
"""


def install_violations(sdist: Path) -> Iterator[str]:
    """Checks that with one torch and no TensorFlow, only this torch's adapter is built.

    It must also build with the headers of the oldest torch, whose DLPack is too old.
    """
    groups = install_group.tomllib.loads(install_group.PYPROJECT.read_text("utf-8"))
    named = {name: groups["dependency-groups"][name] for name in ("build", "frameworks")}
    (torch,) = [each for each in named["frameworks"] if each.startswith("torch==")]
    minor = torch.removeprefix("torch==").rpartition(".")[0]
    (group,) = [group for group in torch_wheels.groups() if minor in group]
    (dlpack,) = [each for each in groups["dependency-groups"]["interop"] if "tvm-ffi" in str(each)]
    oldest = torch_wheels.directory(torch_wheels.groups()[0][0])
    beside = f"--config-settings=cmake.define.TENSOR_BRIDGE_TORCH_DIR={oldest}"
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "bin" / "python"
        pip = [python, "-m", "pip", "--quiet"]
        alone = ["--no-build-isolation", "--no-deps"]
        steps = (
            [sys.executable, "-m", "venv", folder],
            [*pip, "install", torch, *named["build"], "optree"],
            [*pip, "install", *alone, sdist],
            [*pip, "install", "--no-deps", dlpack],
            [*pip, "wheel", *alone, "--wheel-dir", folder, beside, sdist],
            [python, "-c", _USE],
        )
        for step in steps:
            code, text = run(*step)
            if code != 0:
                yield f"{sdist.name}: {step[-1]} ends with {code}:\n{text[-3000:]}"
                return
        # torch warns that NumPy is missing, before or after.
        (printed,) = re.findall(r"^adapters: (.*)$", text, re.MULTILINE)
        built = ast.literal_eval(printed)
        if built != [build_wheel.adapter_name(group)]:
            yield f"{sdist.name}: with torch {minor} it builds {built}"


def main() -> int:
    if "Unreleased" in (ROOT / "CHANGELOG.md").read_text("utf-8"):
        print("note: CHANGELOG.md says Unreleased; give the day before this is published")
    wheel = matrix.the_wheel()
    sdist = build_sdist()
    found = list(changelog_violations((ROOT / "CHANGELOG.md").read_text("utf-8"), version()))
    found += wheel_violations(wheel)
    found += matrix_violations()
    found += on_demand_violations()
    found += advice.violations()
    code, text = run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    if code != 0:
        found.append(f"twine check:\n{text}")
    found += sdist_violations(sdist)
    found += install_violations(sdist)
    print("\n".join(found) or f"{wheel.name} and {sdist.name} are ready")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
