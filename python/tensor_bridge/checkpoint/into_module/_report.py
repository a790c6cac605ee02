"""What `load_into` tells of its work."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches

__all__ = ["Loaded", "Report"]


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
        for title, names, others in (
            ("missing", self.missing, self.unused),
            ("unused", self.unused, self.missing),
        ):
            for name in names:
                lines.append(f"  {title}: {name}{_alike(name, others)}")
        lines += [f"  problem: {problem}" for problem in self.problems]
        return "\n".join(lines)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower().rsplit("/", 1)[0].rsplit(".", 1)[0])


def _alike(name: str, others: list[str]) -> str:
    """A hint at the names on the other side that are most like this one."""
    by_plain: dict[str, list[str]] = {}
    for other in others:
        by_plain.setdefault(_plain(other), []).append(other)
    near = get_close_matches(_plain(name), list(by_plain), n=2, cutoff=0.6)
    found = [other for plain in near for other in by_plain[plain]][:3]
    return f" (near: {', '.join(found)})" if found else ""
