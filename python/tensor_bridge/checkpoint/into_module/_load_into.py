"""`load_into`: the weights of a checkpoint into a torch module."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from tensor_bridge.checkpoint.into_module._layouts import (
    MisfitError,
    has_parts,
    is_state,
    layout_of,
)
from tensor_bridge.checkpoint.into_module._report import Loaded, Report
from tensor_bridge.checkpoint.into_module._rules import KERAS, CompiledRule, compiled, renamed
from tensor_bridge.checkpoint.read._checkpoint import Checkpoint, load
from tensor_bridge.composite import StringTensor
from tensor_bridge.errors import InvalidOptionError, MismatchError, TensorBridgeError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tensor_bridge.checkpoint.into_module._rules import AnyRule

__all__ = ["load_into"]


def load_into(
    module: nn.Module,
    source: str | os.PathLike[str] | Checkpoint | Mapping[str, Any],
    *,
    rules: Iterable[AnyRule] = (),
    names: str = "path",
    flattened: Mapping[str, tuple[int, ...]] | None = None,
    strict: bool = True,
    cast: bool = False,
    assign: bool = False,
) -> Report:
    """Loads the weights of a checkpoint into a torch module.

    A name in the checkpoint, "block/conv/kernel", is changed by the rules; then its longest
    beginning that is the path of a submodule, "block.conv", says where it goes, and the rest,
    changed by `KERAS`, what it is. The kind of the module says how it is laid out there: Conv,
    ConvTranspose and depthwise kernels, Linear, norms, Embedding, LSTM, GRU and RNN (also in
    cuDNN's form), PReLU, MultiheadAttention, and a Sequential of two convolutions for a separable
    one. Tensors of other modules are taken as they are, by their own names.

    Everything is looked at before anything is written: after an exception the module is as it was.

    Args:
      module: Where to. Not changed but for the values of its parameters and buffers.
      source: A path as for `load`, an open checkpoint, or names and tensors.
      rules: A list of `Rule`, or of plain tuples: a regular expression and what takes the place of
        each match (`re.sub`), in order; None instead of a text drops names in which the expression
        is found. A third item, "as_is" or "transposed", takes the layout from the rule instead of
        from the kind of the module; the name that comes out is then that of a tensor.
      names: "path" takes the checkpoint's names, "variable" those that its variables had in
        TensorFlow ("dense/kernel"), which an object-based checkpoint knows.
      flattened: For a Linear module after a flattened picture the sizes (channels, height, width)
        of that picture in torch: Keras flattens channels last.
      strict: Whether a tensor without a source, and a name without a target, is an error.
      cast: Whether values may be rounded to the module's dtype.
      assign: Puts the checkpoint's tensors in the place of the module's, as in
        ``Module.load_state_dict``; needed for a module on the device "meta".

    Returns:
      What went where.

    Raises:
      MismatchError: Something does not fit; all of it is listed, and ``report`` is an attribute.
      InvalidOptionError: A rule that is none, unknown ``names``.
      CheckpointError, CheckpointNotFoundError: As `load`.

    Example:
      >>> import torch, tensor_bridge
      >>> weights = {"dense/kernel": torch.ones(3, 2), "dense/bias": torch.zeros(2)}
      >>> model = torch.nn.ModuleDict({"dense": torch.nn.Linear(3, 2)})
      >>> print(tensor_bridge.checkpoint.load_into(model, weights))
      2 loaded, 0 missing, 0 unused, 0 ignored, 0 problems
        dense.weight (2, 3) <- dense/kernel  from (3, 2)
        dense.bias   (2,) <- dense/bias
    """
    if isinstance(source, (str, os.PathLike)):
        source = load(source)
    given = _named(source, names)
    report = Report()
    groups, placed = _grouped(module, given, compiled(rules), report)
    modules = dict(module.named_modules())
    values: dict[str, Any] = {}

    def take(target: str, x: torch.Tensor, sources: tuple[str, ...]) -> None:
        values[target] = x
        stored = tuple(tuple(given.shape(name)) for name in sources)
        report.loaded.append(Loaded(target, sources, tuple(x.shape), stored))

    for target, (name, layout) in placed.items():
        try:
            take(target, _laid_out(given[name], layout), (name,))
        except (MisfitError, TensorBridgeError) as e:
            report.problems.append(f"{target} <- {name}: {e}")
    flat = dict(flattened or {})
    for path in sorted(set(flat) - set(modules)):
        report.problems.append(f"flattened: {path!r} is no module")
    for path, roles in groups.items():
        try:
            made = _converted(
                modules[path], {r: given[n] for r, n in roles.items()}, flat.get(path)
            )
        except (MisfitError, TensorBridgeError) as e:
            report.problems.append(f"{path or 'the module'} <- {', '.join(roles.values())}: {e}")
            continue
        for name, x in made.items():
            target = f"{path}.{name}" if path else name
            if target in placed:
                report.problems.append(
                    f"{target}: both {placed[target][0]} and {', '.join(roles.values())}"
                )
                continue
            take(target, x, _sources_of(name, roles) or tuple(roles.values()))
    _check(module, values, report, cast)
    if report.problems or (strict and not report.complete):
        error = MismatchError(f"nothing was loaded. {report}")
        error.report = report  # type: ignore[attr-defined]
        raise error
    module.load_state_dict(
        {name: x.contiguous() if assign else x for name, x in values.items()},
        strict=False,
        assign=assign,
    )
    return report


class _Given(dict[str, str]):
    """Names as the caller knows them; the tensors, read once each."""

    def __init__(self, source: Mapping[str, Any], names: dict[str, str]) -> None:
        super().__init__(names)
        self._source = source
        self._read: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._read:
            self._read[name] = self._source[super().__getitem__(name)]
        return self._read[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self[name].shape)


def _named(source: Mapping[str, Any], names: str) -> _Given:
    if names == "path":
        return _Given(source, {name: name for name in source})
    if names != "variable":
        raise InvalidOptionError(f"expected names to be 'path' or 'variable', got {names!r}")
    called = source.variable_names if isinstance(source, Checkpoint) else {}
    if not called:
        raise InvalidOptionError("the source does not know what its variables were called")
    found: dict[str, str] = {}
    for path, variable in called.items():
        if variable in found:
            raise InvalidOptionError(
                f"two variables were called {variable!r}: {found[variable]} and {path}; use their "
                "paths"
            )
        found[variable] = path
    return _Given(source, found)


def _grouped(
    module: nn.Module, given: _Given, rules: list[CompiledRule], report: Report
) -> tuple[dict[str, dict[str, str]], dict[str, tuple[str, str]]]:
    """Where each name goes.

    Returns:
      For each module's path the roles, and which name has each; and the tensors that rules with a
      layout name, for each the name that goes there and the layout.
    """
    modules = dict(module.named_modules())
    own = {
        path: {n for n, _ in (*m.named_parameters(recurse=False), *m.named_buffers(recurse=False))}
        for path, m in modules.items()
    }
    tensors = module.state_dict(keep_vars=True)
    groups: dict[str, dict[str, str]] = {}
    placed: dict[str, tuple[str, str]] = {}
    for name in given:
        target, layout = renamed(name, rules)
        if target is None:
            report.ignored.append(name)
        elif layout is not None:
            _put(name, target, layout, tensors, placed, report)
        elif (place := _place(target, modules, own)) is None:
            report.unused.append(name)
        else:
            path, role = place
            for expression, text in KERAS:
                role = re.sub(expression, text, role)
            if is_state(role) and layout_of(modules[path]) is not None:
                report.ignored.append(name)
                continue
            taken = groups.setdefault(path, {})
            if role in taken:
                report.problems.append(
                    f"{path or 'the module'}, {role}: both {taken[role]} and {name}"
                )
            else:
                taken[role] = name
    for path in {target.rpartition(".")[0] for target in placed}:
        if list(groups.get(path, ())) == ["bias"]:
            # Beside a weight that a rule places: of one dimension, the same in both frameworks.
            bias = f"{path}.bias" if path else "bias"
            _put(groups.pop(path)["bias"], bias, "as_is", tensors, placed, report)
    return groups, placed


def _put(
    name: str,
    target: str,
    layout: str,
    tensors: Mapping[str, Any],
    placed: dict[str, tuple[str, str]],
    report: Report,
) -> None:
    """Notes where a name goes that a rule with a layout leads to a tensor."""
    dotted = target if target in tensors else target.replace("/", ".")
    if dotted not in tensors:
        near = get_close_matches(dotted, list(tensors), n=3, cutoff=0.6)
        advice = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        report.problems.append(
            f"{name}: the layout {layout!r} of its rule needs a name of the module's state_dict, "
            f"got {target!r}{advice}"
        )
    elif dotted in placed:
        report.problems.append(f"{dotted}: both {placed[dotted][0]} and {name}")
    else:
        placed[dotted] = name, layout


def _laid_out(x: Any, layout: str) -> torch.Tensor:
    """A value in the layout that a rule demands."""
    if isinstance(x, StringTensor):
        raise MisfitError("it holds strings")
    tensor: torch.Tensor = x
    if layout == "as_is":
        return tensor
    if tensor.ndim != 2:
        raise MisfitError(
            f"expected two dimensions to be transposed, got the shape {tuple(tensor.shape)}"
        )
    return tensor.t()


def _place(
    name: str, modules: dict[str, nn.Module], own: dict[str, set[str]]
) -> tuple[str, str] | None:
    """The deepest module that the name leads to, and what is left of the name."""
    parts = re.split(r"[/.]", name)
    for length in range(len(parts) - 1, -1, -1):
        path, rest = ".".join(parts[:length]), parts[length:]
        if path not in modules:
            continue
        if layout_of(modules[path]) is not None:
            return path, "/".join(rest)
        if len(rest) == 1 and rest[0] in own[path]:
            return path, rest[0]
    return None


def _sources_of(name: str, roles: dict[str, str]) -> tuple[str, ...]:
    """The one name that a tensor comes from, where that can be told from two roles."""
    if len(roles) > 2 or len(roles) == 1:
        return tuple(roles.values()) if len(roles) == 1 else ()
    last = name.rsplit(".", 1)[-1]
    for role, source in roles.items():
        is_bias = role.rsplit("/", 1)[-1].lstrip("_") in (
            "bias",
            "biases",
            "b",
            "beta",
            "offset",
            "1",
        )
        if is_bias == (last == "bias"):
            return (source,)
    return ()


def _converted(
    module: nn.Module, weights: dict[str, Any], flattened: tuple[int, ...] | None
) -> dict[str, torch.Tensor]:
    for role, x in weights.items():
        if isinstance(x, StringTensor):
            raise MisfitError(f"{role!r} holds strings")
    layout = layout_of(module)
    if layout is None:
        return weights
    inner = {role.rpartition("/")[0] for role in weights}
    if not has_parts(module) and len(inner) == 1:
        # TimeDistributed and other wrappers: "wrapper/dense/kernel" is the wrapper's own here.
        weights = {role.rpartition("/")[2]: x for role, x in weights.items()}
    if flattened is not None:
        weights = dict(weights)
        for role, x in weights.items():
            if x.ndim == 2:
                weights[role] = _channels_first(x, tuple(flattened))
    return layout(module, weights)


def _channels_first(kernel: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    from math import prod

    if prod(sizes) != kernel.shape[0]:
        raise MisfitError(f"flattened: {sizes} are not the {kernel.shape[0]} inputs of the kernel")
    channels, *spatial = sizes
    picture = kernel.reshape(*spatial, channels, -1)
    return picture.movedim(-2, 0).reshape(kernel.shape)


def _check(module: nn.Module, values: dict[str, Any], report: Report, cast: bool) -> None:
    """Adds what is missing and what does not fit."""
    import torch

    state = module.state_dict(keep_vars=True)
    loaded = {id(state[name]) for name in values if name in state}
    for name, target in state.items():
        if name in values:
            x = values[name]
            if x.shape != target.shape:
                report.problems.append(
                    f"{name}: expected the shape {tuple(target.shape)}, got {tuple(x.shape)}"
                )
            elif not cast and torch.promote_types(x.dtype, target.dtype) != target.dtype:
                report.problems.append(
                    f"{name}: {x.dtype} does not fit into {target.dtype}; cast=True rounds"
                )
        # Counts batches for momentum=None; Keras has no such thing. Tied tensors have two names.
        elif (
            id(target) not in loaded
            and isinstance(target, torch.Tensor)
            and not name.endswith("num_batches_tracked")
        ):
            report.missing.append(name)
    for name in values:
        if name not in state:
            report.problems.append(f"{name}: the module has no such tensor")
