"""What people are told to install is known here; a release asks the index for it."""

from __future__ import annotations

import advice
import pytest
from install_group import PYPROJECT, tomllib

OPTIONAL = {"array_record", "crc32c", "fsspec", "guesslang", "h5py", "pillow"}


def known() -> set[str]:
    """Packages that the project's own list names, and optional ones."""
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))
    lists = [project["build-system"]["requires"], *project["dependency-groups"].values()]
    lists += project["project"]["optional-dependencies"].values()
    listed = [advice.package(each) for group in lists for each in group if isinstance(each, str)]
    return {"", *listed, *OPTIONAL}


def test_every_package_is_known() -> None:
    assert {a: p for a, p in advice.advised().items() if advice.package(a) not in known()} == {}


def test_no_optional_package_is_listed_that_nobody_is_told_of() -> None:
    assert {advice.package(a) for a in advice.advised()} >= OPTIONAL


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Install it: pip install h5py", ["h5py"]),
        ("(`pip install --no-deps h5py`). TensorFlow", ["h5py"]),
        ("pip install 'torch>=2.13,<2.16'; or", ["torch>=2.13,<2.16"]),
        ("pip install .", ["."]),
        ("pip install h5py to read it", ["h5py", "to", "read", "it"]),
        ('pip install "a>=1" b==2.0\nthen', ["a>=1", "b==2.0"]),
        ("with uv: `uv pip install`):", []),
    ],
)
def test_arguments_are_those_of_the_command(text: str, found: list[str]) -> None:
    assert list(advice.arguments(text)) == found


def test_what_is_no_requirement_is_told() -> None:
    assert advice.package("h5py=3") is None
    assert advice.package("{}>={}") == ""
    assert advice.package("torch<{}") == "torch"
