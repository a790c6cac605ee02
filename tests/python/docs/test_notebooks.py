"""The notebooks are the pages that they are made from, and run in Jupyter."""

from __future__ import annotations

import json
import re
from typing import Any

import notebooks
import pytest
from pages import Block

NAMES = sorted(notebooks.PAGES)


def committed(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(notebooks.path(name).read_text(encoding="utf-8"))
    return found


def wrong(name: str, notebook: dict[str, Any]) -> list[str]:
    """The outputs of a notebook that are not what its page says."""
    found = []
    for cell, says in zip(notebook["cells"], notebooks.cells(notebooks.PAGES[name]), strict=True):
        if cell["cell_type"] == "code":
            # Jupyter names an exception without its module.
            expected = re.sub(r"^[\w.]+\.(?=\w+Error: )", "", says[1], flags=re.MULTILINE)
            got = notebooks.printed(cell)
            if not Block("python", (), "", 0, expected).prints(got):
                found.append(f"expected\n{expected}\ngot\n{got}")
    return found


def test_every_notebook_is_made_from_a_page() -> None:
    assert sorted(path.stem for path in notebooks.FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_text_and_code_are_those_of_the_page(name: str) -> None:
    found = committed(name)
    for cell in found["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    made = notebooks.notebook(notebooks.PAGES[name])
    assert found == made, f"{name}.ipynb is out of date; run python tools/notebooks.py"


@pytest.mark.parametrize("name", NAMES)
def test_the_outputs_are_those_of_the_page(name: str) -> None:
    found = committed(name)
    assert not wrong(name, found)
    assert sum(bool(notebooks.printed(c)) for c in found["cells"] if "outputs" in c) > 1


def test_another_output_is_found() -> None:
    found = committed("get_started")
    for cell in found["cells"]:
        for output in cell.get("outputs", ()):
            if output["output_type"] == "stream":
                output["text"] += "x"
    assert len(wrong("get_started", found)) > 2


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_in_jupyter(name: str) -> None:
    for module in ("nbclient", "ipykernel"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    assert not wrong(name, notebooks.executed(notebooks.PAGES[name]))
