"""Writes docs/notebooks from pages of the docs, which stay the one home of their text and code.

    python tools/notebooks.py     runs each in Jupyter and an empty folder; writes it with outputs

Outputs are kept, because hosts of repositories show them without running anything. The tests
compare text and code with the page on every run, and outputs with what the page says.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "notebooks"
PAGES = {
    "get_started": ROOT / "docs/get_started.md",
    "keras_backbone": ROOT / "docs/recipes/keras_backbone.md",
}
# A block of Python that the tests run, and what the page says that it prints.
CODE = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:```text\n(?P<printed>.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)[^)\s]+|(?<=src=\")[^\"]+|(?<=srcset=\")[^\"]+")
Cell = dict[str, Any]


def cells(page: Path) -> Iterator[tuple[Cell, str]]:
    """The cells of a page, without outputs, and what the page says that each prints."""
    text = page.read_text(encoding="utf-8")
    end = 0
    for found in CODE.finditer(text):
        yield from _prose(page, text[end : found.start()])
        cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
        printed = found["printed"] or ""
        if re.match(r"[\w.]*Error: ", printed.splitlines()[-1] if printed else ""):
            cell["metadata"] = {"tags": ["raises-exception"]}
        yield cell | {"source": found["code"].rstrip("\n")}, printed
        end = found.end()
    yield from _prose(page, text[end:])


def _prose(page: Path, text: str) -> Iterator[tuple[Cell, str]]:
    """Markdown between two blocks, with the links of the page as links of the notebook."""

    def moved(target: re.Match[str]) -> str:
        return os.path.relpath(page.parent / target[0], FOLDER)

    if text.strip():
        source = LINK.sub(moved, text.strip("\n"))
        yield {"cell_type": "markdown", "metadata": {}, "source": source}, ""


def notebook(page: Path) -> dict[str, Any]:
    """A page as a notebook, without outputs."""
    made = [cell for cell, _ in cells(page)]
    return {
        "cells": [{"id": f"cell-{number}", **cell} for number, cell in enumerate(made)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def executed(page: Path) -> dict[str, Any]:
    """A page as a notebook that a kernel of Jupyter has run from top to bottom."""
    import nbformat
    from nbclient import NotebookClient

    with tempfile.TemporaryDirectory() as folder:
        node = nbformat.from_dict(notebook(page))
        nbformat.validate(node)
        client = NotebookClient(
            node, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.execute()
    found: dict[str, Any] = json.loads(nbformat.writes(node))
    found["metadata"] = notebook(page)["metadata"]  # the kernel's has the version of Python
    for cell in found["cells"]:
        cell["source"] = "".join(cell["source"])
        if cell["cell_type"] == "code":
            cell["metadata"].pop("execution", None)  # times
            cell["outputs"] = [_kept(each) for each in cell["outputs"] if not _is_log(each)]
    return found


def _is_log(output: dict[str, Any]) -> bool:
    return output["output_type"] == "stream" and output["name"] == "stderr"


def _kept(output: dict[str, Any]) -> dict[str, Any]:
    """An output without what is of one machine: the paths in tracebacks."""
    if output["output_type"] == "error":
        return output | {"traceback": [f"{output['ename']}: {output['evalue']}"]}
    return output | {"text": "".join(output["text"])}


def printed(cell: Cell) -> str:
    """What a cell printed, and the error that it ended with, as pages have it."""
    return "".join(
        each["text"] if each["output_type"] == "stream" else f"{each['traceback'][0]}\n"
        for each in cell["outputs"]
    )


def path(name: str) -> Path:
    return FOLDER / f"{name}.ipynb"


def main() -> int:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    for name, page in PAGES.items():
        text = json.dumps(executed(page), indent=1, ensure_ascii=False) + "\n"
        path(name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
