"""Rules for names that do not fit, proved to place these names and nothing else.

Not for: finding out what belongs where (_search.py); how renamings become rules (_generalize.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tensor_bridge.checkpoint.into_module._destinations import Destinations, destinations
from tensor_bridge.checkpoint.into_module._generalize import Rewrite, literal_rules, rules_for
from tensor_bridge.checkpoint.into_module._matching import tokens
from tensor_bridge.checkpoint.into_module._proposal import Proposal
from tensor_bridge.checkpoint.into_module._report import Report
from tensor_bridge.checkpoint.into_module._rules import CompiledRule, Renamed, Rule

if TYPE_CHECKING:
    from tensor_bridge.checkpoint.into_module._places import Places
    from tensor_bridge.checkpoint.into_module._search import Search


def unsettled(
    report: Report,
    places: Places,
    plan: Destinations,
    changes: Mapping[str, Renamed],
    misfits: Iterable[str],
) -> tuple[list[str], list[str]]:
    """Names and tensors for which a proposal is made.

    These are names without a destination and tensors without a source; modules whose weights do not
    fit; and modules whose names differ from these only in numbers: if layers 1 to 3 belong to
    modules 0 to 2, two of them fit by chance.
    """
    free = dict.fromkeys(report.unused)
    wanted = dict.fromkeys(report.missing)
    names = {_uncounted(changes[name].name or "") for name in free}
    tensors = {_uncounted(target) for target in wanted}
    paths = dict.fromkeys(misfits)
    for path, roles in plan.groups.items():
        own = places.own_tensors(path)
        if any(
            _uncounted(target) in tensors and "#" in _uncounted(target) for target in own
        ) and all(_uncounted(changes[name].name or "") in names for name in roles.values()):
            paths[path] = None
    for path in paths:
        free.update(dict.fromkeys(plan.groups.get(path, {}).values()))
        wanted.update(dict.fromkeys(places.own_tensors(path)))
    return list(free), list(wanted)


def _uncounted(name: str) -> tuple[str, ...]:
    return tuple("#" if word.isdigit() else word for word in tokens(name))


def propose(search: Search, rules: list[CompiledRule], plan: Destinations) -> Proposal:
    """Rules for the results of a search, to be applied after the caller's.

    Args:
      search: The search among free names and wanted tensors.
      rules: The caller's rules.
      plan: The destinations by the caller's rules.
    """
    renamings = search.run()
    drops = search.drops()
    rewrites = [*drops, *rules_for(renamings, search.kept)]
    if not _does_it(rewrites, search, plan):
        rewrites = [*drops, *literal_rules(renamings)]
        if not _does_it(rewrites, search, plan):
            return Proposal()
    if not rewrites:
        return Proposal()
    own = tuple(Rule(rule.pattern.pattern, rule.replacement, rule.layout) for rule in rules)
    return Proposal(
        (*own, *(each.rule for each in rewrites)),
        (*("" for _ in own), *(each.note for each in rewrites)),
    )


def _does_it(rewrites: list[Rewrite], search: Search, plan: Destinations) -> bool:
    """Whether the rules have the intended effect and no other."""
    found = destinations(search.places, search.given, search.changed_by(rewrites), Report())
    where, before = _whereabouts(found), _whereabouts(plan)
    expected = {name: place for name, place in before.items() if name not in search.text_of}
    # Names that stay unplaced may keep their present, unfitting destination.
    left = search.left()
    expected.update((n, before[n]) for n in left if n in before and before[n] == where.get(n))
    for each in rewrites:
        for renaming in each.stands_for:
            for text in renaming.names:
                expected[search.name_of[text]] = search.place_of(renaming, text)
    return where == expected


def _whereabouts(plan: Destinations) -> dict[str, tuple[str, str]]:
    """For each placed name, the module and the role, or the tensor and the layout."""
    where = {
        name: (path, role) for path, roles in plan.groups.items() for role, name in roles.items()
    }
    where.update((name, (target, layout)) for target, (name, layout) in plan.placed.items())
    return where
