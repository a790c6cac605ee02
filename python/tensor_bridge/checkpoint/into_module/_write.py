"""Writes values into the tensors of a module: all, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tensor_bridge.checkpoint.into_module._lazy_modules import copied, materialize
from tensor_bridge.checkpoint.read._owned import owned
from tensor_bridge.errors import CheckpointError, MismatchError

if TYPE_CHECKING:
    import torch
    from torch import nn

_PART = 64 << 20


def write(
    module: nn.Module,
    values: Mapping[str, torch.Tensor],
    lazy: Mapping[str, tuple[nn.Module, tuple[int, ...]]],
    assign: bool,
    mapped: bool,
) -> None:
    """Loads values whose shapes and dtypes fit.

    Args:
      module: The target.
      values: By names of the module's ``state_dict``.
      lazy: Lazy modules, and the sizes of a first input for each.
      assign: As for `load_into`.
      mapped: Whether the values may be views of a file. They are copied before they are read, a
        part at a time, so that truncating the file meanwhile is an error, not a crash.

    Raises:
      MismatchError: The module's own code refuses the values; the module is unchanged.
      CheckpointError: A file was truncated; a module without code of its own then has some of the
        values.
    """
    kept = _Kept(module, values, lazy, assign)
    try:
        for part, sizes in lazy.values():
            materialize(part, sizes)
        if assign:
            module.load_state_dict(_to_assign(module, values), strict=False, assign=True)
            return
        for part_of_them in _parts(values, whole=not mapped or kept.whole):
            if mapped:
                part_of_them = {name: owned(x) for name, x in part_of_them.items()}
            module.load_state_dict(part_of_them, strict=False)
    except CheckpointError:
        kept.restore()
        raise
    except Exception as e:
        kept.restore()
        raise MismatchError(
            f"nothing was loaded: the module's own code refuses what it is given: {e}"
        ) from e
    except BaseException:
        kept.restore()
        raise


def _parts(values: Mapping[str, torch.Tensor], whole: bool) -> Iterator[dict[str, torch.Tensor]]:
    """The values, some at a time, so that the memory of their copies is soon free again."""
    part: dict[str, torch.Tensor] = {}
    size = 0
    for name, x in values.items():
        if part and not whole and size + x.nbytes > _PART:
            yield part
            part, size = {}, 0
        part[name] = x
        size += x.nbytes
    yield part


def _to_assign(module: nn.Module, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The replacements of tensors; a tensor with several names gets one replacement."""
    from torch import nn

    state = module.state_dict(keep_vars=True)
    made: dict[int, torch.Tensor] = {}
    for name, x in values.items():
        target = state[name]
        x = x.contiguous()
        if isinstance(target, nn.Parameter):
            x = nn.Parameter(x, requires_grad=target.requires_grad)
        made.setdefault(id(target), x)
    return {name: made[id(target)] for name, target in state.items() if id(target) in made}


class _Kept:
    """The former state of a module, as far as it may have to be restored.

    Attributes:
      whole: Whether all values are loaded in one call, because the module's own code reads them.
    """

    def __init__(
        self,
        module: nn.Module,
        values: Mapping[str, torch.Tensor],
        lazy: Mapping[str, Any],
        assign: bool,
    ) -> None:
        self._tensors: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._members: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._lazy = [(part, copied(part)) for part, _ in lazy.values()]
        self.whole = _has_code(module)
        if assign:
            for part in module.modules():
                for members in (part._parameters, part._buffers):
                    self._members.append((members, dict(members)))
        elif self.whole:
            lazy_tensors = {
                id(x) for part, _ in self._lazy for x in part.state_dict(keep_vars=True).values()
            }
            state = module.state_dict(keep_vars=True)
            for name in values:
                if id(state[name]) not in lazy_tensors:
                    self._tensors.append((state[name], state[name].detach().clone()))

    def restore(self) -> None:
        import torch

        with torch.no_grad():
            for x, before in self._tensors:
                x.copy_(before)
        for members, before_members in self._members:
            members.clear()
            members.update(before_members)
        for part, before_part in self._lazy:
            part.__class__ = type(before_part)
            part.__dict__ = before_part.__dict__


def _has_code(module: nn.Module) -> bool:
    """Whether code other than torch's takes part in loading, and may fail halfway.

    torch itself copies values that were checked before, tensor by tensor; keeping a copy of the
    module in case that fails is not worth the memory.
    """

    def own(part: nn.Module, name: str) -> bool:
        function = getattr(type(part), name)
        return not getattr(function, "__module__", "").startswith("torch.")

    return any(
        part._load_state_dict_pre_hooks
        or part._load_state_dict_post_hooks
        or own(part, "_load_from_state_dict")
        or own(part, "load_state_dict")
        for part in module.modules()
    )
