"""The commands and verdicts of `tools/source_installs.py`, without the slow installs."""

from __future__ import annotations

import json

import pytest
import source_installs

READY = {"ends": "ready", "doctor": {}, "seconds": 1}
HIDDEN = "uv pip install ."


def test_the_ways_are_those_of_the_pages() -> None:
    ways = source_installs.ways("a.tar.gz")
    assert ways["README"] == ["pip install ."]
    assert ways["without isolation"][-1] == "pip install --no-build-isolation ."
    assert len(source_installs.ENVIRONMENTS) == len(source_installs.TORCHES)


@pytest.mark.parametrize(
    ("way", "how", "right"),
    [
        ("README", READY, True),
        ("README", {"ends": "failed", "says": source_installs.REFUSED[HIDDEN]}, False),
        (HIDDEN, {"ends": "failed", "says": source_installs.REFUSED[HIDDEN] + "pip"}, True),
        (HIDDEN, {"ends": "failed", "says": "No torch"}, False),
        (HIDDEN, READY, True),
    ],
)
def test_a_way_ends_ready_or_with_the_remedy(way: str, how: dict[str, object], right: bool) -> None:
    assert (source_installs.violations({"ways": {way: how}}) == []) == right


def test_the_results_that_are_kept_are_right() -> None:
    for path in source_installs.RESULTS.glob("*.json"):
        assert source_installs.violations(json.loads(path.read_text("utf-8"))) == [], path.name
