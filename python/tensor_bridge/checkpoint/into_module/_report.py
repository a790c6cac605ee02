"""The report of `load_into`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING

from tensor_bridge._printable import printable

if TYPE_CHECKING:
    from tensor_bridge.checkpoint.into_module._proposal import Proposal
    from tensor_bridge.checkpoint.into_module._rules import Rule

# Names are compared with each other for hints; above this many names there are no hints.
_HINTS = 20
_COMPARED = 200


@dataclass(frozen=True)
class Loaded:
    """One tensor of the module.

    Attributes:
      target: Its name in the module's ``state_dict``.
      sources: Names in the checkpoint; none for a tensor that the layer lacks, which gets values
        that have no effect.
      shape: Its shape.
      stored: The shapes of the sources.
    """

    target: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    stored: tuple[tuple[int, ...], ...]


@dataclass
class Report:
    """What `load_into` did, or would have done.

    Attributes:
      loaded: Tensors with a source.
      missing: Tensors of the module without a source.
      unused: Names in the checkpoint without a target.
      unnamed: Names in ``unused`` that only count layers by class, because the file lacks the
        layers' names. Only a rule places them, because a match of names would be chance.
      ignored: Names that a rule drops, or that only training needs.
      problems: Values that do not fit, one text for each.
      differences: What the module computes differently from the Keras model that the checkpoint
        describes, one text for each.
      written: Whether the values are in the module.
    """

    loaded: list[Loaded] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    written: bool = False
    _propose: Callable[[], Proposal] | None = field(default=None, repr=False, compare=False)
    _proposed: Proposal | None = field(default=None, repr=False, compare=False)

    @property
    def complete(self) -> bool:
        """Whether every tensor has a source, every name a target, and nothing differs."""
        return not (self.missing or self.unused or self.problems or self.differences)

    @property
    def proposal(self) -> list[Rule]:
        """Rules that would place further names, to be added after the given rules.

        They are found by shapes, names and order; empty if none are found. `load_into` never
        applies them: check them first. The text of the report has them ready to paste, and marks
        those that are guesses.
        """
        proposed = self._proposal()
        return list(proposed.rules) if proposed else []

    def propose_with(self, propose: Callable[[], Proposal]) -> None:
        """Sets the function that finds proposals on request; `load_into` does."""
        self._propose = propose

    def _proposal(self) -> Proposal | None:
        if self._propose is not None:
            self._proposed, self._propose = self._propose(), None
        return self._proposed

    def __str__(self) -> str:
        lines = [self._headline()]
        width = max((len(printable(item.target)) for item in self.loaded), default=0)
        lines += [f"  {_line(item, width)}" for item in self.loaded]
        # A path that counts layers resembles another layer's name only by chance.
        unnamed = set(self.unnamed)
        named = [name for name in self.unused if name not in unnamed]
        for title, names, others in (
            ("missing", self.missing, named),
            ("unused", self.unused, self.missing),
        ):
            for i, name in enumerate(names):
                hint = _alike(name, others) if i < _HINTS and name not in unnamed else ""
                lines.append(f"  {title}: {name}{hint}")
        if self.unnamed:
            lines.append(
                f"  {_count(self.unnamed, 'name')} of these only count layers by their class, as "
                "the file does not say what its layers are called: only rules place them"
            )
        lines += [f"  problem: {problem}" for problem in self.problems]
        lines += [f"  differs: {difference}" for difference in self.differences]
        if self.differences and not self.written:
            lines.append("  compare=False: the module's own code makes up for what differs")
        proposed = self._proposal()
        if proposed:
            lines += ["  proposed by shapes and names, not applied:", *str(proposed).split("\n")]
        return "\n".join(map(printable, lines))

    def _headline(self) -> str:
        if self.written:
            return (
                f"{len(self.loaded)} loaded, {len(self.missing)} missing, {len(self.unused)} "
                f"unused, {len(self.ignored)} ignored, {len(self.problems)} problems"
            )
        faults = [
            text
            for names, text in (
                (self.problems, _count(self.problems, "problem")),
                (self.missing, f"{len(self.missing)} missing"),
                (self.unused, f"{len(self.unused)} unused"),
                (self.differences, _count(self.differences, "difference")),
            )
            if names
        ]
        ignored = f", {_count(self.ignored, 'name')} ignored" if self.ignored else ""
        return (
            f"nothing was loaded: {', '.join(faults)}. {_count(self.loaded, 'tensor')} would have "
            f"been loaded{ignored}"
        )


def _count(things: list[str] | list[Loaded], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def _line(item: Loaded, width: int) -> str:
    start = f"{printable(item.target):<{width}} {item.shape} <- "
    if not item.sources:
        return f"{start}nothing, as the layer leaves it out"
    stored = " ".join(str(shape) for shape in item.stored)
    change = "" if item.stored == (item.shape,) else f"  from {stored}"
    return f"{start}{', '.join(item.sources)}{change}"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower().rsplit("/", 1)[0].rsplit(".", 1)[0])


def _alike(name: str, others: list[str]) -> str:
    """A hint with the most similar names on the other side."""
    by_plain: dict[str, list[str]] = {}
    for other in others[:_COMPARED]:
        by_plain.setdefault(_plain(other), []).append(other)
    near = get_close_matches(_plain(name), list(by_plain), n=2, cutoff=0.6)
    found = [other for plain in near for other in by_plain[plain]][:3]
    return f" (near: {', '.join(found)})" if found else ""
