"""Whether weights of given shapes fit a module, tried with the module's layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tensor_bridge.checkpoint.into_module._conversion import converted
from tensor_bridge.checkpoint.into_module._layouts import MisfitError, is_state
from tensor_bridge.checkpoint.into_module._lazy_modules import is_lazy, materialized, sizes_from
from tensor_bridge.checkpoint.into_module._stored_form import stored_form
from tensor_bridge.errors import TensorBridgeError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tensor_bridge.checkpoint.into_module._made_with import MadeWith

Shape = tuple[int, ...]
# A layout may index axes that other shapes lack.
_NO_FIT = (MisfitError, TensorBridgeError, RuntimeError, IndexError, ValueError, AttributeError)


def is_counter(name: str) -> bool:
    """Whether a tensor of the module counts batches, which Keras does not."""
    return name.endswith("num_batches_tracked")


def fits_module(
    module: nn.Module,
    shapes: Mapping[str, Shape],
    flattened: tuple[int, ...] | None,
    made_with: MadeWith,
) -> bool:
    """Whether weights of these roles and shapes give every tensor of the module its shape."""
    import torch

    # Not 0 and not 1, which stand for weights that a layer leaves out. Expanded: takes no memory.
    weights = {
        role: torch.full((), 2.0, device="cpu").expand(shape)
        for role, shape in shapes.items()
        if not is_state(role)
    }
    if not weights:
        return False
    try:
        if is_lazy(module):
            module = materialized(module, sizes_from(module, weights.values()))
        expected = _shapes(module)
        if not _may_fit(weights, expected):
            return False
        made, _ = converted(module, weights, flattened, made_with)
        parts: dict[str, torch.Tensor] = {}
        for name, x in made.items():
            own, _, last = name.rpartition(".")
            inner = module.get_submodule(own) if own else module
            parts.update(
                (f"{own}.{part}" if own else part, value)
                for part, value in stored_form(inner, last, x).items()
            )
    except _NO_FIT:
        return False
    made_shapes: dict[str, Shape] = {name: tuple(x.shape) for name, x in parts.items()}
    return made_shapes == expected


def kernel_becomes(module: nn.Module, shape: Shape) -> Shape | None:
    """The shape that the module's layout gives a kernel, if it takes one of this shape."""
    import torch

    try:
        made, _ = converted(module, {"kernel": torch.zeros((), device="cpu").expand(shape)}, None)
    except _NO_FIT:
        return None
    return tuple(made["weight"].shape) if "weight" in made else None


def _shapes(module: nn.Module) -> dict[str, Shape]:
    state = module.state_dict(keep_vars=True)
    return {name: tuple(x.shape) for name, x in state.items() if not is_counter(name)}


def _may_fit(weights: Mapping[str, torch.Tensor], expected: Mapping[str, Shape]) -> bool:
    """A quick test by sizes: layouts invent few values, such as the second bias of an RNN."""
    from math import prod

    there: int = sum(x.numel() for x in weights.values())
    wanted = sum(prod(shape) for shape in expected.values())
    return there <= wanted <= 4 * there
