"""Checks that the tests notice a missing wait: `make emulated-gpu-mutants`. NOT A GPU.

    python tests/gpu_emulator/mutate.py            # every mutant; keeps the result
    python tests/gpu_emulator/mutate.py give_back  # mutants with this in the name; keeps nothing

A copy of the checkout is built with all mutants (mutants.py) in it. For each mutant, the tests of
the rig run in the lazy mode up to the first failure, beginning with the test that failed last time.
A mutant that passes all tests survives, which is a gap in the tests.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import environment
import mutants
from emulated_gpu import MODES, SIDE_BY_SIDE, TESTS, commit, keep, pytest_command
from environment import ROOT, SCRATCH, Environment, site_packages

MODE = "lazy"
# A mutant may wait for ever. All tests take 10 minutes, and half an hour on a busy machine; a slow
# run must not count as a failure.
LIMIT_S = 5400
TEST_LIMIT_S = 120
# Tests of waits come first, because the first failure is enough.
ORDER = ("tests/python/gpu/test_streams.py", "tests/python/gpu/test_data.py", *reversed(TESTS))


def copy_of_checkout(folder: Path) -> Path:
    """Copies the package's present sources, with switches for all mutants."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    names = {name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()}
    found = mutants.all_of(ROOT)
    for name in names:
        source, target = ROOT / name, folder / name
        content = source.read_bytes()
        if name in found:
            content = mutants.switched(name, content.decode(), found[name]).encode()
        if target.exists() and target.read_bytes() == content:
            continue  # unchanged, so that it is not compiled again
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        shutil.copymode(source, target)
    for path in folder.rglob("*"):
        if path.is_file() and str(path.relative_to(folder)) not in names:
            path.unlink()
    return folder


def first_failure(env: Environment, mutant: str, *tests: str) -> str | None:
    """The first test that fails with the mutant, or None. "" means no mutant."""
    command = pytest_command(env, "-x", "-rfE", "--timeout", str(TEST_LIMIT_S), *tests)
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=env.variables(**MODES[MODE]) | {"TB_MUTANT": mutant},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no end in {LIMIT_S} s"
    if done.returncode == 0:
        return None
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    # "FAILED test - message"; names of tests may have spaces.
    return (
        failed[0].split(" - ")[0].split(" ", 1)[1]
        if failed
        else f"pytest ends with {done.returncode}"
    )


class Killers:
    """The test that failed last time with each mutant, kept between runs to save time."""

    def __init__(self) -> None:
        self._file = SCRATCH / "mutants" / "killers.json"
        self._lock = Lock()
        self._known: dict[str, str] = {}
        if self._file.exists():
            self._known = json.loads(self._file.read_text("utf-8"))

    def of(self, env: Environment, mutant: mutants.Mutant) -> str | None:
        """The test that notices the mutant, or None."""
        key = f"{mutant.path}: {mutant.code}"
        known = self._known.get(key, "")
        found = None
        if "::" in known:
            found = first_failure(env, mutant.name, known)
            # 4: the test no longer exists.
            found = None if found == "pytest ends with 4" else found
        found = found or first_failure(env, mutant.name, *ORDER)
        if found is not None:
            with self._lock:
                self._known[key] = found
                self._file.write_text(json.dumps(self._known, indent=2), "utf-8")
        return found


def is_compiled(env: Environment, mutant: mutants.Mutant) -> bool:
    """Whether the mutant is in the package, which lacks code for other releases of torch."""
    package = site_packages(env.folder) / "tensor_bridge"
    name = mutant.name.encode()
    return mutant.path.endswith(".py") or any(
        name in library.read_bytes() for library in package.glob("*.so")
    )


def main(arguments: list[str]) -> int:
    """Returns 1 if a mutant survives."""
    venv = environment.frameworks()
    environment.build_rig(venv)
    checkout = copy_of_checkout(SCRATCH / "mutants" / "checkout")
    env = Environment("mutants/env", venv, checkout)
    env.install()
    wanted = [
        mutant
        for each in mutants.all_of(ROOT).values()
        for mutant in each
        if not arguments or any(part in mutant.name for part in arguments)
    ]
    absent = [mutant.name for mutant in wanted if not is_compiled(env, mutant)]
    there = [mutant for mutant in wanted if mutant.name not in absent]
    killers = Killers()

    def failure(mutant: mutants.Mutant) -> str | None:
        found = killers.of(env, mutant)
        print(f"{mutant.name}\n  {found or 'SURVIVES'}", flush=True)
        return found

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        without = pool.submit(first_failure, env, "", *ORDER)
        found = dict(zip(there, pool.map(failure, there), strict=True))
    if without.result() is not None:
        raise SystemExit(f"the tests fail without a mutant: {without.result()}")
    killed = {mutant.name: failed for mutant, failed in found.items() if failed is not None}
    survivors = [mutant.name for mutant, failed in found.items() if failed is None]
    if not arguments:
        kept = {
            "commit": commit(),
            "date": time.strftime("%Y-%m-%d"),
            "mode": MODE,
            "killed": killed,
            "survivors": survivors,
            "not in this build": absent,
        }
        keep(mutants=kept)
    print(f"{len(killed)} killed, {len(survivors)} survive, {len(absent)} not in this build")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
