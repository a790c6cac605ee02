"""Runs tests against the release wheel, with many releases of Python and the frameworks.

    python tools/matrix.py                # every environment without a result for this wheel
    python tools/matrix.py NAME... [--again] [--keep] [-- pytest arguments]
    python tools/matrix.py --table        # writes the table of docs/versions.md from the results

Each environment is made with uv in build/matrix, used, and removed with its downloads; a CUDA build
of torch takes some 7 GB meanwhile. With --keep it stays there, and the next run only installs the
wheel again. Results are kept in tests/matrix/<name>.json, unless tests are named on the command
line: those always run, and only report how they ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import build_wheel
import install_group
import target

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "tests" / "matrix"
SCRATCH = ROOT / "build" / "matrix"
CACHE = SCRATCH / "cache"
DISTRIBUTION = "tf-torch-tensor-bridge"
PAGE = ROOT / "docs" / "versions.md"
BEGIN, END = "<!-- begin matrix: written by tools/matrix.py -->", "<!-- end matrix -->"


@dataclass(frozen=True)
class Environment:
    """Releases that are installed together."""

    python: str
    torch: str
    tensorflow: str | None
    """None: not installed, and neither is NumPy; what needs neither is tested."""

    @property
    def name(self) -> str:
        end = f"tensorflow{self.tensorflow}" if self.tensorflow else "without-tensorflow"
        return f"python{self.python}-torch{self.torch}-{end}"

    @property
    def tests(self) -> Path:
        return TESTS if self.tensorflow else ROOT / "tests" / "without_tensorflow"


ENVIRONMENTS = (
    # TensorFlow 2.12.1 and 2.13 need an older typing-extensions than these releases of torch.
    Environment("3.10", "2.6.0", "2.12.0"),
    Environment("3.11", "2.8.0", "2.15.1"),
    Environment("3.12", "2.10.0", "2.16.2"),
    Environment("3.11", "2.12.1", "2.18.1"),
    Environment("3.12", "2.13.0", "2.19.1"),
    Environment("3.13", "2.14.1", "2.20.0"),
    Environment("3.13", "2.15.0", "2.21.0"),
    Environment("3.10", "2.7.1", "2.14.1"),
    Environment("3.12", "2.9.1", "2.17.1"),
    Environment("3.11", "2.11.0", "2.14.1"),
    # Of a Python that TensorFlow has no wheel for.
    Environment("3.14", "2.15.0", None),
)
TESTS = ROOT / "tests" / "python"
# Tests that tell nothing about a release of the frameworks, or take too long.
LEFT_OUT = {
    "docs": "the pages and the demo are those of the releases of `make test`",
    "write_protection/test_op_db.py": "each operator of torch, some of them for a minute",
}
# `alone` measures time and memory, and needs an otherwise idle machine.
MARKS = "not exhaustive and not gpu and not alone"


def the_wheel() -> Path:
    name = f"tf_torch_tensor_bridge-*-cp310-abi3-manylinux*_{target.ARCH}.whl"
    wheels = sorted((ROOT / "dist").glob(name))
    if len(wheels) != 1:
        raise SystemExit(f"expected one wheel in dist/, found {len(wheels)}; run `make wheel`")
    return wheels[0]


def digest(wheel: Path) -> str:
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def run(
    *command: str | Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=SCRATCH,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        check=False,
    )


def interpreter(version: str) -> str | Path:
    """The command of a Python release: from the path, else from pyenv, which may hide it."""
    command = f"python{version}"
    if shutil.which(command) and run(command, "--version").returncode == 0:
        return command
    hidden = sorted((Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/{command}"))
    if not hidden:
        raise SystemExit(f"{command} is not installed")
    return hidden[-1]


def uv(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """uv, with its cache on the disk of the environments: files are linked, not copied."""
    return run("uv", *arguments, env={"UV_CACHE_DIR": str(CACHE), "UV_LINK_MODE": "hardlink"})


def create(environment: Environment, folder: Path, extra: Sequence[str] = ()) -> Path:
    """Makes the virtual environment, or takes the one that was kept; returns its interpreter."""
    python = folder / "bin" / "python"
    complete = folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        made = uv("venv", "--quiet", "--python", interpreter(environment.python), folder)
        if made.returncode != 0:
            raise SystemExit(f"{environment.name}: no virtual environment:\n{made.stderr}")
        groups = install_group.tomllib.loads(install_group.PYPROJECT.read_text("utf-8"))
        pinned = [
            requirement
            for group in ("test", "helpers", "triton")  # Builds for the CPU bring no triton along.
            for requirement in install_group.requirements(groups["dependency-groups"], group)
        ]
        # The newest releases for that Python: the pinned ones may not support it any more.
        tests = [re.split("[=;]", requirement)[0] for requirement in pinned]
        wanted = [f"torch=={environment.torch}", "pillow"]
        if environment.tensorflow:
            wanted.append(f"tensorflow-cpu=={environment.tensorflow}")
        done = uv("pip", "install", "--quiet", "--python", python, *wanted, *tests, *extra)
        if done.returncode != 0:
            raise SystemExit(f"{environment.name} cannot be installed:\n{done.stderr[-3000:]}")
        complete.touch()
    return python


def install(environment: Environment, wheel: Path, folder: Path) -> Path:
    """The environment with the wheel in it; returns its interpreter."""
    python = create(environment, folder)
    done = uv(
        "pip", "install", "--quiet", "--reinstall-package", DISTRIBUTION, "--python", python, wheel
    )
    if done.returncode != 0:
        raise SystemExit(f"{environment.name}: the wheel is not installed:\n{done.stderr[-3000:]}")
    return python


def outcomes(report: Path) -> dict[str, Any]:
    """The counts and the names of the failures in a JUnit file."""
    cases = list(ET.parse(report).getroot().iter("testcase"))
    failed = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = [c for c in cases if c.find("skipped") is not None]
    return {
        "passed": len(cases) - len(failed) - len(skipped),
        "skipped": len(skipped),
        "failed": sorted(f"{c.get('classname')}::{c.get('name')}" for c in failed),
    }


def selection(arguments: Sequence[str], everything: Path = TESTS) -> list[str]:
    """pytest's arguments for what was named, or for all that tells about a release.

    Paths are relative to the repository. What is named runs although the others leave it out.
    """
    if not arguments:
        left_out = [f"--ignore={TESTS / path}" for path in LEFT_OUT]
        return ["-m", MARKS, *left_out, str(everything)]
    return [str(ROOT / a) if (ROOT / a.split("::")[0]).exists() else a for a in arguments]


def examine(
    environment: Environment, wheel: Path, arguments: list[str], *, keep: bool
) -> dict[str, Any]:
    """The results of the tests and of the doctor in one environment."""
    folder = SCRATCH / environment.name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        python = install(environment, wheel, folder / "venv")
        env = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        doctor = run(python, "-m", "tensor_bridge", "doctor", "--json", env=env)
        if doctor.returncode != 0 and environment.tensorflow:
            raise SystemExit(f"{environment.name}: the doctor says:\n{doctor.stdout[-3000:]}")
        summary = json.loads(doctor.stdout)["summary"]
        report = folder / "report.xml"
        report.unlink(missing_ok=True)
        command = [python, "-m", "pytest", "--rootdir", ROOT, "-c", ROOT / "pyproject.toml"]
        # Old frameworks warn about their own dependencies; our warnings are tested elsewhere.
        command += ["-o", "filterwarnings=", "-q", "-p", "no:cacheprovider"]
        command += ["-n", "2", "--dist", "worksteal", f"--junitxml={report}"]
        begin = time.monotonic()
        done = run(*command, *selection(arguments, environment.tests), env=env)
        (SCRATCH / f"{environment.name}.log").write_text(done.stdout + done.stderr)
        # 1: some tests failed. Other codes: pytest was interrupted, or ran no tests.
        if done.returncode not in (0, 1) or not report.exists():
            raise SystemExit(
                f"{environment.name}: pytest ends with {done.returncode}:\n{done.stdout[-3000:]}"
            )
        return {
            "environment": asdict(environment),
            "wheel": {
                "name": wheel.name,
                "sha256": digest(wheel),
                "commit": build_wheel.COMMIT.read_text("utf-8").strip(),
            },
            "date": time.strftime("%Y-%m-%d"),
            "doctor": summary,
            "tests": [str(environment.tests.relative_to(ROOT))],
            "left out": sorted(LEFT_OUT) if environment.tensorflow else [],
            "seconds": round(time.monotonic() - begin),
            **outcomes(report),
        }
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(CACHE, ignore_errors=True)


def results() -> list[dict[str, Any]]:
    found = [json.loads(path.read_text("utf-8")) for path in RESULTS.glob("*.json")]

    def order(result: dict[str, Any]) -> Any:
        environment = result["environment"]
        torch = [int(part) for part in environment["torch"].split(".")]
        return torch, environment["tensorflow"] is None

    return sorted(found, key=order)


def table() -> str:
    """The table of docs/versions.md, from the results that are kept."""
    rows = [
        "| torch | TensorFlow | Python | adapter | `to_torch` | `to_tf` | tests passed | failed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in results():
        environment, doctor = result["environment"], result["doctor"]
        cells = [
            environment["torch"],
            environment["tensorflow"] or "none",
            environment["python"],
            *(
                doctor[fact] if environment["tensorflow"] else "-"
                for fact in ("adapter in use", "tf to torch", "torch to tf")
            ),
            f"{result['passed']:,}",
            str(len(result["failed"])),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def updated_page() -> str:
    """The page with the table that the results give."""
    text = PAGE.read_text("utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n{table()}\n{END}", text)


def main(arguments: list[str]) -> int:
    if arguments == ["--table"]:
        PAGE.write_text(updated_page(), "utf-8")
        return 0
    split = arguments.index("--") if "--" in arguments else len(arguments)
    words, tests = arguments[:split], arguments[split + 1 :]
    again, keep = "--again" in words, "--keep" in words
    names = [word for word in words if word not in ("--again", "--keep")]
    unknown = set(names) - {environment.name for environment in ENVIRONMENTS}
    if unknown:
        known = "\n  ".join(environment.name for environment in ENVIRONMENTS)
        raise SystemExit(
            f"no such environment: {', '.join(sorted(unknown))}. There are:\n  {known}"
        )
    wheel = the_wheel()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(exist_ok=True)
    failed = False
    for environment in ENVIRONMENTS:
        path = RESULTS / f"{environment.name}.json"
        if names and environment.name not in names:
            continue
        if path.exists() and not again and not tests:
            kept = json.loads(path.read_text("utf-8"))
            if kept["wheel"]["sha256"] == digest(wheel):
                continue
        result = examine(environment, wheel, tests, keep=keep)
        if not tests:
            path.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
        failed = failed or bool(result["failed"])
        counts = f"{result['passed']} passed, {len(result['failed'])} failed"
        print(f"{environment.name}: {counts}, {result['skipped']} skipped", flush=True)
        if tests:
            print("\n".join(result["failed"]), end="\n" if result["failed"] else "")
    PAGE.write_text(updated_page(), "utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
