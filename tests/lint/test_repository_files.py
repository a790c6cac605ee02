"""The files for the site that hosts the repository: they can be read, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tree import ROOT

import tensor_bridge

FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_citation_is_that_of_this_release() -> None:
    citation = read(ROOT / "CITATION.cff")
    assert citation["version"] == tensor_bridge.__version__
    assert citation["license"] == "Apache-2.0"
    assert {"cff-version", "message", "title", "authors", "type"} <= set(citation)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_has_what_the_site_requires(path: Path) -> None:
    form = read(path)
    if path.name == "config.yml":
        assert form == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields) > 0
    assert all(field["attributes"]["label"] for field in fields)
    assert any("`tensor-bridge doctor --json`" in str(field) for field in fields)


def test_what_they_name_exists() -> None:
    assert len(FORMS) == 3
    texts = [path.read_text(encoding="utf-8") for path in (*FORMS, *WORKFLOWS)]
    for name in re.findall(r"\b[A-Z_]+\.md\b", "".join(texts)):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_what_everybody_runs(path: Path) -> None:
    (job,) = read(path)["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == [".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
