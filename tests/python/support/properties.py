"""Properties of drawn values: how many draws a test takes, and tensors of any dtype and shape."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tf_bytes import as_stored

from tensor_bridge import DtypeRow

# The same examples each time; the exhaustive runs look for new ones.
QUICK = settings(max_examples=150, deadline=None, derandomize=True, database=None)
THOROUGH = settings(max_examples=10_000, deadline=None)


def quick_and_thorough(
    check: Callable[..., None], *strategies: Any, quick: settings = QUICK
) -> tuple[Any, Any]:
    """Two tests of a property: one of `make test`, one of `make test-exhaustive`."""
    thorough = pytest.mark.exhaustive(THOROUGH(given(*strategies)(check)))
    return quick(given(*strategies)(check)), thorough


Case = tuple[DtypeRow, tuple[int, ...], bytes]
shapes = st.lists(
    st.one_of(st.integers(0, 5), st.just(1), st.sampled_from([16, 17, 64])), max_size=7
).filter(lambda shape: prod(shape) <= 3000)
# Patterns that a conversion by value would lose: NaNs with payloads, -0.0, subnormals, infinities.
special_bytes = st.sampled_from([0x00, 0x01, 0x7F, 0x80, 0xFF, 0xF0, 0x7C, 0xFE])


@st.composite
def stored(draw: Any, row: DtypeRow, count: int) -> bytes:
    size = count * row.itemsize
    if size <= 64:
        byte = special_bytes | st.integers(0, 255)
        data = bytes(draw(st.lists(byte, min_size=size, max_size=size)))
    else:
        data = draw(st.randoms(use_true_random=False)).randbytes(size)
    return as_stored(row, data)


@st.composite
def cases(draw: Any, rows: list[DtypeRow]) -> Case:
    """A row, a shape and the bytes of a tensor."""
    row = draw(st.sampled_from(rows))
    shape = tuple(draw(shapes))
    return row, shape, draw(stored(row, prod(shape)))
