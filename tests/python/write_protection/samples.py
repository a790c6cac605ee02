"""What the tests over torch's databases share: the dtypes, the choice of samples, the verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree
from twins import Comparison

DTYPES = (
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.float64,
    torch.complex64,
    torch.int64,
    torch.uint8,
    torch.bool,
)


def samples_of(
    op: Any, dtype: torch.dtype, *, requires_grad: bool, only_one: bool
) -> Iterator[Any]:
    """All samples, or the first one with something in it."""
    torch.default_generator.manual_seed(11)
    samples = op.sample_inputs("cpu", dtype, requires_grad=requires_grad)
    if not only_one:
        yield from samples
        return
    first = list(islice(samples, 8))
    if first:
        yield next((sample for sample in first if _elements(sample) > 1), first[0])


def _elements(sample: Any) -> int:
    leaves = pytree.tree_leaves((sample.input, sample.args, sample.kwargs))
    return max((x.numel() for x in leaves if isinstance(x, torch.Tensor)), default=0)


def check(comparison: Comparison, record_property: Callable[[str, object], None]) -> None:
    """Fails with all that went wrong, and when nothing was tested."""
    record_property("calls", comparison.calls)
    if comparison.problems:
        pytest.fail("\n".join(comparison.problems[:50]), pytrace=False)
    if not comparison.values:
        pytest.fail(f"no call gave a value: {comparison.last_error}", pytrace=False)
