"""Every operator of torch's own database, run on tensors that share TensorFlow's memory.

For each operator: forward, backward, in place, in place with the tensor itself as the other
arguments, and `out=`. The results must equal those on plain tensors, TensorFlow's bytes must never
be written, not even with equal values, reads must stay shared, and everything must be released.

`make test` runs one sample per operator; `make test-exhaustive` all samples in all of `DTYPES`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import needs
import pytest
import torch
from guard import Guard
from samples import DTYPES, check, copies_what_it_reads, samples_of
from torch.utils import _pytree as pytree
from twins import Comparison, Raised, outcome

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db

pytestmark = pytest.mark.filterwarnings("ignore")

# Operators that cannot run on the CPU. test_table_of_operators_without_cpu_is_current checks that.
NO_CPU = {
    "jiterator_2inputs_2outputs": "jiterator compiles CUDA kernels",
    "jiterator_4inputs_with_extra_args": "jiterator compiles CUDA kernels",
    "jiterator_binary": "jiterator compiles CUDA kernels",
    "jiterator_binary_return_by_ref": "jiterator compiles CUDA kernels",
    "jiterator_unary": "jiterator compiles CUDA kernels",
    "nn_functional_batch_norm_without_cudnn": "the database gives it no CPU dtype",
    "torch_ops_aten__efficient_attention_forward": "a CUDA kernel",
    "torch_ops_aten__flash_attention_forward": "a CUDA kernel",
}

# The result is uninitialised memory, so there is nothing to compare.
UNINITIALISED = {
    "empty",
    "empty_like",
    "empty_permuted",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
}

# LAPACK rounds differently in each call here; two runs on plain tensors differ as well.
ROUNDS_AS_IT_LIKES = {"linalg_lstsq", "linalg_lstsq_grad_oriented"}


def name_of(op: Any) -> str:
    return str(op.formatted_name)


def default_dtype(op: Any) -> torch.dtype:
    """float32, or else the operator's first dtype on the CPU by name."""
    supported = op.supported_dtypes("cpu")
    return torch.float32 if torch.float32 in supported else min(supported, key=str)


def _invoke(function: Callable[..., Any], **more: Any) -> Callable[[Any], Any]:
    return lambda tree: function(tree[0], *tree[1], **tree[2], **more)


def _forward(comparison: Comparison, op: Any, sample: Any, label: str, **how: bool) -> Any:
    tree = (sample.input, sample.args, sample.kwargs)
    call = _invoke(op.op)
    comparison.run(f"{label} forward", call, tree, **how)
    return call


def _in_place(comparison: Comparison, op: Any, sample: Any, label: str, **how: bool) -> None:
    function = op.get_inplace()
    if function is None or sample.broadcasts_input or not isinstance(sample.input, torch.Tensor):
        return
    tree = (sample.input, sample.args, sample.kwargs)
    comparison.run(f"{label} in place", _invoke(function), tree, **how)

    def self_instead(x: torch.Tensor) -> torch.Tensor:
        same = x.shape == sample.input.shape and x.dtype == sample.input.dtype
        return sample.input if same and x.layout is sample.input.layout else x

    args, kwargs = pytree.tree_map_only(torch.Tensor, self_instead, (sample.args, sample.kwargs))
    leaves = pytree.tree_leaves((args, kwargs))
    if any(x is sample.input for x in leaves):
        tree = (sample.input, args, kwargs)
        comparison.run(f"{label} in place on itself", _invoke(function), tree, **how)


def _out(comparison: Comparison, op: Any, sample: Any, label: str, **how: bool) -> None:
    if not op.supports_out:
        return
    # On clones, because some operators mutate an argument, and the sample must not change.
    tree = pytree.tree_map_only(
        torch.Tensor, torch.clone, (sample.input, sample.args, sample.kwargs)
    )
    expected = outcome(_invoke(op.op), tree)
    leaves = pytree.tree_leaves(expected)
    if isinstance(expected, Raised) or not all(isinstance(x, torch.Tensor) for x in leaves):
        return
    if any(x.layout is not torch.strided for x in leaves):
        return
    out = pytree.tree_map_only(torch.Tensor, torch.ones_like, expected)
    if isinstance(out, tuple):
        out = tuple(out)  # not torch.return_types.*

    def call(tree: Any) -> Any:
        return _invoke(op.op, out=tree[3])(tree)

    comparison.run(f"{label} out=", call, (sample.input, sample.args, sample.kwargs, out), **how)


