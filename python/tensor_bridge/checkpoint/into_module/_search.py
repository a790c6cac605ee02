"""The search for layers and modules that belong together although their names differ.

A layer of the checkpoint is a prefix of names whose suffixes are the roles that a layout takes. It
fits a module if the layout gives every tensor of the module its shape. Not for: choosing among
those that fit (_matching.py); using the result of a search (_propose.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tensor_bridge.checkpoint.into_module._anchored import AnchoredRule, renamed_by
from tensor_bridge.checkpoint.into_module._destinations import spelled
from tensor_bridge.checkpoint.into_module._fit import (
    Shape,
    fits_module,
    is_counter,
    kernel_becomes,
)
from tensor_bridge.checkpoint.into_module._generalize import Renaming, Rewrite
from tensor_bridge.checkpoint.into_module._layouts import has_parts, layout_of
from tensor_bridge.checkpoint.into_module._matching import Match, Side, matched
from tensor_bridge.checkpoint.into_module._rules import Renamed, Rule

if TYPE_CHECKING:
    from tensor_bridge.checkpoint.into_module._given import Given
    from tensor_bridge.checkpoint.into_module._made_with import MadeWith
    from tensor_bridge.checkpoint.into_module._places import Places

# More weights than any module has; a stacked bidirectional LSTM has most.
_MOST_WEIGHTS = 64
_MOST_DROPS = 8
# The part before the last "_" of a role is not a layer.
_ROLE_STARTS = ("recurrent", "depthwise", "pointwise", "moving", "running", "bias", "attention")


@dataclass(frozen=True)
class _Layer:
    """A prefix of names: ``start`` + role, or a whole name if there is no role."""

    start: str
    roles: tuple[tuple[str, str], ...]  # role and name


@dataclass(frozen=True)
class _Tensor:
    """One tensor of the module.

    ``exact`` if its module has a layout, which a rule for this tensor has to override.
    """

    target: str
    name: str
    shape: Shape
    exact: bool


class Search:
    """The search for renamings.

    Attributes:
      places: The module's paths and tensors.
      given: The checkpoint.
      text_of: For each free name, the result of the caller's rules.
      name_of: The reverse.
      kept: The results for names that have a place; no proposed rule may change them.
    """

    def __init__(
        self,
        places: Places,
        given: Given,
        changes: Mapping[str, Renamed],
        flat: Mapping[str, tuple[int, ...]],
        made_with: MadeWith,
        free: Iterable[str],
        wanted: Iterable[str],
    ) -> None:
        """Begins a search.

        Args:
          places: As above.
          given: As above.
          changes: The results of the caller's rules for each name.
          flat: As ``flattened`` of `load_into`.
          made_with: As ``made_with`` of `load_into`.
          free: Names without a destination, or with one that they do not fit.
          wanted: Tensors without a source, or with one that does not fit.
        """
        self.places = places
        self.given = given
        self._changes = changes
        self._flat = flat
        # Unknown options do not prevent a match: `load_into` asks for them later.
        self._made_with = replace(
            made_with,
            forget_bias=made_with.forget_bias or 0.0,
            reset_after=made_with.reset_after is not False,
        )
        self._fits: dict[Any, bool] = {}
        self._guessed = False
        self.text_of: dict[str, str] = {}
        self.name_of: dict[str, str] = {}
        for name in free:
            text = changes[name].name
            if text is None or changes[name].layout is not None or given.is_text(name):
                continue
            if text not in self.name_of:
                self.text_of[name], self.name_of[text] = text, name
        self.kept = [
            change.name
            for name, change in changes.items()
            if name not in self.text_of and change.name is not None
        ]
        self._left = dict.fromkeys(self.name_of)
        self._wanted = dict.fromkeys(wanted)
        self._same: dict[int, list[str]] = {}
        for target in self._wanted:
            self._same.setdefault(id(places.tensors[target]), []).append(target)

    def changed_by(self, rewrites: list[Rewrite]) -> dict[str, Renamed]:
        """The results of the caller's rules and then of these, for each name."""
        rules = [AnchoredRule(each.rule) for each in rewrites]
        texts = [change.name for change in self._changes.values() if change.name is not None]
        after = renamed_by(rules, texts)
        changed = {}
        for name, change in self._changes.items():
            if change.name is None:
                changed[name] = change
                continue
            last = after[change.name]
            layout = None if last.name is None else last.layout or change.layout
            changed[name] = Renamed(last.name, layout, change.by_rule or last.by_rule)
        return changed

    def run(self) -> list[Renaming]:
        """All renamings that were found."""
        found: list[Renaming] = []
        layers = self._layers()
        # Modules made from several layers come first: their parts look like layers themselves.
        for composite in (True, False):
            found += self._of_modules(layers, composite)
        return found + self._of_tensors()

    def left(self) -> list[str]:
        """Names for which nothing was found."""
        return [self.name_of[text] for text in self._left]

    def drops(self) -> list[Rewrite]:
        """Rules that drop the remaining names once every tensor has a source."""
        if self._wanted or not self._left:
            return []
        used = {_first(text) for text in [*self.kept, *self.name_of] if text not in self._left}
        starts: dict[str, int] = {}
        for text in self._left:
            first = _first(text)
            whole = first == text or first in used
            pattern = f"^{re.escape(text)}$" if whole else f"^{re.escape(first)}"
            starts[pattern] = starts.get(pattern, 0) + 1
        if len(starts) > _MOST_DROPS:
            return []
        rewrites = []
        for pattern, count in starts.items():
            names, them = ("name", "it") if count == 1 else ("names", "them")
            note = f"drops {count} {names}: no tensor is left for {them}"
            rewrites.append(Rewrite(Rule(pattern, None), [Renaming("", "", True, (), None, note)]))
        return rewrites

    def place_of(self, renaming: Renaming, text: str) -> tuple[str, str]:
        """The destination of a renaming, in the form of `_whereabouts`."""
        if renaming.layout is not None:
            target = self.places.tensor(renaming.new)
            assert target is not None
            return target, renaming.layout
        place = self.places.place(renaming.apply(text))
        return (place[0], spelled(place[1], self.name_of[text], self.given)) if place else ("", "")

    # --- whole modules ----------------------------------------------------------------------------

    def _layers(self) -> list[Side]:
        """Prefixes of names; those of most names come first, then the longest."""
        by_start: dict[str, list[str]] = {}
        for text in self.name_of:
            ends = [m.end() for m in re.finditer(r"[/.]", text)]
            last = ends[-1] if ends else 0
            cut = text.rfind("_", last)
            if cut > last and text[last:cut].lower() not in _ROLE_STARTS:
                ends.append(cut + 1)
            for end in ends:
                by_start.setdefault(text[:end], []).append(text)
        layers = []
        for start, texts in sorted(by_start.items(), key=lambda i: (-len(i[1]), -len(i[0]))):
            if len(texts) > _MOST_WEIGHTS:
                continue
            roles = {self._role(start, text): text for text in texts}
            if len(roles) < len(texts):
                continue
            known = all(self.given.named(self.name_of[text]) for text in texts)
            kind = tuple(sorted((role, self._shape(text)) for role, text in roles.items()))
            layers.append(Side(start, kind, _Layer(start, tuple(roles.items())), known))
        return layers

    def _role(self, start: str, text: str) -> str:
        return spelled(text[len(start) :].replace(".", "/"), self.name_of[text], self.given)

    def _shape(self, text: str) -> Shape:
        return self.given.shape(self.name_of[text])

    def _of_modules(self, layers: list[Side], composite: bool) -> list[Renaming]:
        from torch import nn

        targets = []
        for path, module in self.places.modules.items():
            if layout_of(module) is None:
                continue
            if composite != (has_parts(module) or isinstance(module, nn.Sequential)):
                continue
            own = [t for t in self.places.own_tensors(path) if not is_counter(t)]
            if own and all(target in self._wanted for target in own):
                kind = (type(module), repr(module), self._flat.get(path))
                targets.append(Side(path, kind, module))
        if not composite:
            targets += self._tensors(exact=False)
        seen: set[str] = set()
        sources = []
        kinds = _one_of_each(targets)
        for layer in layers:
            texts = [text for _, text in layer.value.roles]
            usable = all(text in self._left and text not in seen for text in texts)
            if usable and any(self._fit(layer, target) for target in kinds):
                sources.append(layer)
                seen.update(texts)
        first = {text: i for i, text in enumerate(self.name_of)}
        sources.sort(key=lambda layer: first[layer.value.roles[0][1]])
        if not composite:
            sources += [s for s in self._single_names() if s.name not in seen]
        return [self._renaming(match) for match in matched(sources, targets, self._fit)]

    def _fit(self, source: Side, target: Side) -> bool:
        key = source.kind, target.kind
        if key not in self._fits:
            self._fits[key] = self._try(source, target)
        return self._fits[key]

    def _try(self, source: Side, target: Side) -> bool:
        if isinstance(target.value, _Tensor):
            return self._form(source, target) is not None
        if not source.value.start:
            return False
        shapes = {role: self._shape(text) for role, text in source.value.roles}
        return fits_module(target.value, shapes, self._flat.get(target.name), self._made_with)

    # --- single tensors ---------------------------------------------------------------------------

    def _tensors(self, exact: bool) -> list[Side]:
        """Tensors without a source, of modules with a layout or of other modules."""
        sides = []
        for target in self._wanted:
            path = self.places.path_of(target)
            x = self.places.tensors[target]
            module = self.places.modules[path]
            if is_counter(target) or (layout_of(module) is not None) != exact:
                continue
            if has_parts(module):
                continue  # Its gates or heads have an order of their own.
            shape = tuple(x.shape) if not _is_uninitialized(x) else None
            if shape is not None:
                last = target.rpartition(".")[2]
                name = f"{path}.{last}" if path else last
                sides.append(Side(name, (shape, exact), _Tensor(target, name, shape, exact)))
        return sides

    def _single_names(self) -> list[Side]:
        return [
            Side(
                text,
                (("", self._shape(text)),),
                _Layer("", (("", text),)),
                self.given.named(self.name_of[text]),
            )
            for text in self._left
        ]

    def _form(self, source: Side, target: Side) -> str | None:
        """How one value goes into one tensor."""
        if len(source.value.roles) != 1:
            return None
        shape, wanted = self._shape(source.value.roles[0][1]), target.value.shape
        if not target.value.exact:
            return "as_is" if shape == wanted else None
        module = self.places.modules[self.places.path_of(target.value.target)]
        if len(shape) == 2 and shape[::-1] == wanted and not isinstance(module, _tables()):
            return "transposed"  # A square one too: TensorFlow has the inputs first.
        if shape == wanted:
            return "as_is"
        last = target.name.rpartition(".")[2]
        return "kernel" if last == "weight" and kernel_becomes(module, shape) == wanted else None

    def _of_tensors(self) -> list[Renaming]:
        """Matches the remaining tensors one by one; certain only if nothing before was a guess."""
        targets = [*self._tensors(exact=False), *self._tensors(exact=True)]
        matches = matched(self._single_names(), targets, self._fit)
        if self._guessed:
            matches = [Match(m.source, m.target, m.doubt or (m.target,)) for m in matches]
        return [self._renaming(match) for match in matches]

    def _renaming(self, match: Match) -> Renaming:
        """Notes a match, and removes its names and tensors from the remaining ones."""
        layer, value = match.source.value, match.target.value
        names = tuple(text for _, text in layer.roles)
        for text in names:
            self._left.pop(text, None)
        note = _doubt(match)
        self._guessed = self._guessed or bool(note)
        if isinstance(value, _Tensor):
            self._take([value.target])
            form = self._form(match.source, match.target) if value.exact else None
            if form is not None and len(value.shape) > 1 and value.shape == value.shape[::-1]:
                note = note or "a guess: it is square, and may be transposed or not"
            if form == "kernel":
                new = f"{value.name.removesuffix('weight')}kernel"
                return Renaming(names[0], new, True, names, None, note)
            return Renaming(names[0], value.name, True, names, form, note)
        self._take(self.places.own_tensors(match.target.name))
        return Renaming(layer.start, match.target.name, False, names, None, note)

    def _take(self, targets: list[str]) -> None:
        for target in targets:
            for name in self._same.get(id(self.places.tensors[target]), ()):
                self._wanted.pop(name, None)


def _tables() -> tuple[type, ...]:
    from torch import nn

    return nn.Embedding, nn.EmbeddingBag


def _first(text: str) -> str:
    """The outermost layer of a name, with its "/"; a name of one part as it is."""
    match = re.match(r"[^/.]+[/.]", text)
    return match[0] if match else text


def _one_of_each(sides: list[Side]) -> list[Side]:
    by_kind: dict[Any, Side] = {side.kind: side for side in sides}
    return list(by_kind.values())


def _doubt(match: Match) -> str:
    if not match.doubt:
        return ""
    others = [side.name for side in match.doubt if side is not match.target]
    if not others:
        return f"a guess: other names may fit {match.target.name!r} as well"
    return f"a guess: {' and '.join(map(repr, others))} would fit {match.source.name!r} too"


def _is_uninitialized(x: Any) -> bool:
    from torch.nn.parameter import is_lazy

    return bool(is_lazy(x))
