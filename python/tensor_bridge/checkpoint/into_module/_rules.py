"""Rules: how names of a checkpoint become names in a module. Not for: the rules of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tensor_bridge.errors import InvalidOptionError

if TYPE_CHECKING:
    AnyRule = tuple[str, str | None] | tuple[str, str | None, str | None]

LAYOUTS = ("as_is", "transposed")
_EXPECTED = (
    "(regular expression, replacement) or (regular expression, replacement, layout), the "
    "replacement a text or None, the layout 'as_is' or 'transposed'"
)


class Rule(NamedTuple):
    r"""How names in a checkpoint that match a pattern become names in a module.

    A plain tuple of two or three items has the same effect.

    Attributes:
      pattern: A regular expression; each match in a name is replaced (`re.sub`).
      replacement: The replacement, with ``\1`` for groups; None drops names that match.
      layout: With None the kind of the module decides the layout. With "as_is" or "transposed" the
        name after all rules is that of a tensor in the module's ``state_dict``, with dots or
        slashes, which gets the value unchanged or, with two dimensions, transposed.

    Example:
      >>> import torch
      >>> from tensor_bridge import checkpoint
      >>> model = torch.nn.ModuleDict({"head": torch.nn.Linear(2, 2)})
      >>> weights = {"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "b": torch.zeros(2)}
      >>> rules = [
      ...     checkpoint.Rule("^w$", "head/weight", "as_is"),
      ...     checkpoint.Rule("^b$", "head/bias", "as_is"),
      ... ]
      >>> print(checkpoint.load_into(model, weights, rules=rules))
      2 loaded, 0 missing, 0 unused, 0 ignored, 0 problems
        head.weight (2, 2) <- w
        head.bias   (2,) <- b
    """

    pattern: str
    replacement: str | None
    layout: str | None = None


@dataclass(frozen=True)
class CompiledRule:
    """A checked rule: `Rule` with its pattern compiled."""

    pattern: re.Pattern[str]
    replacement: str | None
    layout: str | None


def compiled(rules: Any) -> list[CompiledRule]:
    """The caller's rules, all checked before any is used.

    Raises:
      InvalidOptionError: They are not what `Rule` says.
    """
    if isinstance(rules, (str, bytes, Mapping)) or not isinstance(rules, Iterable):
        advice = "; rules=list(rules.items()) makes one" if isinstance(rules, Mapping) else ""
        raise InvalidOptionError(
            f"expected rules to be a list of {_EXPECTED}, got {_short(rules)}{advice}"
        )
    return [_compiled(rule) for rule in rules]


def _compiled(rule: Any) -> CompiledRule:
    if isinstance(rule, (str, bytes)) or not isinstance(rule, Iterable):
        advice = "; a single rule needs a list around it too" if isinstance(rule, str) else ""
        raise InvalidOptionError(f"expected a rule to be {_EXPECTED}, got {_short(rule)}{advice}")
    parts = tuple(rule)
    if len(parts) not in (2, 3):
        raise InvalidOptionError(
            f"expected a rule to be {_EXPECTED}, got {len(parts)} values: {_short(rule)}"
        )
    pattern, replacement, layout = (*parts, None)[:3]
    if not isinstance(pattern, (str, re.Pattern)) or not isinstance(replacement, (str, type(None))):
        raise InvalidOptionError(f"expected a rule to be {_EXPECTED}, got {_short(rule)}")
    if layout is not None and layout not in LAYOUTS:
        raise InvalidOptionError(
            f"expected the layout of a rule to be 'as_is', 'transposed' or None, got {layout!r} in "
            f"{_short(rule)}"
        )
    if layout is not None and replacement is None:
        raise InvalidOptionError(
            f"a rule that drops names has no layout, got {layout!r} in {_short(rule)}"
        )
    try:
        expression: re.Pattern[str] = re.compile(pattern)
        expression.sub(replacement or "", "")  # checks the groups that the replacement names
    except (re.error, IndexError, TypeError) as e:
        raise InvalidOptionError(f"the rule {_short(rule)} is no regular expression: {e}") from None
    return CompiledRule(expression, replacement, layout)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


class Renamed(NamedTuple):
    """A name after all rules.

    Attributes:
      name: The result; None if a rule drops the name.
      layout: The layout of the last matching rule that has one.
      by_rule: Whether any rule matches the name.
    """

    name: str | None
    layout: str | None
    by_rule: bool


def renamed(name: str, rules: Iterable[CompiledRule]) -> Renamed:
    """The result of applying the rules to a name."""
    name = re.sub(r":\d+$", "", name)  # "kernel:0" of TensorFlow 1
    layout, by_rule = None, False
    for rule in rules:
        if rule.replacement is None:
            if rule.pattern.search(name):
                return Renamed(None, None, True)
            continue
        name, count = rule.pattern.subn(rule.replacement, name)
        if count:
            by_rule = True
            layout = rule.layout or layout
    return Renamed(name, layout, by_rule)
