"""Many pieces of code judged one by one in one fresh process, whose start takes seconds."""

from __future__ import annotations

import functools
import json
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from fresh import Done, run_forked

_JUDGE = """
import json as _json, traceback as _traceback

for _name, _code in _json.loads({claims!r}).items():
    try:
        exec(compile(_code, "<" + _name + ">", "exec"), globals())
        _outcome = ""
    except BaseException:
        _outcome = _traceback.format_exc()
    print("CLAIM", _json.dumps([_name, _outcome]), flush=True)
"""


def run_claims(
    prelude: str, claims: Mapping[str, str], run: Callable[..., Done] = run_forked
) -> dict[str, str]:
    """Runs the claims in order, in one process.

    Args:
      prelude: Runs first; the claims see its names.
      claims: A piece of code for each name; it holds if it raises nothing.
      run: What runs Python code: `fresh.run_forked` or `fresh.run_python`.

    Returns:
      For each name the traceback, or "".
    """
    pieces = json.dumps({name: textwrap.dedent(code) for name, code in claims.items()})
    done = run(textwrap.dedent(prelude) + _JUDGE.format(claims=pieces), timeout=240)
    lines = [line for line in done.out.splitlines() if line.startswith("CLAIM ")]
    outcomes: dict[str, str] = dict(json.loads(line.removeprefix("CLAIM ")) for line in lines)
    ended = f"exit {done.code} after {list(outcomes)[-1:]}\n{done.err[-8000:]}"
    assert done.code == 0, ended
    assert outcomes.keys() == claims.keys()
    return outcomes


def claims_test(
    prelude: str,
    claims: Mapping[str, str],
    run: Callable[..., Done] = run_forked,
    parameters: Iterable[Any] | None = None,
) -> Callable[[str], None]:
    """A test with each claim as a parameter; the first one that runs checks all claims.

    Args:
      prelude: Runs first; the claims see its names.
      claims: A piece of code for each name; it holds if it raises nothing.
      run: What runs Python code: `fresh.run_forked` or `fresh.run_python`.
      parameters: The names, where some of them have marks.
    """
    outcomes = functools.cache(lambda: run_claims(prelude, claims, run))

    @pytest.mark.parametrize("claim", claims if parameters is None else parameters)
    def test(claim: str) -> None:
        assert not outcomes()[claim], outcomes()[claim]

    return test
