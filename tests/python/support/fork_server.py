"""Server of `fresh.run_forked`.

Reads lines of [code, timeout, exits, after], writes lines of [exit code, stdout, stderr]. `after`
is a list of code. A fork that has run its first item stays, and serves all jobs after that item.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import tempfile
import traceback
from typing import Any, TextIO

# The names that the code of jobs sees.
NAMES: dict[str, Any] = {}


def child(code: str, out: int, err: int, *, exits: bool) -> None:
    os.dup2(out, 1)
    os.dup2(err, 2)
    # A job that reads the server's input would take the next job.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if exits:
        # Only the module of this code is left when the interpreter ends.
        exec(compile(code, "<forked>", "exec"), main_module().__dict__)
        return
    status = 1
    try:
        exec(compile(code, "<forked>", "exec"), {"__name__": "__main__", **NAMES})
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main_module() -> Any:
    module = sys.modules["__main__"]
    module.__dict__.update(NAMES)
    return module


def wait(pid: int, timeout: float) -> int:
    ended = os.pidfd_open(pid)
    late = not select.select([ended], [], [], timeout)[0]
    os.close(ended)
    if late:
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    return 124 if late else os.waitstatus_to_exitcode(status)


def forked(code: str, timeout: float, *, exits: bool) -> list[Any] | None:
    """The result of a fork that ran the code; None in that fork, whose interpreter then ends."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            child(code, out.fileno(), err.fileno(), exits=exits)
            return None
        answer: list[Any] = [wait(pid, timeout)]
        for file in (out, err):
            file.seek(0)
            answer.append(file.read().decode(errors="replace"))
        return answer


def serve(lines: TextIO, answers: TextIO) -> None:
    ready: dict[str, TextIO] = {}
    broken = ""
    while line := lines.readline():
        code, timeout, exits, after = json.loads(line)
        answer: Any
        if broken:
            answer = [1, "", broken]
        elif after:
            first, *rest = after
            if first not in ready:
                ours, theirs = socket.socketpair()
                if os.fork() == 0:
                    # A reader of the server's answers must not wait for this fork to end.
                    for number in (0, 1):
                        os.dup2(os.open(os.devnull, os.O_RDWR), number)
                    ours.close()
                    for file in ready.values():
                        file.close()
                    ready, broken = {}, prepared(first)
                    lines = answers = theirs.makefile("rw")
                    continue
                theirs.close()
                ready[first] = ours.makefile("rw")
            print(json.dumps([code, timeout, exits, rest]), file=ready[first], flush=True)
            answer = json.loads(ready[first].readline())
        else:
            answer = forked(code, timeout, exits=exits)
            if answer is None:
                return
        print(json.dumps(answer), file=answers, flush=True)


def prepared(after: str) -> str:
    """Runs code whose names later jobs see; returns the traceback if it fails."""
    try:
        exec(compile(after, "<after>", "exec"), NAMES)
    except BaseException:
        return traceback.format_exc()
    gc.freeze()
    return ""


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
