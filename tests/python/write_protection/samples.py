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
    # Seeded here: the database would call torch.manual_seed() for each sample, 4 ms a time.
    torch.default_generator.manual_seed(11)
    samples = op.sample_inputs(
        "cpu",
        dtype,
        requires_grad=requires_grad,
        set_seed=False,
        include_conjugated_inputs=dtype.is_complex and op.test_conjugated_samples,
    )
    if not only_one:
        yield from samples
        return
    first = None
    for sample in islice(samples, 8):
        first = first or sample
        if _elements(sample) > 1:
            first = sample
            break
    if first is not None:
        yield first


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
