"""Runs code in an interpreter of its own, for what a process can do or show only once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

__all__ = ["run_python"]


def run_python(
    code: str,
    *arguments: str,
    env: dict[str, str] | None = None,
    options: tuple[str, ...] = ("-W", "error"),
    timeout: float = 240,
) -> str:
    """What the code prints; fails the test with its traceback, or signal, if it does not end well.

    ``env`` is added to this process's environment.
    """
    process = subprocess.run(
        [sys.executable, "-X", "faulthandler", *options, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(env or {})},
        check=False,
    )
    if process.returncode != 0:
        how = f"exit status {process.returncode}"
        if process.returncode < 0:
            how = signal.Signals(-process.returncode).name
        raise AssertionError(f"{how}\n{process.stdout[-4000:]}\n{process.stderr[-8000:]}")
    return process.stdout
