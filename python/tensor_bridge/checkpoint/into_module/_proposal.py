"""Rules that are proposed, as a text to paste."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tensor_bridge._printable import printable

if TYPE_CHECKING:
    from tensor_bridge.checkpoint.into_module._rules import Rule


@dataclass(frozen=True)
class Proposal:
    """Rules with comments.

    Attributes:
      rules: All rules to pass to `load_into`.
      notes: A comment for each rule, or "".
    """

    rules: tuple[Rule, ...] = ()
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rules)

    def __str__(self) -> str:
        lines = ["rules=["]
        for rule, note in zip(self.rules, self.notes, strict=True):
            parts = [
                _raw(rule.pattern),
                "None" if rule.replacement is None else _raw(rule.replacement),
            ]
            if rule.layout is not None:
                parts.append(f'"{rule.layout}"')
            lines.append(f"    ({', '.join(parts)}),{f'  # {note}' if note else ''}")
        return "\n".join(map(printable, [*lines, "]"]))


def _raw(text: str) -> str:
    """A string as a Python literal; a raw one if it holds backslashes and can be raw."""
    plain = text == printable(text) and '"' not in text
    if plain and "\\" in text and not text.endswith("\\"):
        return f'r"{text}"'
    return f'"{text}"' if plain and "\\" not in text else repr(text)
