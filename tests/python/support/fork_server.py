"""Server of `fresh.run_forked`.

Reads lines of [code, timeout, exits], writes lines of [exit code, stdout, stderr].
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from typing import Any

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
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 124


def main() -> None:
    _frameworks.ensure()
    gc.freeze()
    for line in sys.stdin:
        code, timeout, exits = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            pid = os.fork()
            if pid == 0:
                child(code, out.fileno(), err.fileno(), exits=exits)
                return
            status = wait(pid, timeout)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        print(json.dumps([status, *texts]), flush=True)


if __name__ == "__main__":
    main()
