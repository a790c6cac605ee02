"""`load_into`: the weights of a checkpoint into a torch module."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from tensor_bridge._options import checks_keywords
from tensor_bridge.checkpoint.into_module._computation import compared, options_known
from tensor_bridge.checkpoint.into_module._conversion import (
    converted,
    laid_out,
    refuse_either_way,
)
from tensor_bridge.checkpoint.into_module._destinations import Destinations, destinations
from tensor_bridge.checkpoint.into_module._given import Given, given_by
from tensor_bridge.checkpoint.into_module._layouts import MisfitError, has_parts, layout_of
from tensor_bridge.checkpoint.into_module._lazy_modules import (
    is_lazy,
    materialized,
    refuse_lazy_parts,
    sizes_from,
)
from tensor_bridge.checkpoint.into_module._made_with import MadeWith, made_with_of
from tensor_bridge.checkpoint.into_module._places import Places
from tensor_bridge.checkpoint.into_module._report import Loaded, Report
from tensor_bridge.checkpoint.into_module._rules import CompiledRule, Renamed, compiled, renamed
from tensor_bridge.checkpoint.into_module._stored_form import stored_form
from tensor_bridge.checkpoint.into_module._tied import conflicts
from tensor_bridge.checkpoint.into_module._write import write
from tensor_bridge.checkpoint.read._checkpoint import near_misses
from tensor_bridge.checkpoint.read._damage import reading
from tensor_bridge.checkpoint.read._owned import owned
from tensor_bridge.errors import (
    InvalidOptionError,
    MismatchError,
    TensorBridgeError,
    UnsupportedTypeError,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tensor_bridge.checkpoint.into_module._proposal import Proposal
    from tensor_bridge.checkpoint.into_module._rules import AnyRule
    from tensor_bridge.checkpoint.read._checkpoint import Checkpoint


@checks_keywords
def load_into(
    module: nn.Module,
    source: str | os.PathLike[str] | Checkpoint | Mapping[str, Any],
    *,
    rules: Iterable[AnyRule] = (),
    names: str = "path",
    flattened: Mapping[str, tuple[int, ...]] | None = None,
    made_with: Mapping[str, Any] | None = None,
    strict: bool = True,
    compare: bool = True,
    cast: bool = False,
    assign: bool = False,
) -> Report:
    """Loads the weights of a checkpoint into a torch module.

    The rules are applied to each name in the checkpoint, such as "block/conv/kernel". The longest
    prefix of the result that is the path of a submodule, "block.conv", selects the module; the rest
    selects its tensor, by the names of Keras, TensorFlow 1, Sonnet and GPT-2. The kind of the
    module decides the layout: Conv, ConvTranspose and depthwise kernels, Linear, norms, Embedding,
    LSTM, GRU and RNN (with all their layers and both directions), PReLU, MultiheadAttention, and a
    Sequential of two convolutions for a separable one. Tensors of other modules are loaded
    unchanged, by their own names. Values are copied into the module's tensors, unless ``assign`` is
    true.

    Everything is checked before anything is written: after an exception the module is unchanged.

    Args:
      module: The target. Only the values of its parameters and buffers change.
      source: A path as for `load`, an open checkpoint, or names and tensors.
      rules: A list of `Rule`, or of plain tuples of a regular expression and the replacement of
        each match (`re.sub`), applied in order; None as replacement drops names that match. A third
        item, "as_is" or "transposed", gives the layout instead of the kind of the module; the
        replacement is then the name of a tensor.
      names: "path" uses the checkpoint's names, "variable" the variables' names in TensorFlow
        ("dense/kernel"), which an object-based checkpoint contains.
      flattened: For a Linear module or a norm after a flattened image, the sizes (channels, height,
        width) of that image in torch, because Keras flattens channels last. A single size (inputs,)
        says that the module's own code moves the channels last, before the module or in the image
        that it makes of the outputs.
      made_with: Facts about the layers that the file does not contain and that change the meaning
        of the weights: ``forget_bias`` of the LSTM cells of TensorFlow 1, ``reset_after`` of a GRU
        without a bias; for Keras 1 ``keras_version``, ``dim_ordering`` and ``backend`` ("theano"
        flips kernels of convolutions).
      strict: Whether these are errors: a tensor without a source, a name without a target, and a
        module that computes something different from its layer.
      compare: Whether to compare the modules with the layers that the checkpoint describes:
        activations, padding, strides, epsilon and so on. Use False for a module whose own code
        compensates for a difference.
      cast: Whether values may be rounded to the module's dtype.
      assign: Replaces the module's tensors by the checkpoint's, as in ``Module.load_state_dict``;
        needed for a module on the device "meta".

    Returns:
      A report of all names, with their sources and targets.

    Raises:
      MismatchError: Something does not fit; all of it is listed, and ``report`` is an attribute.
      InvalidOptionError: An invalid rule, unknown ``names``, or an unknown option or value in
        ``made_with``.
      CheckpointError, CheckpointNotFoundError: As `load`. If a file is truncated while its values
        are copied, after the checks, some of them are in the module.

    Example:
      >>> import torch, tensor_bridge
      >>> weights = {"dense/kernel": torch.ones(3, 2), "dense/bias": torch.zeros(2)}
      >>> model = torch.nn.ModuleDict({"dense": torch.nn.Linear(3, 2)})
      >>> print(tensor_bridge.checkpoint.load_into(model, weights))
      2 loaded, 0 missing, 0 unused, 0 ignored, 0 problems
        dense.weight (2, 3) <- dense/kernel  from (3, 2)
        dense.bias   (2,) <- dense/bias
    """
    _look_at(module, flattened)
    given = given_by(source, names)
    options = made_with_of(made_with).or_of(given.source)
    places = Places(module)
    report = Report()
    own_rules = compiled(rules)
    changes = {name: renamed(name, own_rules) for name in given}
    plan = destinations(places, given, changes, report)
    flat = dict(flattened or {})
    for path in sorted(set(flat) - set(places.modules)):
        report.problems.append(
            f"flattened: {path!r} is no module{near_misses(path, places.modules)}"
        )
    loading = _Loading(places, given, flat, options, compare, report)
    for target, (name, layout) in plan.placed.items():
        loading.place(target, name, layout)
    for path, roles in plan.groups.items():
        loading.convert(path, roles)
    loading.check(cast, assign)
    if compare and given.layers:
        taken = _layers_taken(places, given, plan, own_rules)
        report.differences += compared(places.modules, taken, given.layers, flat)
    if report.missing or report.unused or loading.misfits:
        report.propose_with(partial(loading.proposal, plan, own_rules, changes))
    if report.problems or (strict and not report.complete):
        raise _refusal(str(report), report)
    try:
        with reading(given.path):
            write(module, loading.values, loading.lazy, assign, mapped=given.mapped)
    except MismatchError as e:
        e.report = report  # type: ignore[attr-defined]
        raise
    report.written = True
    return report


def _layers_taken(
    places: Places, given: Given, plan: Destinations, rules: list[CompiledRule]
) -> dict[str, list[str]]:
    """The layers of each module, by its path; those without weights by their names."""
    taken = {path: given.layers_of(names) for path, names in plan.sources(places).items()}
    known = set(given.layers_of(given))
    for layer in given.layers:
        name = renamed(f"{layer}/", rules).name if layer not in known else None
        path = ".".join((name or "").rstrip("/").split("/"))
        if path and path in places.modules:
            taken.setdefault(path, [layer])
    return taken


def _look_at(module: Any, flattened: Any) -> None:
    """Refuses arguments of the wrong type."""
    from torch import nn

    if not isinstance(module, nn.Module):
        advice = ""
        if isinstance(module, Mapping):
            advice = "; give the module itself, not its state_dict"
        elif isinstance(module, type):
            advice = f"; make one first: {module.__name__}(...)"
        kind = "None" if module is None else type(module).__name__
        raise UnsupportedTypeError(f"expected module to be a torch.nn.Module, got {kind}{advice}")
    if flattened is None:
        return
    if not isinstance(flattened, Mapping) or not all(
        isinstance(path, str)
        and isinstance(sizes, (tuple, list))
        and sizes
        and all(isinstance(size, int) and size > 0 for size in sizes)
        for path, sizes in flattened.items()
    ):
        raise InvalidOptionError(
            "expected flattened to be paths of modules and the sizes (channels, height, width) of "
            f"a picture for each, got {flattened!r}"
        )


def _refusal(text: str, report: Report) -> MismatchError:
    error = MismatchError(text)
    error.report = report  # type: ignore[attr-defined]
    return error


class _Loading:
    """Values on their way into a module.

    Attributes:
      values: The new values by names of the ``state_dict``.
      lazy: Lazy modules by path, and the sizes of a first input for each.
      misfits: Paths of modules that do not fit.

    ``described`` says whether the checkpoint's own description of its layers is used.
    """

    def __init__(
        self,
        places: Places,
        given: Given,
        flat: Mapping[str, tuple[int, ...]],
        made_with: MadeWith,
        described: bool,
        report: Report,
    ) -> None:
        self.values: dict[str, torch.Tensor] = {}
        self.lazy: dict[str, tuple[nn.Module, tuple[int, ...]]] = {}
        self._places = places
        self._given = given
        self._flat = flat
        self._made_with = made_with
        self._described = described
        self._report = report
        self._sources: dict[str, tuple[str, ...]] = {}
        self._expected = dict(places.tensors)
        self._refused: set[str] = set()
        self.misfits: dict[str, None] = {}

    def place(self, target: str, name: str, layout: str) -> None:
        """Takes a value for a tensor that a rule names."""
        path = self._places.path_of(target)
        try:
            self._refuse_text([name])
            x = self._given[name]
            module = self._sized(path, [x])
            x = laid_out(module, x, layout, self._flat.get(path))
            self._take(path, module, target.rpartition(".")[2], x, (name,))
        except (MisfitError, TensorBridgeError) as e:
            self._report.problems.append(f"{target} <- {name}: {e}")
            self._refused.add(target)
            self.misfits[path] = None

    def convert(self, path: str, roles: dict[str, str]) -> None:
        """Takes the weights of a module."""
        names = list(roles.values())
        try:
            self._refuse_text(names)
            weights = {role: self._given[name] for role, name in roles.items()}
            module = self._sized(path, weights.values())
            if self._given.mapped and has_parts(module):
                # The layouts of such modules read the values here; other values only `write` reads.
                weights = {role: owned(x) for role, x in weights.items()}
            flat = self._flat.get(path)
            options = self._made_with
            for layer in self._given.layers_of(names) if self._described else ():
                options = options_known(options, self._given.layers[layer])
            if getattr(self._given.source, "format", None) == "tflite":
                refuse_either_way(module, weights)
            made, origins = converted(module, weights, flat, options)
            for name, x in made.items():
                self._take(path, module, name, x, tuple(roles[r] for r in origins[name]))
        except (MisfitError, TensorBridgeError) as e:
            self._report.problems.append(f"{path or 'the module'} <- {', '.join(names)}: {e}")
            self._refused.update(self._places.own_tensors(path))
            self.misfits[path] = None

    def _refuse_text(self, names: list[str]) -> None:
        for name in names:
            if self._given.is_text(name):
                raise MisfitError(f"{name!r} holds strings")

    def _sized(self, path: str, weights: Iterable[torch.Tensor]) -> nn.Module:
        """The module at a path, or for a lazy one a copy that has its sizes."""
        module = self._places.modules[path]
        if layout_of(module) is not None:
            refuse_lazy_parts(module)
        if not is_lazy(module):
            return module
        sizes = sizes_from(module, weights)
        if path in self.lazy and self.lazy[path][1] != sizes:
            return materialized(module, self.lazy[path][1])
        self.lazy[path] = module, sizes
        twin = materialized(module, sizes)
        for name, x in twin.state_dict(keep_vars=True).items():
            self._expected[self._places.target(path, name)] = x
        return twin

    def _take(
        self, path: str, module: nn.Module, name: str, x: torch.Tensor, sources: tuple[str, ...]
    ) -> None:
        for own, part in stored_form(module, name, x).items():
            target = self._places.target(path, own)
            if target in self.values:
                others = ", ".join(self._sources[target])
                self._report.problems.append(f"{target}: both {others} and {', '.join(sources)}")
                continue
            self.values[target], self._sources[target] = part, sources
            stored = tuple(self._given.shape(source) for source in sources)
            self._report.loaded.append(Loaded(target, sources, tuple(part.shape), stored))

    def check(self, cast: bool, assign: bool) -> None:
        """Adds to the report what is missing and what does not fit."""
        report, expected = self._report, self._expected
        fitting = {}
        for name, x in self.values.items():
            if name not in expected:
                report.problems.append(f"{name}: the module has no such tensor")
                self.misfits[self._places.path_of(name)] = None
            elif (misfit := _misfit(x, expected[name], cast, assign)) is not None:
                report.problems.append(f"{name}: {misfit}")
                if x.shape != expected[name].shape:
                    self.misfits[self._places.path_of(name)] = None
            else:
                fitting[name] = x
        sources = {name: ", ".join(self._sources[name]) for name in fitting}
        report.problems += conflicts(expected, fitting, sources)
        without_memory = [name for name in fitting if expected[name].is_meta]
        if without_memory and not assign:
            report.problems.append(
                f"{without_memory[0]}{' and others' if len(without_memory) > 1 else ''}: on the "
                "device meta a module has no memory for values; give assign=True, or call "
                "module.to_empty(device='cpu') before"
            )
        self._tell_missing()

    def _tell_missing(self) -> None:
        import torch

        tensors = self._places.tensors
        given = {id(tensors[name]) for name in {*self.values, *self._refused} if name in tensors}
        for name, x in tensors.items():
            if id(x) in given or not isinstance(x, torch.Tensor):
                continue  # A tied tensor has several names.
            # It counts batches for momentum=None; Keras has no such thing.
            if not name.endswith("num_batches_tracked"):
                self._report.missing.append(name)

    def proposal(
        self, plan: Destinations, rules: list[CompiledRule], changes: Mapping[str, Renamed]
    ) -> Proposal:
        """Rules for names without a destination, and for modules whose weights do not fit."""
        from tensor_bridge.checkpoint.into_module._propose import propose, unsettled
        from tensor_bridge.checkpoint.into_module._search import Search

        free, wanted = unsettled(self._report, self._places, plan, changes, self.misfits)
        options = self._flat, self._made_with
        search = Search(self._places, self._given, changes, *options, free, wanted)
        return propose(search, rules, plan)


def _misfit(x: torch.Tensor, target: torch.Tensor, cast: bool, assign: bool) -> str | None:
    """Why a value cannot be written to a tensor."""
    import torch

    if x.shape != target.shape:
        return f"expected the shape {tuple(target.shape)}, got {tuple(x.shape)}"
    if (target.is_floating_point() or target.is_complex()) and not (
        x.is_floating_point() or x.is_complex()
    ):
        return (
            f"expected {target.dtype}, got the integers of {x.dtype}; what a quantized layer keeps "
            "is a weight only with its scale, and other integers are to be converted before"
        )
    if not cast and torch.promote_types(x.dtype, target.dtype) != target.dtype:
        return f"{x.dtype} does not fit into {target.dtype}; cast=True rounds"
    if assign and x.dtype.is_floating_point != target.dtype.is_floating_point:
        return f"{x.dtype} cannot take the place of {target.dtype}; without assign it is converted"
    return None
