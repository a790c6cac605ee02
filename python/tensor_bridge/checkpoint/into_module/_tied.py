"""Values for tensors that share memory in a module, which must not contradict each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def conflicts(
    tensors: Mapping[str, Any], values: Mapping[str, torch.Tensor], sources: Mapping[str, str]
) -> list[str]:
    """Which values overwrite each other because tensors share memory: a text for each pair.

    The values are written one after the other to memory with the module's layout. A value that has
    changed at the end was overwritten with something else. This covers several names of one tensor,
    slices of one buffer, and transposed views.

    Args:
      tensors: The module's tensors, by name.
      values: The new values; their shapes fit.
      sources: For each name, the name in the checkpoint.
    """
    shared: dict[Any, list[str]] = {}
    for name in values:
        if (key := _memory_of(tensors[name])) is not None:
            shared.setdefault(key, []).append(name)
    found: list[str] = []
    for names in shared.values():
        if len(names) > 1:
            found += _conflicts_in(names, tensors, values, sources)
    return found


def _memory_of(x: torch.Tensor) -> Any:
    """A key that is equal for tensors that may share memory."""
    import torch

    if x.layout != torch.strided or x.numel() == 0:
        return None
    # Without memory, only the same tensor object counts as shared.
    return id(x) if x.is_meta else (x.device, x.untyped_storage().data_ptr(), x.dtype)


def _conflicts_in(
    names: list[str],
    tensors: Mapping[str, Any],
    values: Mapping[str, torch.Tensor],
    sources: Mapping[str, str],
) -> list[str]:
    import torch

    first = tensors[names[0]]
    size = first.untyped_storage().nbytes() // first.element_size()
    memory = torch.empty(size, dtype=first.dtype, device="cpu")
    written: list[tuple[str, torch.Tensor]] = []
    found = []
    for name in names:
        x = tensors[name]
        place = memory.as_strided(x.shape, x.stride(), x.storage_offset())
        place.copy_(values[name].detach())
        for other, view in list(written):
            wanted = values[other].detach().to(view.device, view.dtype)
            same = (view == wanted) | (view.isnan() & wanted.isnan())
            if not same.all():
                differs = (
                    (view.double() - wanted.double()).abs()
                    if not view.is_complex()
                    else (view - wanted).abs()
                )
                found.append(
                    f"{other} and {name} share memory in the module, but their values differ: "
                    f"{sources[other]} and {sources[name]}, in {int((~same).sum())} of "
                    f"{same.numel()} values by up to {differs.nan_to_num().max().item():.3g}"
                )
                written.remove((other, view))
        written.append((name, place))
    return found
