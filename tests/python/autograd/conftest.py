"""A test leaves no torch state to which a graph of TensorFlow refers."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tensor_bridge.autograd import _tokens


@pytest.fixture(autouse=True)
def no_state_leaks() -> Iterator[None]:
    before = _tokens.living()
    yield
    if _tokens.living() > before:
        gc.collect()
    assert _tokens.living() <= before
