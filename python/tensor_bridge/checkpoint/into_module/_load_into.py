"""`load_into`: the weights of a checkpoint into a torch module."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from tensor_bridge.checkpoint.into_module._layouts import MisfitError, has_parts, layout_of
from tensor_bridge.checkpoint.read._checkpoint import Checkpoint, load
from tensor_bridge.composite import StringTensor
from tensor_bridge.errors import InvalidOptionError, MismatchError, TensorBridgeError

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["KERAS", "Loaded", "Report", "load_into"]

KERAS: tuple[tuple[str, str], ...] = (
    # A recurrent layer is one module in torch, with its cell and the two directions in it.
    (r"(^|/)(?:lstm_cell|gru_cell|simple_rnn_cell|cell)(?:_\d+)?/", r"\1"),
    (r"^(forward|backward)_[^/]+/", r"\1/"),
)
"""Applied to what is left of a name behind the path of its module, after the caller's rules."""


@dataclass(frozen=True)
class Loaded:
    """One tensor of the module.

    Attributes:
      target: Its name in the module's ``state_dict``.
      sources: Names in the checkpoint.
      shape: Its sizes.
      stored: Sizes of the sources.
    """

    target: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    stored: tuple[tuple[int, ...], ...]


@dataclass
class Report:
    """What `load_into` did, or would have done.

    Attributes:
      loaded: What has a source.
      missing: Tensors of the module that have none.
      unused: Names in the checkpoint that no module takes.
      ignored: Names that a rule drops.
      problems: What does not fit, one text for each.
    """

    loaded: list[Loaded] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every tensor has a source and every name a target."""
        return not (self.missing or self.unused or self.problems)

    def __str__(self) -> str:
        lines = [
            f"{len(self.loaded)} loaded, {len(self.missing)} missing, {len(self.unused)} unused, "
            f"{len(self.ignored)} ignored, {len(self.problems)} problems"
        ]
        width = max((len(item.target) for item in self.loaded), default=0)
        for item in self.loaded:
            stored = " ".join(str(shape) for shape in item.stored)
            change = "" if item.stored == (item.shape,) else f"  from {stored}"
            lines.append(
                f"  {item.target:<{width}} {item.shape} <- {', '.join(item.sources)}{change}"
            )
        known = [item.target for item in self.loaded]
        for title, names, others in (
            ("missing", self.missing, self.unused),
            ("unused", self.unused, self.missing),
        ):
            for name in names:
                lines.append(f"  {title}: {name}{_alike(name, others, known)}")
        lines += [f"  problem: {problem}" for problem in self.problems]
        return "\n".join(lines)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower().rsplit("/", 1)[0].rsplit(".", 1)[0])


def _alike(name: str, others: list[str], _known: list[str]) -> str:
    """A hint at the names on the other side that are most like this one."""
    by_plain: dict[str, list[str]] = {}
    for other in others:
        by_plain.setdefault(_plain(other), []).append(other)
    near = get_close_matches(_plain(name), list(by_plain), n=2, cutoff=0.6)
    found = [other for plain in near for other in by_plain[plain]][:3]
    return f" (near: {', '.join(found)})" if found else ""


def load_into(
    module: nn.Module,
    source: str | os.PathLike[str] | Checkpoint | Mapping[str, Any],
    *,
    rules: Iterable[tuple[str, str | None]] = (),
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
      rules: Pairs of a regular expression and what takes the place of each match (`re.sub`), in
        order; None instead of a text drops names in which the expression is found.
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
      InvalidOptionError: A rule that is no regular expression, unknown ``names``.
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
    groups = _grouped(module, given, _compiled(rules), report)
    modules = dict(module.named_modules())
    values: dict[str, Any] = {}
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
        sources = tuple(roles.values())
        for name, x in made.items():
            target = f"{path}.{name}" if path else name
            values[target] = x
            own = _sources_of(name, roles) or sources
            report.loaded.append(
                Loaded(target, own, tuple(x.shape), tuple(tuple(given.shape(n)) for n in own))
            )
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


def _compiled(rules: Iterable[tuple[str, str | None]]) -> list[tuple[re.Pattern[str], str | None]]:
    compiled = []
    for rule in rules:
        try:
            pattern, replacement = rule
            compiled.append((re.compile(pattern), replacement))
        except (re.error, TypeError, ValueError) as e:
            raise InvalidOptionError(
                f"expected rules to be pairs (regular expression, text), got {rule!r}: {e}"
            ) from None
    return compiled


def _grouped(
    module: nn.Module,
    given: _Given,
    rules: list[tuple[re.Pattern[str], str | None]],
    report: Report,
) -> dict[str, dict[str, str]]:
    """For each module's path the roles, and which name has each."""
    modules = dict(module.named_modules())
    own = {
        path: {n for n, _ in (*m.named_parameters(recurse=False), *m.named_buffers(recurse=False))}
        for path, m in modules.items()
    }
    groups: dict[str, dict[str, str]] = {}
    for name in given:
        target: str | None = re.sub(r":\d+$", "", name)  # "kernel:0" of TensorFlow 1
        for pattern, replacement in rules:
            if replacement is None:
                target = None if pattern.search(target or "") else target
            elif target is not None:
                try:
                    target = pattern.sub(replacement, target)
                except (re.error, IndexError) as e:
                    raise InvalidOptionError(f"{replacement!r} cannot replace: {e}") from None
            if target is None:
                break
        if target is None:
            report.ignored.append(name)
            continue
        place = _place(target, modules, own)
        if place is None:
            report.unused.append(name)
            continue
        path, role = place
        for expression, text in KERAS:
            role = re.sub(expression, text, role)
        taken = groups.setdefault(path, {})
        if role in taken:
            report.problems.append(f"{path or 'the module'}, {role}: both {taken[role]} and {name}")
            continue
        taken[role] = name
    return groups


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
        is_bias = role.rsplit("/", 1)[-1].lstrip("_") in ("bias", "biases", "beta", "offset", "1")
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
