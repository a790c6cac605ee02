"""Runs code in an interpreter of its own, for what a process can do or show only once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping

__all__ = ["run_claims", "run_python"]

_CLAIMS = """
import json as _json, sys as _sys, traceback as _traceback

for _name, _code in _json.loads(_sys.argv[1]).items():
    try:
        exec(compile(_code, f"<{_name}>", "exec"), globals())
        _outcome = ""
    except BaseException:
        _outcome = _traceback.format_exc()
    print("CLAIM", _json.dumps([_name, _outcome]), flush=True)
"""


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


def run_claims(
    prelude: str, claims: Mapping[str, str], options: tuple[str, ...] = ("-W", "error")
) -> dict[str, str]:
    """Runs many pieces of code in one process, whose start takes seconds, and judges each alone.

    Args:
      prelude: Runs first; the pieces see its names.
      claims: A piece of code for each name; it holds if it raises nothing.
      options: Of the interpreter.

    Returns:
      For each name the traceback, or "".
    """
    pieces = {name: textwrap.dedent(code) for name, code in claims.items()}
    code = textwrap.dedent(prelude) + _CLAIMS
    output = run_python(code, json.dumps(pieces), options=options)
    lines = [line for line in output.splitlines() if line.startswith("CLAIM ")]
    outcomes: dict[str, str] = dict(json.loads(line.removeprefix("CLAIM ")) for line in lines)
    assert outcomes.keys() == claims.keys()
    return outcomes
