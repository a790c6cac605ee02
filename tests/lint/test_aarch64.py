"""What `tools/aarch64.py` runs and keeps, without the emulator, which takes hours."""

from __future__ import annotations

import json
from pathlib import Path

import aarch64
import pytest
from tree import ROOT


def test_each_folder_has_its_turn() -> None:
    names = [str(p.relative_to(ROOT)) for p in (ROOT / "tests/python").rglob("test_*.py")]
    ordered = aarch64.by_turns(names)
    assert sorted(ordered) == sorted(names)
    folders = [name.split("/")[2] for name in ordered]
    first = folders[: len(set(folders))]
    assert sorted(first) == sorted(set(folders))


def test_what_ended_before_an_interruption_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"tests/python/{folder}/test_a.py" for folder in ("data", "records", "to_tf")]

    names.append("tests/python/to_torch/test_a.py")
    earlier = {"commit": "another", "passed": 5, "skipped": {}, "failed": []}
    (tmp_path / "result.json").write_text(
        json.dumps(
            {"commit": "another", "newest": {"outcomes": {names[0]: earlier, names[3]: earlier}}}
        )
    )

    def interrupted(name: str, results: Path, only: list[str], done: dict[str, object]) -> None:
        assert list(done) == [names[0], names[3]]
        results.mkdir(parents=True)
        case = "<testsuite><testcase name='t'/></testsuite>"
        (results / "data.test_a.xml").write_text(case)
        (results / "records.test_a.ended").write_text("-11")
        raise KeyboardInterrupt

    wheel = tmp_path / "a.whl"
    wheel.touch()
    monkeypatch.setattr(aarch64, "RESULT", tmp_path / "result.json")
    monkeypatch.setattr(aarch64, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(aarch64.build_wheel, "COMMIT", wheel)
    monkeypatch.setattr(aarch64.matrix, "the_wheel", lambda: wheel)
    monkeypatch.setattr(aarch64, "make_root", lambda: None)
    monkeypatch.setattr(aarch64, "make_tree", lambda: "a commit")
    monkeypatch.setattr(aarch64, "make_environment", lambda name, wheel: None)
    monkeypatch.setattr(aarch64, "run", lambda *command: "an emulator")
    monkeypatch.setattr(aarch64, "files", lambda tests: names)
    monkeypatch.setattr(aarch64, "run_python", interrupted)
    with pytest.raises(KeyboardInterrupt):
        aarch64.main(["newest"])
    kept = json.loads((tmp_path / "result.json").read_text("utf-8"))
    assert kept["commit"] == "a commit"
    newest = kept["newest"]
    assert newest["files"] == 3
    assert newest["files of another commit"] == 1
    assert newest["passed"] == 1 + 5
    assert newest["failed"] == [f"{names[1]}::ended with -11"]
    assert newest["files that did not run"] == [names[2]]
    assert newest["outcomes"][names[3]] == earlier
    assert newest["outcomes"][names[0]]["commit"] == "a commit"
    assert aarch64.violations(kept) == [
        "c++: did not run",
        "middle: did not run",
        f"newest: {names[1]}::ended with -11",
        f"newest: {names[2]}: did not run",
        "newest: of commit another",
    ]