def _backward(comparison: Comparison, op: Any, sample: Any, label: str, **how: bool) -> None:
    def outputs(tree: Any) -> list[torch.Tensor]:
        result = sample.output_process_fn_grad(_invoke(op.op)(tree))
        leaves = pytree.tree_leaves(result)
        return [x for x in leaves if isinstance(x, torch.Tensor) and x.requires_grad]

    def call(tree: Any) -> Any:
        inputs = [
            x for x in pytree.tree_leaves(tree) if isinstance(x, torch.Tensor) and x.requires_grad
        ]
        outs = outputs(tree)
        grads = torch.autograd.grad(outs, inputs, tree[3], allow_unused=True)
        return [x.detach() for x in outs], grads

    tree = (sample.input, sample.args, sample.kwargs)
    trial = outcome(outputs, tree)
    if isinstance(trial, Raised) or not trial:
        return
    torch.default_generator.manual_seed(13)
    seeds = [
        torch.ones_like(x) if x.layout is not torch.strided else torch.randn_like(x) for x in trial
    ]
    comparison.run(f"{label} backward", call, (*tree, seeds), **how)


def run_operator(guard: Guard, op: Any, dtype: torch.dtype, *, only_one: bool) -> Comparison:
    """Runs an operator's samples in every way it supports."""
    comparison = Comparison(guard)
    how = {
        "same_results": op.name not in UNINITIALISED,
        "exact": name_of(op) not in ROUNDS_AS_IT_LIKES,
        "may_copy": copies_what_it_reads(name_of(op), dtype),
    }
    for i, sample in enumerate(samples_of(op, dtype, requires_grad=False, only_one=only_one)):
        label = f"{name_of(op)} {dtype} sample {i}"
        _forward(comparison, op, sample, label, **how)
        _in_place(comparison, op, sample, label, **how)
        _out(comparison, op, sample, label, **how)
    if op.supports_autograd and dtype in op.supported_backward_dtypes("cpu"):
        for i, sample in enumerate(samples_of(op, dtype, requires_grad=True, only_one=only_one)):
            _backward(comparison, op, sample, f"{name_of(op)} {dtype} sample {i}", **how)
    return comparison


RUNNABLE = [op for op in op_db if name_of(op) not in NO_CPU and op.supported_dtypes("cpu")]
EVERY_DTYPE = [
    pytest.param(op, dtype, id=f"{name_of(op)}-{str(dtype).removeprefix('torch.')}")
    for op in RUNNABLE
    for dtype in dict.fromkeys((default_dtype(op), *DTYPES))
    if op.supports_dtype(dtype, "cpu")
]


@pytest.mark.parametrize("op", RUNNABLE, ids=name_of)
def test_operator_leaves_tensorflow_alone(
    op: Any, armed_guard: Guard, record_property: Callable[[str, object], None]
) -> None:
    comparison = run_operator(armed_guard, op, default_dtype(op), only_one=True)
    check(comparison, record_property)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("op", "dtype"), EVERY_DTYPE)
def test_every_sample_leaves_tensorflow_alone(
    op: Any,
    dtype: torch.dtype,
    armed_guard: Guard,
    record_property: Callable[[str, object], None],
) -> None:
    comparison = run_operator(armed_guard, op, dtype, only_one=False)
    check(comparison, record_property)


@needs.torch_since(13, "the table is that of the newest release")
def test_table_of_operators_without_cpu_is_current() -> None:
    by_name = {name_of(op): op for op in op_db}
    no_cpu = {name for name, op in by_name.items() if not op.supported_dtypes("cpu")}
    assert no_cpu <= NO_CPU.keys()
    assert sorted(NO_CPU) == sorted(name for name in NO_CPU if name in by_name)
    for name in NO_CPU:
        op = by_name[name]
        if not op.supported_dtypes("cpu"):
            continue
        for sample in samples_of(op, default_dtype(op), requires_grad=False, only_one=True):
            result = outcome(_invoke(op.op), (sample.input, sample.args, sample.kwargs))
            assert isinstance(result, Raised), f"{name} runs on the CPU: remove it from the list"
