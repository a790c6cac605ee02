"""`make demo` succeeds: times of conversions, a write, files without TensorFlow, a gradient."""

from __future__ import annotations

import re

from fresh import run_forked
from pages import ROOT


def test_the_demo_ends_with_all_checks_passed() -> None:
    done = run_forked(
        f"""
        import sys
        sys.path.insert(0, {str(ROOT / "examples")!r})
        import demo
        demo.TIMING_ROUNDS = 1
        demo.STORIES = {{"gradient": demo.STORIES["gradient"]}}
        assert demo.main() == 0
        """,
        timeout=300,
    )
    assert done.code == 0, done.out + done.err
    [passed] = re.findall(r"All (\d+) checks passed", done.out)
    assert int(passed) > 80
