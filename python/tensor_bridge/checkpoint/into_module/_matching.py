"""Matches sources and targets, of which several fit, by number, name and order.

Not for: what fits (_propose.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

# Above this many pairs names are not compared one by one.
_PAIRS = 40_000


@dataclass(frozen=True, eq=False)
class Side:
    """A layer of the checkpoint, or a place in the module.

    Attributes:
      name: Its name, compared by its words and numbers.
      kind: All sides of one kind fit the same sides.
      known: Whether the name tells the layer.
      value: The caller's own object.
    """

    name: str
    kind: Hashable
    value: Any
    known: bool = True


@dataclass(frozen=True)
class Match:
    """A source and its target.

    Attributes:
      source: The layer of the checkpoint.
      target: The place in the module.
      doubt: If only order or the likeness of names decided, some of the other targets that fit; the
        target itself if only other sources fit it.
    """

    source: Side
    target: Side
    doubt: tuple[Side, ...] = ()


def matched(
    sources: Sequence[Side], targets: Sequence[Side], fits: Callable[[Side, Side], bool]
) -> list[Match]:
    """Pairs of sources and targets, each used once, in the order of the sources.

    A source and a target that fit only each other are a pair. If several fit, names decide without
    doubt when the sources' names equal the targets' names, apart from words that all names of one
    side share; numbers decide only after a word that both sides share. Everything else is a guess.

    Args:
      sources: In the order of the checkpoint.
      targets: In the order of the module.
      fits: Whether a source fits a target; called once for each pair of kinds.
    """
    found = [
        match
        for some, others in _components(sources, targets, fits)
        for match in _in_component(some, others, fits)
    ]
    order = {id(source): i for i, source in enumerate(sources)}
    return sorted(found, key=lambda match: order[id(match.source)])


def _components(
    sources: Sequence[Side], targets: Sequence[Side], fits: Callable[[Side, Side], bool]
) -> list[tuple[list[Side], list[Side]]]:
    """Sources and targets that are connected by what fits."""
    by_kind: tuple[dict[Hashable, list[Side]], dict[Hashable, list[Side]]] = ({}, {})
    for group, sides in zip(by_kind, (sources, targets), strict=True):
        for side in sides:
            group.setdefault(side.kind, []).append(side)
    components: list[tuple[list[Side], list[Side]]] = []
    rest = dict(by_kind[1])
    waiting = dict(by_kind[0])
    while waiting:
        some = waiting.pop(next(iter(waiting)))
        mine: list[list[Side]] = [some]
        theirs: list[list[Side]] = []
        grown = True
        while grown:
            new = [k for k, t in rest.items() if any(fits(s[0], t[0]) for s in mine)]
            theirs += [rest.pop(k) for k in new]
            more = [k for k, s in waiting.items() if any(fits(s[0], t[0]) for t in theirs)]
            mine += [waiting.pop(k) for k in more]
            grown = bool(new or more)
        if theirs:
            chosen = {id(side) for group in mine for side in group}
            others = {id(side) for group in theirs for side in group}
            components.append(
                (
                    [side for side in sources if id(side) in chosen],
                    [side for side in targets if id(side) in others],
                )
            )
    return components


def _in_component(
    sources: list[Side], targets: list[Side], fits: Callable[[Side, Side], bool]
) -> list[Match]:
    if len(sources) == len(targets) == 1:
        return [Match(sources[0], targets[0])]
    forced = _forced(sources, targets, fits)
    if forced is not None:
        rest = [s for s in sources if s is not forced.source]
        others = [t for t in targets if t is not forced.target]
        more = (_in_component(*pair, fits) for pair in _components(rest, others, fits))
        return [forced, *chain.from_iterable(more)]
    named = all(source.known for source in sources)
    pairs = _by_keys(sources, targets) if named else None
    if pairs is not None and all(fits(s, t) for s, t in pairs):
        return [Match(source, target) for source, target in pairs]
    pairs = _by_ranks(sources, targets) if named else None
    if pairs is None or not all(fits(s, t) for s, t in pairs):
        pairs = _by_likeness(sources, targets, fits)
    return [Match(s, t, _alternatives(s, t, targets, fits)) for s, t in pairs]


def _forced(
    sources: list[Side], targets: list[Side], fits: Callable[[Side, Side], bool]
) -> Match | None:
    """A pair that is forced if there are as many sources as targets: no other choice fits all."""
    if len(sources) != len(targets):
        return None
    ours = {side.kind: side for side in reversed(sources)}
    theirs = {side.kind: side for side in reversed(targets)}
    counts = (Counter(s.kind for s in sources), Counter(t.kind for t in targets))
    for source in ours.values():
        fitting = [t for t in theirs.values() if fits(source, t)]
        if len(fitting) == 1 and counts[1][fitting[0].kind] == 1 == counts[0][source.kind]:
            return Match(source, fitting[0])
    for target in theirs.values():
        fitting = [s for s in ours.values() if fits(s, target)]
        if len(fitting) == 1 and counts[0][fitting[0].kind] == 1 == counts[1][target.kind]:
            return Match(fitting[0], target)
    return None


def _alternatives(
    source: Side, target: Side, targets: list[Side], fits: Callable[[Side, Side], bool]
) -> tuple[Side, ...]:
    """Others that fit; the target itself if only the source has a choice, or none has."""
    others = (other for other in targets if other is not target and fits(source, other))
    return tuple(islice(others, 2)) or (target,)


# --- names ----------------------------------------------------------------------------------------


def tokens(name: str) -> tuple[str, ...]:
    """The words and numbers of a name: "net/firstConv_02" has net, first, conv and 2."""
    found: list[str] = []
    for part in re.findall(r"[A-Za-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)):
        word = re.fullmatch(r"(.*?)(\d*)", part)
        assert word is not None
        if word[1]:
            text = word[1].lower()
            plural = len(text) > 3 and text.endswith("s") and not text.endswith("ss")
            found.append(text[:-1] if plural else text)
        if word[2]:
            found.append(str(int(word[2])))
    return tuple(found)


def _keys(sides: Iterable[Side]) -> tuple[list[tuple[str, ...]], set[str]]:
    """The words that distinguish each name on its side, and the words that all names share."""
    words = [tokens(side.name) for side in sides]
    common = Counter(words[0])
    for each in words[1:]:
        common &= Counter(each)
    keys = []
    for each in words:
        left = Counter(common)
        key = []
        for word in each:
            if left[word] > 0:
                left[word] -= 1
            else:
                key.append(word)
        keys.append(tuple(key))
    return keys, {word for word in common if not word.isdigit()}


def _paired(
    sources: list[Side],
    targets: list[Side],
    keys: list[tuple[str, ...]],
    others: list[tuple[str, ...]],
) -> list[tuple[Side, Side]] | None:
    """Pairs of equal keys, if each key occurs exactly once on both sides."""
    by_key = dict(zip(others, targets, strict=True))
    if len(by_key) != len(targets) or len(set(keys)) != len(keys) or set(keys) != set(by_key):
        return None
    return [(source, by_key[key]) for source, key in zip(sources, keys, strict=True)]


def _by_keys(sources: list[Side], targets: list[Side]) -> list[tuple[Side, Side]] | None:
    keys, words = _keys(sources)
    others, other_words = _keys(targets)
    # An equal number does not make "dense_1" match "fc1": each library counts in its own order.
    if not words & other_words and not all(any(not w.isdigit() for w in key) for key in keys):
        return None
    return _paired(sources, targets, keys, others)


def _by_ranks(sources: list[Side], targets: list[Side]) -> list[tuple[Side, Side]] | None:
    """Pairs of names that count alike: one side from 1, the other from 0."""
    return _paired(sources, targets, _ranked(_keys(sources)[0]), _ranked(_keys(targets)[0]))


def _ranked(keys: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Each number replaced by its rank among the numbers at the same position of the names."""

    def place(key: tuple[str, ...], i: int) -> tuple[str, ...]:
        return tuple("#" if word.isdigit() else word for word in (*key[: i + 1], "", *key[i + 1 :]))

    there: dict[tuple[str, ...], set[int]] = {}
    for key in keys:
        for i, word in enumerate(key):
            if word.isdigit():
                there.setdefault(place(key, i), set()).add(int(word))
    ranks = {
        where: {n: str(i) for i, n in enumerate(sorted(all_))} for where, all_ in there.items()
    }
    return [
        tuple(
            ranks[place(key, i)][int(word)] if word.isdigit() else word
            for i, word in enumerate(key)
        )
        for key in keys
    ]


