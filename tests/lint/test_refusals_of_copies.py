"""A refusal of a copy has one text in Python, that of `require_copy_allowed`.

C++ has the same text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tree import files

HOME = "python/tensor_bridge/_refusals.py"
IN_CPP = "src/bridge/copy_policy.h"


def violations(name: str, text: str) -> Iterator[str]:
    if name == HOME:
        return
    for number, line in enumerate(text.splitlines(), 1):
        if "copy=False, but" in line:
            yield f"{name}:{number}: call _refusals.require_copy_allowed"


def test_a_refusal_of_a_copy_has_one_text() -> None:
    texts = dict(files("python/tensor_bridge/**.py"))
    assert "copy=False, but" in texts[HOME]
    assert not [found for name, text in texts.items() for found in violations(name, text)]


def test_cpp_says_the_same() -> None:
    texts = dict(files(HOME, IN_CPP))
    (ours,) = re.findall(r'f"(copy=False, but[^"]*)"', texts[HOME])
    assert f'"{re.sub("{[a-z]+}", "%s", ours)}"' in texts[IN_CPP]


@pytest.mark.parametrize("start", ['raise CopyRequiredError("', 'reason = f"'])
def test_another_text_is_found(start: str) -> None:
    assert list(violations("python/tensor_bridge/dlpack.py", f'{start}copy=False, but no"'))
