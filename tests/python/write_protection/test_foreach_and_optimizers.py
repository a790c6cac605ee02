"""torch's foreach functions and optimizers on tensors that share TensorFlow's memory.

They write to whole lists of tensors at once, with special kernels. All samples and configurations
of torch's databases run in `make test-exhaustive`, some of them in `make test`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from guard import Guard
from samples import DTYPES, check, copies_what_it_reads, samples_of
from torch.utils import _pytree as pytree
from twins import Comparison, Raised, outcome

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import (
        foreach_binary_op_db,
        foreach_other_op_db,
        foreach_pointwise_op_db,
        foreach_reduce_op_db,
        foreach_unary_op_db,
    )
    from torch.testing._internal.common_optimizers import optim_db

pytestmark = pytest.mark.filterwarnings("ignore")

FOREACH = [
    *foreach_unary_op_db,
    *foreach_binary_op_db,
    *foreach_pointwise_op_db,
    *foreach_reduce_op_db,
    *foreach_other_op_db,
]
STEPS = 3


def foreach_name(op: Any) -> str:
    return str(op.name)


def run_foreach(guard: Guard, op: Any, dtype: torch.dtype, *, only_one: bool) -> Comparison:
    """Runs the samples of a foreach function and of its in-place variant."""
    comparison = Comparison(guard)
    functions = {"forward": op.method_variant, "in place": op.inplace_variant}
    for i, sample in enumerate(samples_of(op, dtype, requires_grad=False, only_one=only_one)):
        tree = (sample.input, sample.args, sample.kwargs)
        for way, function in functions.items():
            if function is None:
                continue

            def call(tree: Any, function: Callable[..., Any] = function) -> Any:
                return function(tree[0], *tree[1], **tree[2])

            comparison.run(
                f"{op.name} {dtype} sample {i} {way}",
                call,
                tree,
                may_copy=copies_what_it_reads(op.name, dtype),
            )
    if not op.supports_autograd or not (dtype.is_floating_point or dtype.is_complex):
        return comparison
    for i, sample in enumerate(samples_of(op, dtype, requires_grad=True, only_one=only_one)):
        _foreach_backward(comparison, op, sample, f"{op.name} {dtype} sample {i} backward")
    return comparison


def _foreach_backward(comparison: Comparison, op: Any, sample: Any, label: str) -> None:
    def outputs(tree: Any) -> list[torch.Tensor]:
        result = op.method_variant(tree[0], *tree[1], **tree[2])
        return [x for x in pytree.tree_leaves(result) if x.requires_grad]

    def call(tree: Any) -> Any:
        leaves = pytree.tree_leaves(tree[:3])
        inputs = [x for x in leaves if isinstance(x, torch.Tensor) and x.requires_grad]
        return torch.autograd.grad(outputs(tree), inputs, tree[3], allow_unused=True)

    if op.method_variant is None:
        return
    tree = (sample.input, sample.args, sample.kwargs)
    trial = outcome(outputs, tree)
    if isinstance(trial, Raised) or not trial:
        return
    torch.default_generator.manual_seed(13)
    comparison.run(label, call, (*tree, [torch.randn_like(x) for x in trial]))


def optimizer_configurations() -> list[Any]:
    """The optimizers of torch's database; with all configurations in exhaustive runs."""
    configurations = [pytest.param(i, {}, id=i.optim_cls.__name__) for i in optim_db]
    for info in optim_db:
        for config in info.optim_inputs_func(device="cpu"):
            ways: list[dict[str, bool]] = [{}]
            if "foreach" in info.supported_impls:
                ways = [{"foreach": False}, {"foreach": True}]
            if "fused" in info.supported_impls and "cpu" in info.supports_fused_on:
                ways.append({"fused": True})
            for way in ways:
                kind = next((name if on else "for-loop" for name, on in way.items()), "plain")
                name = f"{info.optim_cls.__name__}-{kind}-{config.desc or 'default'}"
                configurations.append(
                    pytest.param(info, config.kwargs | way, id=name, marks=pytest.mark.exhaustive)
                )
    return configurations


def run_optimizer(guard: Guard, info: Any, options: dict[str, Any]) -> Comparison:
    """Runs a few steps with converted tensors as parameters and gradients."""
    torch.default_generator.manual_seed(17)
    shapes = [(5, 3), (7,), ()]
    parameters = [torch.randn(shape) for shape in shapes]
    gradients = [[torch.randn(shape) for shape in shapes] for _ in range(STEPS)]
    if info.only_supports_sparse_grads:
        parameters, gradients = parameters[:1], [[g[0].to_sparse()] for g in gradients]
    if info.optim_cls.__name__ == "Muon":
        parameters, gradients = parameters[:1], [g[:1] for g in gradients]

    def call(tree: Any) -> Any:
        parameters = [torch.nn.Parameter(x) for x in tree[0]]
        optimizer = info.optim_cls(parameters, **options)
        for grads in tree[1]:
            for parameter, gradient in zip(parameters, grads, strict=True):
                parameter.grad = gradient
            optimizer.step(_closure if info.step_requires_closure else None)
        return [x.detach() for x in parameters], optimizer.state_dict()["state"]

    def _closure() -> torch.Tensor:
        return torch.ones(())

    comparison = Comparison(guard)
    # Fused kernels and sparse arithmetic take mutable pointers to the gradients.
    may_copy = options.get("fused", False) or info.only_supports_sparse_grads
    comparison.run(info.optim_cls.__name__, call, (parameters, gradients), may_copy=may_copy)
    return comparison


@pytest.mark.parametrize("op", FOREACH, ids=foreach_name)
def test_foreach_function_leaves_tensorflow_alone(
    op: Any, armed_guard: Guard, record_property: Callable[[str, object], None]
) -> None:
    check(run_foreach(armed_guard, op, torch.float32, only_one=True), record_property)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", FOREACH, ids=foreach_name)
def test_every_foreach_sample_leaves_tensorflow_alone(
    op: Any,
    dtype: torch.dtype,
    armed_guard: Guard,
    record_property: Callable[[str, object], None],
) -> None:
    comparison = run_foreach(armed_guard, op, dtype, only_one=False)
    record_property("calls", comparison.calls)
    if comparison.values:
        check(comparison, record_property)


@pytest.mark.parametrize(("info", "options"), optimizer_configurations())
def test_optimizer_leaves_tensorflow_alone(
    info: Any,
    options: dict[str, Any],
    armed_guard: Guard,
    record_property: Callable[[str, object], None],
) -> None:
    check(run_optimizer(armed_guard, info, options), record_property)
