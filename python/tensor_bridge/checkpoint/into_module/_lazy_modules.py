"""torch's lazy modules, which get their sizes from the loaded weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from math import prod
from typing import TYPE_CHECKING, Any

from tensor_bridge.checkpoint.into_module._layouts import MisfitError

if TYPE_CHECKING:
    import torch
    from torch import nn


def is_lazy(module: nn.Module) -> bool:
    """Whether a module has parameters without sizes."""
    from torch.nn.modules.lazy import LazyModuleMixin

    return isinstance(module, LazyModuleMixin) and bool(module.has_uninitialized_params())


def sizes_from(module: Any, weights: Iterable[torch.Tensor]) -> tuple[int, ...]:
    """The sizes of a first input that would give the module the sizes of these weights.

    The weight with most axes is the kernel; its number of values tells the number of inputs in
    every layout.

    Raises:
      MisfitError: They are not weights of the module.
    """
    from torch import nn

    kernel = max(weights, key=lambda x: (x.ndim, x.numel()), default=None)
    if kernel is None:
        raise MisfitError("no weight says what the sizes of the lazy module are")
    if isinstance(module, nn.Linear):
        size, rest, spatial = kernel.numel(), module.out_features, 0
    elif isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) or hasattr(module, "output_padding"):
        size = kernel.numel() * module.groups
        rest = module.out_channels * prod(module.kernel_size)
        spatial = len(module.kernel_size)
    elif hasattr(module, "num_features"):
        size, rest, spatial = kernel.numel(), 1, 0
    else:
        raise MisfitError(
            f"{type(module).__name__} is lazy, and its sizes cannot be told from weights; call the "
            "module once before"
        )
    if size == 0 or size % rest:
        raise MisfitError(f"expected a kernel for {module}, got the shape {tuple(kernel.shape)}")
    return (1, size // rest, *(1,) * spatial)


def refuse_lazy_parts(module: nn.Module) -> None:
    """Refuses a module whose weights are spread over parts, if one of the parts is lazy.

    Raises:
      MisfitError: A part is lazy.
    """
    for name, part in module.named_modules():
        if name and is_lazy(part):
            raise MisfitError(f"its part {name!r} is lazy; call the module once before")


def copied(module: nn.Module) -> nn.Module:
    """A copy of a lazy module; torch's own copy fails for buffers without sizes."""
    from torch.nn import parameter

    buffer: Any = parameter.UninitializedBuffer
    known: dict[int, Any] = {
        id(x): buffer(device=x.data.device, dtype=x.data.dtype)
        for x in module.buffers()
        if isinstance(x, buffer)
    }
    return copy.deepcopy(module, known)


def materialized(module: nn.Module, sizes: tuple[int, ...]) -> nn.Module:
    """A copy of a lazy module, no longer lazy.

    Raises:
      MisfitError: The module takes no input of these sizes.
    """
    twin = copied(module)
    try:
        materialize(twin, sizes)
    except (RuntimeError, ValueError, NotImplementedError) as e:
        raise MisfitError(f"the lazy module takes no input of the sizes {sizes}: {e}") from None
    return twin


def materialize(module: Any, sizes: tuple[int, ...]) -> None:
    """Gives a lazy module the sizes that a first input of ``sizes`` would give it."""
    import torch

    # Its random initial values are overwritten; the caller's random state must not change.
    with torch.random.fork_rng(devices=[]):
        module._infer_parameters(module, (torch.empty(sizes, device="meta"),))
