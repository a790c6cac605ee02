"""Compiled and transformed functions that write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sharing import SHAPE, Shared, plain
from writes import in_place_then_read, value


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_compiled_in_place_function(backend: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(in_place_then_read, backend=backend, fullgraph=True)
    for _ in range(2):
        shared = Shared()
        expected = plain(shared.torch)
        result = compiled(shared.torch)
        assert torch.equal(result, in_place_then_read(expected))
        assert torch.equal(shared.torch, expected)
        shared.assert_moved()


@pytest.mark.filterwarnings("ignore")
def test_compiled_pure_function_never_writes() -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda x: (x * 2).sum(0), fullgraph=True)
    shared = Shared()
    assert torch.equal(compiled(shared.torch), (torch.arange(24.0).reshape(SHAPE) * 2).sum(0))
    # Inductor's kernels ask for mutable pointers even to read.
    shared.assert_untouched()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compile_", [torch.jit.script, lambda f: torch.jit.trace(f, value())])
def test_jit_in_place_function(compile_: Callable[[Any], Any]) -> None:
    compiled = compile_(in_place_then_read)
    for _ in range(3):
        shared = Shared()
        expected = plain(shared.torch)
        assert torch.equal(compiled(shared.torch), in_place_then_read(expected))
        assert torch.equal(shared.torch, expected)
        shared.assert_moved()


def test_functional_transforms_write_to_copies() -> None:
    shared = Shared()
    rows = torch.func.vmap(lambda row: row.add_(1))(shared.torch)
    assert torch.equal(rows, torch.arange(24.0).reshape(SHAPE) + 1)
    shared.assert_moved()
    shared = Shared()
    gradient = torch.func.grad(lambda x: (x.clone().mul_(x)).sum())(shared.torch)
    assert torch.equal(gradient, 2 * torch.arange(24.0).reshape(SHAPE))
    shared.assert_shared()


def test_custom_operator_that_declares_its_mutation() -> None:
    @torch.library.custom_op("tensor_bridge_tests::increment", mutates_args={"x"})
    def increment(x: torch.Tensor) -> None:
        x.numpy()[...] += 1

    shared = Shared()
    increment(shared.torch)
    assert torch.equal(shared.torch, torch.arange(24.0).reshape(SHAPE) + 1)
    shared.assert_moved()
