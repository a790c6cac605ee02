"""The results of the emulated device are complete, and each wait in the sources has a mutant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import mutants
import peers
import pytest
from emulated_gpu import MODES
from tree import ROOT

RESULT: dict[str, Any] = json.loads(peers.RESULT.read_text(encoding="utf-8"))


def what_is_missing(result: dict[str, Any]) -> Iterator[str]:
    """The reasons why a result does not show that one commit passes; none if it does."""
    if set(result["modes"]) != set(MODES):
        yield f"modes: {sorted(result['modes'])}"
    for mode, found in result["modes"].items():
        if found["failed"] or not found["passed"]:
            yield f"{mode}: {found['passed']} passed, failed: {found['failed']}"
    found = result["mutants"]
    if found["survivors"] or not found["killed"]:
        yield f"mutants: {len(found['killed'])} killed, survivors: {found['survivors']}"
    commits = {result["commit"], found["commit"], result["peers"]["commit"]}
    if len(commits) > 1 or any(commit.endswith("+") for commit in commits):
        yield f"commits: {sorted(commits)}"


def test_the_result_is_whole() -> None:
    assert not list(what_is_missing(RESULT))


# Path in the result, and what breaks it.
BROKEN = {
    "a mode did not run": (("modes",), {"lazy": {"passed": 1, "failed": []}}),
    "a test failed": (("modes", "random", "failed"), ["x"]),
    "no test ran": (("modes", "immediate", "passed"), 0),
    "a mutant survives": (("mutants", "survivors"), ["x"]),
    "no mutant ran": (("mutants", "killed"), {}),
    "mutants of another commit": (("mutants", "commit"), "0123"),
    "peers of another commit": (("peers", "commit"), "0123"),
    "modes of another commit": (("commit",), "0123"),
    "modes of changed files": (("commit",), RESULT["commit"] + "+"),
}


@pytest.mark.parametrize("way", BROKEN)
def test_what_is_missing_is_found(way: str) -> None:
    (*above, last), value = BROKEN[way]
    result = json.loads(json.dumps(RESULT))
    inner = result
    for key in above:
        inner = inner[key]
    inner[last] = value
    assert len(list(what_is_missing(result))) == 1


def test_the_table_of_the_docs_is_that_of_the_result() -> None:
    text = peers.DOCS.read_text(encoding="utf-8")
    assert peers.BEGIN in text
    assert text == peers.updated_docs(), "run tests/gpu_emulator/peers.py --table"


def test_ours_do_not_race() -> None:
    found = RESULT["peers"]["found"]
    ours = [row[way] for row in found.values() for way in row if way.startswith(peers.OURS)]
    assert len(ours) >= 5
    assert all(row["violations"] == 0 for row in ours)


def test_the_sources_have_mutants() -> None:
    found = mutants.all_of(ROOT)
    names = [mutant.name for each in found.values() for mutant in each]
    assert len(set(names)) == len(names)
    assert mutants.PYTHON_FILE in found
    assert any(path.startswith("src/adapters/torch/") for path in found)


# A line of C++, and the call that its mutant leaves out; None if there is no mutant.
CPP = {
    "synchronize(device);": "synchronize(device)",
    "if (x) wait(); else f();": "wait()",
    "currentStream(device).synchronize();": "currentStream(device).synchronize()",
    "a(); data = api.TFE_TensorHandleDevicePointer(handle,\n status); b();": (
        "data = api.TFE_TensorHandleDevicePointer(handle, status)"
    ),
    "return ok(cuda.cudaEventQuery(event));": "cuda.cudaEventQuery(event)",
    "f([&] { waitForRoom(); });": "waitForRoom()",
    "ready_.wait(lock, [] { return true; });": None,
    "// synchronize();": None,
    "void waitForRoom() {}": None,
    "void* data = api.TFE_TensorHandleDevicePointer(handle, status);": None,
    "recordsOf(begin, size);": None,
}


@pytest.mark.parametrize("code", CPP)
def test_what_is_left_out_of_cpp(code: str) -> None:
    found = [mutant.code for mutant in mutants.of_cpp("x.cc", "{" + code + "}")]
    assert found == ([] if CPP[code] is None else [CPP[code]])


def test_what_is_left_out_of_python() -> None:
    code = "if x:\n    stream.wait_event(\n        event)\ny = stream.query()\nz.recorded()\n"
    (mutant,) = mutants.of_python("x.py", code)
    assert mutant.name == "x.py:2: stream.wait_event( event)"


def test_switches_are_where_the_calls_are() -> None:
    code = 'void f() {\n  orderAfter(g(cuda.cudaEventRecord("a")));\n}\n'
    found = list(mutants.of_cpp("x.cc", code))
    text = mutants.switched("x.cc", code, found)
    outer, inner = (mutant.name.replace('"', '\\"') for mutant in found)
    assert (
        f'  static_cast<void>(tbIsMade("{outer}") && (orderAfter(g((tbIsMade("{inner}") ? '
        'cuda.cudaEventRecord("a") : 0))), true));\n'
    ) in text


@pytest.mark.parametrize("left_out", [True, False])
def test_a_switch_leaves_the_call_out(left_out: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    (mutant,) = mutants.of_python("x.py", "made.record()\n")
    monkeypatch.setenv("TB_MUTANT", mutant.name if left_out else "another")
    calls: list[str] = []

    class Made:
        def record(self) -> None:
            calls.append("record")

    exec(mutants.switched("x.py", "made.record()\n", [mutant]), {"made": Made()})
    assert calls == ([] if left_out else ["record"])
