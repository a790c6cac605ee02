"""Processes that write files and are ended while they do.

A server imports what is needed once, with `kill_at.cc` preloaded, and forks for each job. As a
script this is the server: it reads lines of JSON and writes one for each.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("kill_at.cc")
_FAR = 1 << 40  # calls that no job makes


def build(folder: Path) -> Path:
    """Compiles the preloaded library."""
    library = folder / "kill_at.so"
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    assert compiler is not None, "expected a C++ compiler: install g++, or set CXX"
    command = [*compiler.split(), "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC"]
    command += ["-shared", str(SOURCE), "-o", str(library), "-ldl"]
    subprocess.run(command, check=True)
    return library


class Writers:
    """The server, for the time of a `with` block."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        library = build(Path(self._folder.name))
        env = os.environ | {"LD_PRELOAD": str(library), "KILL_AT": str(library)}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )

    def __enter__(self) -> Writers:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
        self._folder.cleanup()

    def _ask(self, **job: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def ended_at(self, code: str, call: int, *, half: bool = False, poor: bool = False) -> str:
        """Runs code that is killed at its call of this number; the call, or "" if it has fewer.

        ``half``: half of the bytes of a write are written first. ``poor``: the file system has only
        the features of NFS.
        """
        status, name = self._ask(code=code, call=call, half=half, poor=poor)
        assert status == (-signal.SIGKILL if name else 0), status
        return str(name)

    def run(self, code: str) -> None:
        """Runs code to its end. Nothing is synced to the disk."""
        assert self.ended_at(code, _FAR) == ""

    def ended_after(self, code: str, seconds: float) -> None:
        """Runs endless code, and kills it this many seconds after it began."""
        status = self._ask(code=code, seconds=seconds)
        assert status == -signal.SIGKILL, status

    def together(self, codes: list[str]) -> list[int]:
        """Runs each in its own process, all at the same time; returns their exit statuses."""
        statuses: list[int] = self._ask(together=codes)
        return statuses


def run(code: str) -> None:
    status = 1
    try:
        exec(compile(code, "<job>", "exec"), {"__name__": "__main__"})
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def at_a_call(job: dict[str, Any], library: Any) -> tuple[int, str]:
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        library.kill_at_arm(job["call"], writes, job["half"], job["poor"])
        run(job["code"])
    os.close(writes)
    status = status_of(pid)
    with os.fdopen(reads) as file:
        return status, file.read()


def after_a_time(job: dict[str, Any]) -> int:
    # The first byte says that the work has begun.
    begun, begins = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(begins, b"1")
        run(job["code"])
    os.read(begun, 1)
    time.sleep(job["seconds"])
    os.kill(pid, signal.SIGKILL)
    for fd in (begun, begins):
        os.close(fd)
    return status_of(pid)


def at_one_time(codes: list[str]) -> list[int]:
    starts, start = os.pipe()
    pids = []
    for code in codes:
        pid = os.fork()
        if pid == 0:
            os.close(start)
            os.read(starts, 1)  # returns when the other end is closed
            run(code)
        pids.append(pid)
    os.close(start)
    os.close(starts)
    return [status_of(pid) for pid in pids]


def main() -> None:
    import ctypes

    import torch

    import tensor_bridge

    # All that a job imports.
    assert tensor_bridge.checkpoint.convert
    assert torch.save
    library = ctypes.CDLL(os.environ["KILL_AT"])
    library.kill_at_arm.argtypes = [ctypes.c_int64, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    for line in sys.stdin:
        job = json.loads(line)
        if "together" in job:
            done: Any = at_one_time(job["together"])
        elif "seconds" in job:
            done = after_a_time(job)
        else:
            done = at_a_call(job, library)
        print(json.dumps(done), flush=True)


if __name__ == "__main__":
    main()
