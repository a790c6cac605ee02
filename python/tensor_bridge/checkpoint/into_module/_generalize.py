"""Rules from single renamings: one regular expression where several follow one pattern.

Not for: finding out what is renamed to what (_propose.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tensor_bridge.checkpoint.into_module._anchored import AnchoredRule
from tensor_bridge.checkpoint.into_module._rules import Rule


@dataclass(frozen=True)
class Renaming:
    """The replacement of one prefix of names, or of one whole name.

    Attributes:
      old: The prefix, with its last "/"; or the whole name.
      new: The replacement: the path of a module, or the name of a tensor.
      whole: Whether ``old`` is a whole name.
      names: The names that it renames.
      layout: As in `Rule`, for a whole name.
      note: A comment for the user.
    """

    old: str
    new: str
    whole: bool
    names: tuple[str, ...]
    layout: str | None = None
    note: str = ""

    def apply(self, name: str) -> str:
        """The new name, with dots or slashes."""
        if self.whole:
            return self.new
        rest = name[len(self.old) :]
        return f"{self.new}.{rest}" if self.new else rest


@dataclass
class Rewrite:
    """A rule, and the renamings that it stands for."""

    rule: Rule
    stands_for: list[Renaming] = field(default_factory=list)

    @property
    def note(self) -> str:
        """The first note of any of them."""
        return next((each.note for each in self.stands_for if each.note), "")


def literal_rules(renamings: Iterable[Renaming]) -> list[Rewrite]:
    """A rule for each renaming, ordered so that none changes the result of another."""
    return _ordered([Rewrite(_literal(each, each.old, each.new), [each]) for each in renamings])


def rules_for(renamings: list[Renaming], keep: Iterable[str]) -> list[Rewrite]:
    """As few rules as explain all renamings.

    Args:
      renamings: Of different names.
      keep: Names that no rule may change.
    """
    wanted = {name: each.apply(name) for each in renamings for name in each.names}
    of_name = {name: each for each in renamings for name in each.names}
    names = sorted({*wanted, *keep})
    support: dict[Rule, list[Renaming]] = {}
    for each in renamings:
        for rule in dict.fromkeys(_candidates(each)):
            support.setdefault(rule, []).append(each)
    chosen: list[Rewrite] = []
    left = {id(each): each for each in renamings}
    # The rule that explains most comes first; then the one with fewest groups, then the shortest.
    for rule in sorted(
        support, key=lambda r: (-len(support[r]), r.pattern.count("("), len(r.pattern), r.pattern)
    ):
        mine = [each for each in support[rule] if id(each) in left]
        if not mine or (len(mine) == 1 and len(support[rule]) > 1):
            continue
        if _is_sound(AnchoredRule(rule), names, wanted, len(mine), of_name):
            chosen.append(Rewrite(rule, mine))
            for each in mine:
                del left[id(each)]
    chosen += [Rewrite(_literal(each, each.old, each.new), [each]) for each in left.values()]
    number = {id(each): i for i, each in enumerate(renamings)}
    return _ordered(sorted(chosen, key=lambda r: number[id(r.stands_for[0])]))


# --- candidates -----------------------------------------------------------------------------------


def _candidates(each: Renaming) -> Iterator[Rule]:
    """Rules that explain a renaming, from those that may explain others too."""
    if not each.whole:
        old, new = _without_same_end(each.old, each.new)
        yield from _generalized(each, old, new)
        yield _literal(each, old, new)
    yield from _generalized(each, each.old, each.new)
    yield _literal(each, each.old, each.new)


def _without_same_end(old: str, new: str) -> tuple[str, str]:
    """Both names without their common last modules; at least one part of ``old`` stays."""
    parts = re.findall(r"[^/.]+[/.]|[^/.]+$", old)
    path = new.split(".") if new else []
    while len(parts) > 1 and path and re.fullmatch(re.escape(path[-1]) + "[/.]", parts[-1]):
        parts.pop()
        path.pop()
    return "".join(parts), ".".join(path)


def _literal(each: Renaming, old: str, new: str) -> Rule:
    return Rule(f"^{re.escape(old)}{'$' if each.whole else ''}", _end(each, new), each.layout)


def _end(each: Renaming, new: str) -> str:
    return new if each.whole or not new else f"{new}."


def _generalized(each: Renaming, old: str, new: str) -> Iterator[Rule]:
    """Rules with groups for the numbers that both names have."""
    numbers = list(re.finditer(r"\d+", old))
    groups: dict[int, int] = {}  # which number of the old name is which group
    chosen: list[int | None] = []
    for number in re.finditer(r"\d+", new):
        same = [i for i, m in enumerate(numbers) if m[0] == number[0] and i not in chosen]
        chosen.append(same[0] if same else None)
    for used in sorted(i for i in chosen if i is not None):
        groups[used] = len(groups) + 1
    if not groups:
        return
    pattern, last = "^", 0
    for i, m in enumerate(numbers):
        pattern += re.escape(old[last : m.start()])
        pattern += r"(\d+)" if i in groups else m[0]
        last = m.end()
    pattern += re.escape(old[last:]) + ("$" if each.whole else "")
    replacement, last = "", 0
    for m, which in zip(re.finditer(r"\d+", new), chosen, strict=True):
        # No digit may follow: it would be read as part of the group's number.
        replacement += new[last : m.start()] + (m[0] if which is None else f"\\{groups[which]}")
        last = m.end()
    yield Rule(pattern, _end(each, replacement + new[last:]), each.layout)


# --- what rules do --------------------------------------------------------------------------------


def _same(one: str, other: str) -> bool:
    return one.replace("/", ".") == other.replace("/", ".")


def _is_sound(
    rule: AnchoredRule,
    names: list[str],
    wanted: Mapping[str, str],
    gain: int,
    of_name: Mapping[str, Renaming],
) -> bool:
    """Whether earlier rules can handle the other names that a rule matches."""
    others: set[int] = set()
    for name, made in rule.among(names):
        if name not in wanted:
            return False
        if not _same(made, wanted[name]) or of_name[name].layout != rule.rule.layout:
            others.add(id(of_name[name]))
    return len(others) < gain


def _ordered(rewrites: list[Rewrite]) -> list[Rewrite]:
    """The rules in an order in which none changes names or results of a later one."""
    rules = [AnchoredRule(each.rule) for each in rewrites]
    owner = {
        name: i
        for i, each in enumerate(rewrites)
        for renaming in each.stands_for
        for name in renaming.names
    }
    names = sorted(owner)
    after: list[set[int]] = [set() for _ in rewrites]
    results: dict[str, int] = {}
    for i, rule in enumerate(rules):
        for name, made in rule.among(names):
            if owner[name] == i:
                results[made] = i
            else:
                after[i].add(owner[name])
    made_names = sorted(results)
    for i, rule in enumerate(rules):
        for name, _ in rule.among(made_names):
            if (other := results[name]) != i and other not in after[i]:
                after[other].add(i)
    return [rewrites[i] for i in _sorted(after)]


def _sorted(after: list[set[int]]) -> list[int]:
    """A topological order of the numbers; cycles are cut."""
    order: list[int] = []
    state = [0] * len(after)
    for start in range(len(after)):
        stack = [(start, iter(sorted(after[start])))] if not state[start] else []
        state[start] = state[start] or 1
        while stack:
            i, waiting = stack[-1]
            following = next((j for j in waiting if not state[j]), None)
            if following is None:
                order.append(i)
                stack.pop()
            else:
                state[following] = 1
                stack.append((following, iter(sorted(after[following]))))
    return order
