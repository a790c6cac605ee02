"""The model of the first write matches the installed torch and solves the classic examples.

`make memory-order` runs it on the protocol.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import first_write
import pytest
from orders import MODELS, find
from tree import ROOT

HEADER = "include/c10/core/StorageImpl.h"


def headers() -> list[Path]:
    """The header of the installed torch, and of releases whose headers `make wheel` has kept."""
    installed = importlib.util.find_spec("torch")
    assert installed is not None
    folders = [Path(place) for place in installed.submodule_search_locations or []]
    folders += (ROOT / "build" / "torch").glob("*/torch")
    return [folder / HEADER for folder in folders if (folder / HEADER).exists()]


def test_torch_does_what_the_model_says() -> None:
    seen = 0
    for header in headers():
        text = re.sub(r"\s+", " ", re.sub(r"//.*", "", header.read_text("utf-8")))
        if "set_materializer" in text:
            seen += 1
            assert not [part for part in first_write.TORCH if part not in text], header
    assert seen


@pytest.mark.parametrize(
    ("case", "expected"),
    [pytest.param(case, expected, id=name.strip()) for name, case, expected in first_write.CLASSIC],
)
def test_a_classic_example(case: first_write.Case, expected: set[str]) -> None:
    assert {model for model in MODELS if find(model, *case)} == expected