def _by_likeness(
    sources: list[Side], targets: list[Side], fits: Callable[[Side, Side], bool]
) -> list[tuple[Side, Side]]:
    """Pairs of the most similar names; among equally similar ones, the nearest in order."""
    counted = len({tuple(w for w in tokens(s.name) if not w.isdigit()) for s in sources}) == 1
    if counted:  # "layer-10" comes after "layer-2"
        sources = sorted(sources, key=lambda s: [int(w) for w in tokens(s.name) if w.isdigit()])
    if len(sources) * len(targets) > _PAIRS:
        return _in_order(sources, targets, fits)
    ours = [set(key) for key in _keys(sources)[0]]
    theirs = [set(key) for key in _keys(targets)[0]]
    scored = sorted(
        (-len(a & b) / max(1, len(a | b)), abs(i - j), i, j)
        for i, a in enumerate(ours)
        for j, b in enumerate(theirs)
        if fits(sources[i], targets[j])
    )
    used: tuple[set[int], set[int]] = (set(), set())
    pairs = []
    for _, _, i, j in scored:
        if i not in used[0] and j not in used[1]:
            used[0].add(i)
            used[1].add(j)
            pairs.append((sources[i], targets[j]))
    return pairs


def _in_order(
    sources: list[Side], targets: list[Side], fits: Callable[[Side, Side], bool]
) -> list[tuple[Side, Side]]:
    free = list(targets)
    pairs = []
    for source in sources:
        target = next((t for t in free if fits(source, t)), None)
        if target is not None:
            free.remove(target)
            pairs.append((source, target))
    return pairs
