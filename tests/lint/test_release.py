"""The errors that `tools/release_check.py` finds, without its builds, which are too slow here."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import aarch64
import matrix
import pytest
import release_check
import source_installs
from tree import ROOT


def test_the_changelog_begins_with_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert list(release_check.changelog_violations(text, release_check.version())) == []
    (found,) = release_check.changelog_violations(text, "99.0.0")
    assert "99.0.0" in found


def test_a_missing_and_a_failed_result_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = json.loads(next(matrix.RESULTS.glob("*.json")).read_text(encoding="utf-8"))
    name = matrix.Environment(**kept["environment"]).name
    (tmp_path / f"{name}.json").write_text(json.dumps(kept | {"failed": ["a test"]}))
    monkeypatch.setattr(matrix, "RESULTS", tmp_path)
    found = list(release_check.matrix_violations())
    assert f"matrix: {name}: a test" in found
    missing = [text for text in found if "no result" in text]
    assert len(missing) == len(matrix.ENVIRONMENTS) - 1
    assert any("not the table of the results" in text for text in found)


def test_a_result_is_of_a_commit_of_this_history_and_without_failures(tmp_path: Path) -> None:
    head = release_check.build_wheel.git("rev-parse", "--short=12", "HEAD")
    right = {"commit": head} | {part: {"failed": []} for part in aarch64.PARTS}
    path = tmp_path / "result.json"

    def found(result: dict[str, object]) -> list[str]:
        path.write_text(json.dumps(result))
        return list(release_check.kept_violations(path, aarch64.violations))

    assert found(right) == []
    for commit in ("0" * 12, f"{head}-dirty"):
        (said,) = found(right | {"commit": commit})
        assert f"the result is of {commit}, no commit of this history" in said
    assert found(right | {"c++": {"failed": ["a program"]}}) == ["result.json: c++: a program"]
    del right["newest"]
    assert found(right) == ["result.json: newest: did not run"]
    path.unlink()
    (said,) = release_check.kept_violations(path, aarch64.violations)
    assert "result: no result" in said


def test_results_of_source_installs_and_of_aarch64_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_installs, "RESULTS", tmp_path)
    monkeypatch.setattr(aarch64, "RESULT", tmp_path / "result.json")
    found = list(release_check.on_demand_violations())
    names = [environment.name for environment in source_installs.ENVIRONMENTS]
    assert [text.partition(": no result")[0] for text in found] == [*names, "result"]


def test_what_a_source_distribution_lacks_is_found(tmp_path: Path) -> None:
    sdist = tmp_path / "sdist.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("name-0/LICENSE"), io.BytesIO())
        archive.addfile(tarfile.TarInfo("name-0/tests/x.py"), io.BytesIO())
    found = list(release_check.sdist_violations(sdist))
    assert f"{sdist.name}: no CMakeLists.txt" in found
    assert f"{sdist.name}: no LICENSE" not in found
    assert f"{sdist.name}: has tests/x.py" in found
