"""A triton kernel, whose source triton reads from this file, compiled without a GPU."""

from __future__ import annotations

import tempfile

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def add_one(x: tl.tensor, n: tl.tensor, size: tl.constexpr) -> None:
    i = tl.program_id(0) * size + tl.arange(0, size)
    tl.store(x + i, tl.exp(tl.load(x + i, mask=i < n)) + 1, mask=i < n)


def compiled() -> str:
    """The kernel's PTX, made by triton's LLVM and not read from a cache."""
    source = ASTSource(add_one, {"x": "*fp32", "n": "i32", "size": "constexpr"}, {"size": 128})
    with tempfile.TemporaryDirectory() as folder, triton.knobs.cache.scope():
        triton.knobs.cache.dir = folder
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    return str(made.asm["ptx"])
