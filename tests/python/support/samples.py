"""Shared by the tests over torch's databases: the dtypes, the choice of samples, the verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from torch.testing._internal import common_utils
from torch.testing._internal.opinfo import core
from torch.utils import _pytree as pytree
from twins import Comparison

# For each sample the database searches the stack for a TestCase of torch's. There is none here, and
# the search takes a quarter of a second in a worker of xdist, some of whose frames have no file.
for module in (common_utils, core):
    if hasattr(module, "extract_test_fn"):
        module.extract_test_fn = lambda: None

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


# Operators for which torch asks for a mutable pointer to a tensor that it only reads, so that the
# tensor is copied: safe, not free. Investigate before adding an operator; removing one that torch
# fixed is harmless.
COPIES_WHAT_IT_READS = {
    "_batch_norm_with_update": "running statistics, which momentum 0 writes back as they are",
    "_native_batch_norm_legit": "running statistics, which momentum 0 writes back as they are",
    "native_batch_norm": "running statistics, which momentum 0 writes back as they are",
    "nn_functional_batch_norm": "running statistics, which momentum 0 writes back as they are",
    "nn_functional_channel_shuffle": "its input",
    "nn_functional_scaled_dot_product_attention": "a float attention mask",
    "sparse_mm_reduce": "the sparse matrix, in backward",
    "sparse_sampled_addmm": "a sparse matrix, in backward",
}
COPIES_IN = {
    torch.float8_e4m3fn: {"torch__scaled_mm": "oneDNN, on CPUs with AMX instructions"},
    torch.bfloat16: {
        "__rmatmul__": "oneDNN, on CPUs with bfloat16 instructions",
        "bmm": "oneDNN, on CPUs with bfloat16 instructions",
        "bmm_triton_optimized": "oneDNN, on CPUs with bfloat16 instructions",
        "matmul": "oneDNN, on CPUs with bfloat16 instructions",
        "mv": "oneDNN, on CPUs with bfloat16 instructions",
    },
    torch.bool: {
        "_foreach_max": "its inputs",
        "aminmax": "its input, without dim",
        "max_reduction_no_dim": "its input",
        "min_reduction_no_dim": "its input",
    },
}


def copies_what_it_reads(name: str, dtype: torch.dtype) -> bool:
    """Whether an operator of the database is known to copy an argument that it only reads."""
    return name in COPIES_WHAT_IT_READS or name in COPIES_IN.get(dtype, {})


def samples_of(
    op: Any, dtype: torch.dtype, *, requires_grad: bool, only_one: bool
) -> Iterator[Any]:
    """All samples, or the first one with elements."""
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
