"""Rules that begin with "^" and a text. The text is looked up, which is fast for many rules.

Not for: the caller's rules, which may have any form (_rules.py).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from tensor_bridge.checkpoint.into_module._rules import Renamed, Rule

_HEAD = re.compile(r"\^((?:[^\\()$]|\\[^\d\w])*)")


class AnchoredRule:
    """A rule as _generalize.py makes them: "^", an escaped text, and maybe groups for numbers.

    Attributes:
      rule: The rule.
      head: The text with which every matching name begins.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        match = _HEAD.match(rule.pattern)
        assert match is not None
        self.head = re.sub(r"\\(.)", r"\1", match[1])
        rest = rule.pattern[match.end() :]
        self._whole = rest == "$"
        # Compiling an expression takes longer than using it.
        self._expression = None if rest in ("", "$") else re.compile(rule.pattern)

    def apply(self, name: str) -> str | None:
        """The new name; the old name if the rule drops it; None if the rule does not match."""
        replacement = self.rule.replacement
        if self._expression is None:
            if not (name == self.head if self._whole else name.startswith(self.head)):
                return None
            return name if replacement is None else replacement + name[len(self.head) :]
        match = self._expression.search(name)
        if match is None:
            return None
        return name if replacement is None else match.expand(replacement) + name[match.end() :]

    def among(self, names: Sequence[str]) -> Iterator[tuple[str, str]]:
        """The names, out of sorted ones, that the rule matches, each with its result."""
        for i in range(bisect_left(names, self.head), len(names)):
            if not names[i].startswith(self.head):
                return
            if (made := self.apply(names[i])) is not None:
                yield names[i], made


def renamed_by(rules: Sequence[AnchoredRule], names: Sequence[str]) -> dict[str, Renamed]:
    """The results of applying the rules to each name, one rule after the other."""
    by_head: dict[str, list[int]] = {}
    for i, rule in enumerate(rules):
        by_head.setdefault(rule.head, []).append(i)
    lengths = sorted({len(head) for head in by_head})
    return {name: _renamed(name, rules, by_head, lengths) for name in names}


def _renamed(
    name: str, rules: Sequence[AnchoredRule], by_head: dict[str, list[int]], lengths: list[int]
) -> Renamed:
    text, layout, start = name, None, 0
    while True:
        heads = (text[:length] for length in lengths if length <= len(text))
        numbers = sorted(i for head in heads for i in by_head.get(head, ()) if i >= start)
        found = next(
            ((i, made) for i in numbers if (made := rules[i].apply(text)) is not None), None
        )
        if found is None:
            return Renamed(text, layout, start > 0)
        start, text = found[0] + 1, found[1]
        rule = rules[found[0]].rule
        if rule.replacement is None:
            return Renamed(None, None, True)
        layout = rule.layout or layout
