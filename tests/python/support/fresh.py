"""Python code in separate processes: for code that corrupts, aborts, hangs, or runs at exit."""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
# Lines that TensorFlow writes before it has read TF_CPP_MIN_LOG_LEVEL: that it does so, and, on
# processors with instructions for neural networks, that it uses oneDNN.
_NOISE = re.compile(r"WARNING: All log messages before absl::InitializeLog\(\)|I0000 .* port\.cc:")


class Done(NamedTuple):
    """How a process ended; 124 is `timeout`'s code for one that did not end in time."""

    code: int
    out: str
    err: str

    def check(self) -> str:
        """Its output; raises unless it succeeded and wrote nothing to stderr."""
        assert self.code == 0, f"exit {self.code}\n{self.out}\n{self.err}"
        assert self.err == "", self.err
        return self.out.strip()


def _quiet(err: str) -> str:
    return "".join(f"{line}\n" for line in err.splitlines() if not _NOISE.match(line))


def run_python(code: str, *arguments: str, timeout: float = 240, **env: str) -> Done:
    """Runs `code` in a new interpreter: slow, but with nothing prepared."""
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    try:
        done = subprocess.run(
            command,
            env=os.environ | _QUIET | env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        return Done(124, str(e.stdout or ""), str(e.stderr or ""))
    return Done(done.returncode, done.stdout, _quiet(done.stderr))


# Code that runs before the code of forks by default: prepares the package for triton if that is
# installed, and loads the adapter.
BOTH = """
import importlib.util
import tensor_bridge
if importlib.util.find_spec("triton") is not None:
    tensor_bridge.prepare()
import tensorflow as tf, torch
from tensor_bridge import TensorBridge, _frameworks, testing
_frameworks.ensure()
"""
# The same imports in another order, and without the package.
TENSORFLOW_FIRST = "import tensorflow as tf, torch"
TORCH_FIRST = "import torch, tensorflow as tf"
WITHOUT_TORCH = "import tensor_bridge, tensorflow as tf"
# The imports of a process's first optimizer, which take a second.
COMPILER = "import torch._dynamo"


class _Forks:
    """A process without imports; its fork imports, and each job is a fork of that fork."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
            env=os.environ | _QUIET,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        atexit.register(self._stop)

    def _stop(self) -> None:
        self._server.kill()
        self._server.communicate()

    def run(self, code: str, timeout: float, *, exits: bool, after: Sequence[str]) -> Done:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        job = [textwrap.dedent(code), timeout, exits, [*map(textwrap.dedent, after)]]
        try:
            self._server.stdin.write(json.dumps(job) + "\n")
            self._server.stdin.flush()
            code_, out, err = json.loads(self._server.stdout.readline())
        except BaseException:
            # pytest's time limit: nobody must read the answer that is still to come.
            self._stop()
            _forks.cache_clear()
            raise
        return Done(code_, out, _quiet(err))


@functools.cache
def _forks() -> _Forks:
    return _Forks()


def run_forked(
    code: str, *, timeout: float = 200, exits: bool = False, after: Sequence[str] = (BOTH,)
) -> Done:
    """Runs `code` in a fork of a process with both frameworks and the package: 0.1 to 0.5 s.

    Args:
      code: Sees `tf`, `torch`, `tensor_bridge`, `testing` and `TensorBridge`, imported and unused.
      timeout: Seconds.
      exits: The code is the main module of an interpreter that is finalized, which takes a second
        or two. Without it the process ends with os._exit.
      after: Code that runs first instead, one item after the other, each in a fork of the previous
        process. The forks are kept for later code with the same ``after``.
    """
    return _forks().run(code, timeout, exits=exits, after=after)
