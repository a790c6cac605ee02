"""For each tensor that a layout makes, the weights that it comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    Weights = dict[str, torch.Tensor]


def with_origins(
    layout: Callable[[Any, Weights], Weights], module: Any, weights: Weights
) -> tuple[Weights, dict[str, tuple[str, ...]]]:
    """Calls a layout, and finds out which weights it makes each tensor from.

    Returns:
      The layout's tensors; and for each tensor the roles of its weights in order, none for a tensor
      that the layout fills in itself.
    """
    import torch

    traced = _traced_class()
    watched = {}
    for role, x in weights.items():
        watched[role] = x.as_subclass(traced)
        watched[role].origins = frozenset((role,))
    made = layout(module, watched)
    plain = {name: x.as_subclass(torch.Tensor) for name, x in made.items()}
    found = {
        name: tuple(role for role in weights if role in getattr(x, "origins", ()))
        for name, x in made.items()
    }
    return plain, found


_class: list[Any] = []


def _traced_class() -> Any:
    """The class of tensors that pass their origins on; made at first use, as torch is."""
    if _class:
        return _class[0]
    import torch

    class Traced(torch.Tensor):  # type: ignore[misc]
        origins: frozenset[str] = frozenset()

        @classmethod
        def __torch_function__(
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = super().__torch_function__(func, types, args, kwargs or {})
            origins = _origins_in(args) | _origins_in((kwargs or {}).values())
            for x in result if isinstance(result, (tuple, list)) else (result,):
                if isinstance(x, Traced):
                    x.origins = origins
            return result

    _class.append(Traced)
    return Traced


def _origins_in(values: Any) -> frozenset[str]:
    found: frozenset[str] = frozenset()
    for x in values:
        found |= _origins_in(x) if isinstance(x, (tuple, list)) else getattr(x, "origins", found)
    return found
