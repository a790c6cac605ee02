"""Tests of the GPU path on the emulated device: `make emulated-gpu`. NOT A GPU.

    python tests/gpu_emulator/emulated_gpu.py     # all tests in every mode; keeps the result
    python tests/gpu_emulator/emulated_gpu.py --only lazy [-- pytest arguments]   # keeps nothing
    python tests/gpu_emulator/emulated_gpu.py --command lazy -- python script.py

EMULATED_GPU_VENV names an environment with the CUDA builds; without it, one of 7 GB is made.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import environment
from environment import HERE, ROOT, SCRATCH, Environment

RESULT = HERE / "result.json"
TESTS = ("tests/python/gpu", "tests/gpu_emulator/tests")
# The tests wait more than they compute.
SIDE_BY_SIDE = os.cpu_count() or 1
MODES = {
    "immediate": {"MODE": "immediate"},
    "lazy": {"MODE": "lazy"},
    "random": {"MODE": "random"},
    "two devices": {"MODE": "lazy", "DEVICES": "2"},
}


def pytest_command(env: Environment, *arguments: str) -> list[str]:
    """The command that runs tests in the rig."""
    plugin = ("-p", "emulator_plugin", "-p", "no:cacheprovider")
    return [str(env.python), "-m", "pytest", "-q", *plugin, *arguments]


def outcomes(report: Path) -> dict[str, Any]:
    """The counts and the names of failed tests in a JUnit file."""
    cases = list(ET.parse(report).getroot().iter("testcase"))
    failed = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = [c for c in cases if c.find("skipped") is not None]
    return {
        "passed": len(cases) - len(failed) - len(skipped),
        "skipped": len(skipped),
        "failed": sorted(f"{c.get('classname')}::{c.get('name')}" for c in failed),
    }


def test_in(mode: str, env: Environment) -> dict[str, Any]:
    """Runs the tests in one mode and returns the outcomes."""
    report = SCRATCH / f"{mode.replace(' ', '-')}.xml"
    report.unlink(missing_ok=True)
    begin = time.monotonic()
    done = subprocess.run(
        pytest_command(env, f"--junitxml={report}", *TESTS),
        cwd=ROOT,
        env=env.variables(**MODES[mode]),
        capture_output=True,
        text=True,
        check=False,
    )
    report.with_suffix(".log").write_text(done.stdout + done.stderr, "utf-8")
    # 1: some tests failed. Other codes: the process ended, or did not run the tests.
    if done.returncode not in (0, 1) or not report.exists():
        raise SystemExit(f"{mode}: pytest ends with {done.returncode}:\n{done.stdout[-3000:]}")
    return {**outcomes(report), "seconds": round(time.monotonic() - begin)}


def commit() -> str:
    """The commit of the checkout, followed by "+" if files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.strip()

    changed = git("status", "--porcelain", "--", ".", f":!{RESULT.relative_to(ROOT)}")
    return git("rev-parse", "HEAD") + ("+" if changed else "")


def keep(**found: Any) -> None:
    """Adds findings to the result, which also has the findings of other scripts."""
    kept = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {}
    kept.update(found)
    RESULT.write_text(json.dumps(kept, indent=2) + "\n", "utf-8")


def main(arguments: list[str]) -> int:
    """Returns 1 if a test failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=MODES, help="one mode; the result is not kept")
    parser.add_argument("--command", choices=MODES, help="runs a command instead of the tests")
    parser.add_argument("--no-install", action="store_true", help="the package is as it was")
    parser.add_argument("rest", nargs="*", metavar="-- ARGUMENT")
    options = parser.parse_args(arguments)
    venv = environment.frameworks()
    environment.build_rig(venv)
    env = Environment("env", venv)
    if not options.no_install:
        env.install()
    if options.command:
        return subprocess.run(
            options.rest, cwd=ROOT, env=env.variables(**MODES[options.command]), check=False
        ).returncode
    if options.only:
        command = pytest_command(env, *(options.rest or TESTS))
        return subprocess.run(
            command, cwd=ROOT, env=env.variables(**MODES[options.only]), check=False
        ).returncode
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        found = dict(zip(MODES, pool.map(lambda mode: test_in(mode, env), MODES), strict=True))
    for mode in MODES:
        counts = f"{found[mode]['passed']} passed, {len(found[mode]['failed'])} failed"
        print(f"emulated device, {mode}: {counts}", flush=True)
        print("".join(f"  {name}\n" for name in found[mode]["failed"]), end="")
    keep(
        device="emulated; not a GPU",
        commit=commit(),
        date=time.strftime("%Y-%m-%d"),
        frameworks=list(environment.FRAMEWORKS),
        tests=list(TESTS),
        modes=found,
    )
    return int(any(each["failed"] for each in found.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
