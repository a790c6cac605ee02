"""Compiled and transformed functions that write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sharing import plain, values
from ways import Way
from writes import in_place_then_read, value


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_compiled_in_place_function(backend: str, sharing_way: Way) -> None:
    torch.compiler.reset()
    compiled = torch.compile(in_place_then_read, backend=backend, fullgraph=True)
    for _ in range(2):
        shared = sharing_way.share()
        expected = plain(shared.torch)
        result = compiled(shared.torch)
        assert torch.equal(result, in_place_then_read(expected))
        assert torch.equal(shared.torch, expected)
        shared.assert_moved()
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore")
def test_compiled_pure_function_never_writes(sharing_way: Way) -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda x: (x * 2).sum(0), fullgraph=True)
    shared = sharing_way.share()
    assert torch.equal(compiled(shared.torch), (values() * 2).sum(0))
    # Inductor's kernels request mutable pointers even for reads.
    shared.assert_untouched()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compile_", [torch.jit.script, lambda f: torch.jit.trace(f, value())])
def test_jit_in_place_function(compile_: Callable[[Any], Any], sharing_way: Way) -> None:
    compiled = compile_(in_place_then_read)
    for _ in range(3):
        shared = sharing_way.share()
        expected = plain(shared.torch)
        assert torch.equal(compiled(shared.torch), in_place_then_read(expected))
        assert torch.equal(shared.torch, expected)
        shared.assert_moved()


def test_functional_transforms_write_to_copies(sharing_way: Way) -> None:
    shared = sharing_way.share()
    rows = torch.func.vmap(lambda row: row.add_(1))(shared.torch)
    assert torch.equal(rows, values() + 1)
    shared.assert_moved()
    shared = sharing_way.share()
    gradient = torch.func.grad(lambda x: (x.clone().mul_(x)).sum())(shared.torch)
    assert torch.equal(gradient, 2 * values())
    shared.assert_shared()


def test_custom_operator_that_declares_its_mutation(sharing_way: Way) -> None:
    @torch.library.custom_op("tensor_bridge_tests::increment", mutates_args={"x"})
    def increment(x: torch.Tensor) -> None:
        x.numpy()[...] += 1

    shared = sharing_way.share()
    increment(shared.torch)
    assert torch.equal(shared.torch, values() + 1)
    shared.assert_moved()
