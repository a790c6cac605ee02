"""The errors that `tools/release_check.py` finds, without its builds, which are too slow here."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import matrix
import pytest
import release_check
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


def test_what_a_source_distribution_lacks_is_found(tmp_path: Path) -> None:
    sdist = tmp_path / "sdist.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("name-0/LICENSE"), io.BytesIO())
        archive.addfile(tarfile.TarInfo("name-0/tests/x.py"), io.BytesIO())
    found = list(release_check.sdist_violations(sdist))
    assert f"{sdist.name}: no CMakeLists.txt" in found
    assert f"{sdist.name}: no LICENSE" not in found
    assert f"{sdist.name}: has tests/x.py" in found
