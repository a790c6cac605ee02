"""The table of docs/versions.md matches the results, and the results cover every release."""

from __future__ import annotations

import json

import matrix
import torch_wheels

from tensor_bridge._frameworks import TENSORFLOW_RANGE
from tensor_bridge._loaded import version_pair


def test_the_table_is_that_of_the_results() -> None:
    text = matrix.PAGE.read_text(encoding="utf-8")
    assert matrix.BEGIN in text
    assert text == matrix.updated_page(), "run python tools/matrix.py --table"


def test_results_are_of_environments_that_there_are() -> None:
    names = {environment.name for environment in matrix.ENVIRONMENTS}
    for path in matrix.RESULTS.glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        assert path.stem in names
        environment = matrix.Environment(**result["environment"])
        assert environment.name == path.stem
        assert result["passed"] > 0
        assert result["tests"] == [str(environment.tests.relative_to(matrix.ROOT))]


def test_what_is_named_runs_whatever_is_left_out() -> None:
    everything = matrix.selection([])
    assert str(matrix.TESTS) in everything
    assert matrix.MARKS in everything
    measured = "tests/python/both/lifetime"  # marked alone in part
    left_out = f"tests/python/{min(matrix.LEFT_OUT)}"
    named = matrix.selection([measured, f"{left_out}::test", "-k", "release"])
    paths = [str(matrix.ROOT / measured), str(matrix.ROOT / left_out) + "::test"]
    assert named == [*paths, "-k", "release"]


def test_every_supported_torch_is_in_an_environment() -> None:
    minors = {".".join(e.torch.split(".")[:2]) for e in matrix.ENVIRONMENTS}
    assert minors == set(torch_wheels.RELEASES)


def test_every_supported_tensorflow_and_python_is_in_an_environment() -> None:
    pairs = {version_pair(e.tensorflow) for e in matrix.ENVIRONMENTS if e.tensorflow}
    (_, first), (_, last) = TENSORFLOW_RANGE
    # 2.13 cannot be installed beside any of the releases of torch.
    assert pairs == {(2, minor) for minor in range(first, last + 1)} - {(2, 13)}
    pythons = {e.python for e in matrix.ENVIRONMENTS if e.tensorflow}
    assert pythons == {"3.10", "3.11", "3.12", "3.13"}


def test_what_needs_no_tensorflow_is_tested_with_a_newer_python() -> None:
    assert {e.python for e in matrix.ENVIRONMENTS if not e.tensorflow} == {"3.14"}
