"""Runs files of Python tests, each in a fork of one process that has imported the frameworks.

Called by aarch64.py under the emulator, where the imports take minutes. For each file that comes on
stdin there are then in FOLDER a JUnit report, if pytest reached its end, or else a file with how it
ended, and what was printed.

    python tools/aarch64_inside.py FOLDER JOBS [pytest options] < names of files
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path

# A file that has not ended by then is ended: seconds.
LIMIT = 3 * 3600


def slug(name: str) -> str:
    return name.removeprefix("tests/python/").removesuffix(".py").replace("/", ".")


def run(name: str, folder: Path, options: list[str]) -> int:
    """Starts a fork that runs the tests of a file; returns its process number."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        log = os.open(folder / f"{slug(name)}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        import pytest

        code = int(pytest.main([*options, f"--junitxml={folder / slug(name)}.part", name]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(name: str, status: int, seconds: float, folder: Path) -> None:
    part, report = folder / f"{slug(name)}.part", folder / f"{slug(name)}.xml"
    code = os.waitstatus_to_exitcode(status)
    # 1: some tests failed; 5: none of the file was selected.
    if code in (0, 1, 5) and part.exists():
        part.rename(report)
    else:
        (folder / f"{slug(name)}.ended").write_text(f"{code}\n", "utf-8")
    print(f"{time.strftime('%H:%M:%S')} {code} {seconds:5.0f} s {name}", flush=True)


def main(arguments: list[str]) -> int:
    folder, jobs, options = Path(arguments[0]), int(arguments[1]), arguments[2:]
    names = sys.stdin.read().split()
    for module in ("tensor_bridge", "torch", "tensorflow", "hypothesis", "pytest"):
        __import__(module)
        print(f"{time.strftime('%H:%M:%S')} imported {module}", flush=True)
    sys.modules["tensorflow"].keras.layers  # noqa: B018  # imported when it is first used
    running: dict[int, tuple[str, float]] = {}
    while names or running:
        while names and len(running) < jobs:
            name = names.pop(0)
            running[run(name, folder, options)] = (name, time.monotonic())
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            name, begin = running.pop(pid)
            ended(name, status, time.monotonic() - begin, folder)
            continue
        for pid, (_, begin) in running.items():
            if time.monotonic() > begin + LIMIT:
                os.kill(pid, 9)
        time.sleep(0.2)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
