"""Server of `fresh.run_forked`.

Reads lines of [code, timeout, exits, after], writes lines of [exit code, stdout, stderr]. A fork
that has run the code `after` stays, and serves all jobs that come after that code.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import tempfile
import traceback
from typing import Any, TextIO

import tensor_bridge

if importlib.util.find_spec("triton") is not None:
    tensor_bridge.prepare()

import tensorflow as tf
import torch

from tensor_bridge import _frameworks

NAMES = {
    "tf": tf,
    "torch": torch,
    "tensor_bridge": tensor_bridge,
    "testing": tensor_bridge.testing,
    "TensorBridge": tensor_bridge.TensorBridge,
}


def child(code: str, out: int, err: int, *, exits: bool) -> None:
    os.dup2(out, 1)
    os.dup2(err, 2)
    # What reads the server's input would take the next job.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if exits:
        # The module of this code is what is left when the interpreter ends.
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
    """What became of a fork that ran the code; None in that fork, whose interpreter is to end."""
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
    mine, broken = "", ""
    while line := lines.readline():
        code, timeout, exits, after = json.loads(line)
        answer: Any
        if after != mine:
            if after not in ready:
                ours, theirs = socket.socketpair()
                if os.fork() == 0:
                    # Who waits for the end of the server's answers must not wait for this one.
                    for number in (0, 1):
                        os.dup2(os.open(os.devnull, os.O_RDWR), number)
                    ours.close()
                    for file in ready.values():
                        file.close()
                    ready, mine, broken = {}, after, prepared(after)
                    lines = answers = theirs.makefile("rw")
                    continue
                theirs.close()
                ready[after] = ours.makefile("rw")
            ready[after].write(line)
            ready[after].flush()
            answer = json.loads(ready[after].readline())
        elif broken:
            answer = [1, "", broken]
        else:
            answer = forked(code, timeout, exits=exits)
            if answer is None:
                return
        print(json.dumps(answer), file=answers, flush=True)


def prepared(after: str) -> str:
    """Runs what jobs come after, which see its names; the traceback if it fails."""
    try:
        exec(compile(after, "<after>", "exec"), NAMES)
    except BaseException:
        return traceback.format_exc()
    gc.freeze()
    return ""


def main() -> None:
    _frameworks.ensure()
    gc.freeze()
    serve(sys.stdin, sys.stdout)


if __name__ == "__main__":
    main()
