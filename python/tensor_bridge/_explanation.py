"""What a conversion would do, as a small printable object."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tensor_bridge import _refusals
from tensor_bridge._loaded import version_pair
from tensor_bridge._printable import printable
from tensor_bridge.errors import BY_STATUS, CopyRequiredError

_ACTIONS: tuple[Literal["shared"], Literal["copied"], Literal["refused"]] = (
    "shared",
    "copied",
    "refused",
)
Direction = Literal["to_torch", "to_tf"]
_ON_WRITE = ("copy", "raise", "alias")


def _copied_at_first_write() -> str:
    # torch before 2.13 does not ask whether TensorFlow still holds the memory.
    torch = sys.modules.get("torch")
    always = torch is not None and version_pair(torch.__version__) < (2, 13)
    return "copied at the first write" + ("" if always else " if TensorFlow still holds it")


# Without a terminal: what fits a page and a log.
_COLUMNS = 80

# A part of a composite or of a structure: how far its text is indented, its name, and the text.
_Line = tuple[int, str, str]


def _wrapped(lines: Sequence[_Line]) -> str:
    """The lines, broken to the terminal's width; what follows a break is indented further."""
    columns = shutil.get_terminal_size((_COLUMNS, 24)).columns
    wrapped = []
    for indent, name, text in lines:
        # Under the text after the path of a leaf; the name of a part begins its text.
        hanging = len(name) if name.endswith("  ") else 4
        wrapped += textwrap.wrap(
            name + text,
            max(40, columns),
            initial_indent=" " * indent,
            subsequent_indent=" " * min(indent + hanging, columns // 3),
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(wrapped)


class _Printed:
    """What prints as its text, in an interpreter too."""

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, repr=False)
class Explanation(_Printed):
    """What a conversion would do with a value, and why.

    It prints as a text that is wrapped to the width of the terminal.

    Attributes:
      action: "shared": the result would show the source's memory. "copied": it would get memory of
        its own. "refused": the conversion would raise ``error``.
      reason: Why, in one or two sentences.
      tf_dtype: TensorFlow's name of the dtype, or None.
      torch_dtype: torch's name of the result's dtype, or None where refused.
      shape: Shape of the result, with None for a ragged dimension; None where it is not known.
      device: torch's name of the result's device, or None where refused.
      nbytes: Bytes of the result, or None where refused.
      on_write: What the first write to the result would do; None where the result owns its memory.
        "copy" happens only if TensorFlow still holds the memory at that time.
      error: The exception that the conversion would raise, or None.
      kind: Name of the composite, or None for one dense tensor.
      parts: (name, explanation) of the tensors that a composite is made of.
      direction: "to_torch" or "to_tf"; None where the value has no way to the other framework.
    """

    action: Literal["shared", "copied", "refused"]
    reason: str
    tf_dtype: str | None = None
    torch_dtype: str | None = None
    shape: tuple[int | None, ...] | None = None
    device: str | None = None
    nbytes: int | None = None
    on_write: str | None = None
    error: type[Exception] | None = None
    kind: str | None = None
    parts: tuple[tuple[str, Explanation], ...] = ()
    direction: Direction | None = None

    def __str__(self) -> str:
        return _wrapped(self._lines(0, ""))

    def _lines(self, indent: int, name: str) -> list[_Line]:
        """The text, and those of the parts beneath it."""
        lines = [(indent, name, self._line())]
        inner = indent + (len(name) or 2)
        for part_name, part in self.parts:
            lines += part._lines(inner, f"{printable(part_name)}: ")
        return lines

    def _line(self) -> str:
        if self.action == "refused":
            name = "" if self.error is None else f" ({self.error.__name__})"
            dtype = "" if self.tf_dtype is None else f" {self.tf_dtype}"
            return f"refused{name}{dtype}: {self.reason}"
        facts = []
        if self.kind is not None:
            facts.append(self.kind)
        if self.tf_dtype is not None or self.torch_dtype is not None:
            names = (str(self.tf_dtype), str(self.torch_dtype))
            facts.append(" -> ".join(reversed(names) if self.direction == "to_tf" else names))
        if self.shape is not None or self.kind is None:
            facts.append(f"shape {self.shape}")
        facts.append(f"{self.nbytes} bytes")
        if self.device is not None or self.kind is None:
            facts.append(f"on {self.device}")
        if self.on_write == "copy":
            facts.append(_copied_at_first_write())
        elif self.on_write is not None:
            facts.append(f"on_write={self.on_write!r}")
        return f"{self.action}: {', '.join(facts)}; {self.reason}"


@dataclass(frozen=True, repr=False)
class StructureExplanation(_Printed):
    """What a conversion would do with each leaf of a nested structure; prints as `Explanation`.

    Attributes:
      leaves: (path, explanation) of every leaf that is not plain data, in order.
    """

    leaves: tuple[tuple[str, Explanation], ...]

    @property
    def action(self) -> Literal["shared", "copied", "refused"]:
        """The worst of the leaves' actions, "refused" before "copied" before "shared"."""
        actions = {explanation.action for _, explanation in self.leaves}
        if "refused" in actions or not actions:
            return "refused"
        return "copied" if "copied" in actions else "shared"

    @property
    def nbytes(self) -> int:
        """Bytes of all results together."""
        return sum(explanation.nbytes or 0 for _, explanation in self.leaves)

    def __str__(self) -> str:
        paths = [printable(path) for path, _ in self.leaves]
        width = max(map(len, paths), default=0)
        lines: list[_Line] = []
        for path, (_, explanation) in zip(paths, self.leaves, strict=True):
            lines += explanation._lines(0, f"{path:<{width}}  ")
        counts = {action: sum(e.action == action for _, e in self.leaves) for action in _ACTIONS}
        total = ", ".join(f"{count} {action}" for action, count in counts.items() if count)
        return _wrapped([*lines, (0, "", f"{len(self.leaves)} values: {total}")])


_Native = tuple[int, int, int, "tuple[int, ...] | None", int, str, str, str, str]


def from_native(native: _Native, direction: Direction) -> Explanation:
    """The object for the tuple that the extension returns."""
    action, status, on_write, shape, nbytes, tf_dtype, torch_dtype, device, reason = native
    return Explanation(
        action=_ACTIONS[action],
        reason=reason,
        tf_dtype=tf_dtype or None,
        torch_dtype=torch_dtype or None,
        shape=shape,
        device=device or None,
        nbytes=None if nbytes < 0 else nbytes,
        on_write=None if on_write < 0 else _ON_WRITE[on_write],
        error=BY_STATUS.get(status),
        direction=direction,
    )


LIST_REASON = "nested lists of bytes: every string becomes a Python object"
"""Why strings="list" is a copy."""


def of_strings(explanation: Explanation, *, as_list: bool = False) -> Explanation:
    """The object for a string tensor, from the extension's explanation of a dense tensor."""
    if as_list and explanation.error is CopyRequiredError:
        explanation = replace(explanation, reason=_refusals.copy_refusal(LIST_REASON))
    elif as_list and explanation.error is None:
        explanation = replace(
            explanation, reason=LIST_REASON, torch_dtype=None, device=None, nbytes=None
        )
    return replace(explanation, kind="string")


def refused(error: Exception) -> Explanation:
    """The object for a value whose conversion raises ``error``."""
    return Explanation(action="refused", reason=str(error), error=type(error))


def copied(explanation: Explanation, reason: str) -> Explanation:
    """The explanation of a part that its composite makes a copy of, for ``reason``."""
    if explanation.action == "refused":
        return explanation
    return replace(explanation, action="copied", reason=reason, on_write=None)


def combined(
    kind: str | Callable[[], tuple[str, tuple[int | None, ...]]],
    parts: Sequence[tuple[str, Explanation]],
) -> Explanation:
    """The object for a composite: the worst of its parts, and their bytes together.

    Args:
      kind: Name of the composite; or a function that returns it and the shape of the result. With
        a function, dtypes, device and write policy are those of the first part.
      parts: (name, explanation) in the order of conversion.
    """
    for name, part in parts:
        if part.action == "refused":
            return Explanation("refused", f"{name}: {part.reason}", part.tf_dtype, error=part.error)
    copied = [name for name, part in parts if part.action == "copied"]
    if not parts:
        reason = "it has no parts"
    elif not copied:
        reason = "every part is shared"
    elif len(copied) == len(parts):
        reason = "every part is copied"
    else:
        reason = f"copied: {', '.join(copied)}; the rest is shared"
    direction = parts[0][1].direction if parts else None
    shape, like = None, Explanation("shared", "", direction=direction)
    if not isinstance(kind, str):
        kind, shape = kind()
        like = parts[0][1]
    return replace(
        like,
        action="copied" if copied else "shared",
        reason=reason,
        shape=shape,
        nbytes=sum(part.nbytes or 0 for _, part in parts),
        kind=kind,
        parts=tuple(parts),
    )
