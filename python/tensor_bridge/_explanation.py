"""What a conversion would do, as a small printable object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tensor_bridge.errors import BY_STATUS

__all__ = ["Explanation", "StructureExplanation", "from_native", "refused"]

_ACTIONS: tuple[Literal["shared"], Literal["copied"], Literal["refused"]] = (
    "shared",
    "copied",
    "refused",
)
_ON_WRITE = ("copy", "raise", "alias")


@dataclass(frozen=True)
class Explanation:
    """What `convert_tf_to_pytorch` would do with a value, and why.

    Attributes:
      action: "shared": torch would show TensorFlow's memory. "copied": it would get memory of its
        own. "refused": the conversion would raise ``error``.
      reason: One or two sentences.
      tf_dtype: TensorFlow's name of the dtype, or None.
      torch_dtype: torch's name of the result's dtype, or None where refused.
      shape: Shape of the result, or None where it is not known.
      device: torch's name of the result's device, or None where refused.
      nbytes: Bytes of the result, or None where refused.
      on_write: What the first write would do; None where the result owns its memory.
      error: The exception that the conversion would raise, or None.
    """

    action: Literal["shared", "copied", "refused"]
    reason: str
    tf_dtype: str | None = None
    torch_dtype: str | None = None
    shape: tuple[int, ...] | None = None
    device: str | None = None
    nbytes: int | None = None
    on_write: str | None = None
    error: type[Exception] | None = None

    def __str__(self) -> str:
        if self.action == "refused":
            name = "" if self.error is None else f" ({self.error.__name__})"
            dtype = "" if self.tf_dtype is None else f" {self.tf_dtype}"
            return f"refused{name}{dtype}: {self.reason}"
        parts = [
            f"{self.tf_dtype} -> {self.torch_dtype}",
            f"shape {self.shape}",
            f"{self.nbytes} bytes",
            f"on {self.device}",
        ]
        if self.on_write is not None:
            parts.append(f"on_write={self.on_write!r}")
        return f"{self.action}: {', '.join(parts)}; {self.reason}"


@dataclass(frozen=True)
class StructureExplanation:
    """What a conversion would do with each leaf of a nested structure.

    Attributes:
      leaves: (path, explanation) of every leaf that is not plain data, in order.
    """

    leaves: tuple[tuple[str, Explanation], ...]

    @property
    def action(self) -> Literal["shared", "copied", "refused"]:
        """The worst of the leaves: "refused", else "copied", else "shared"."""
        actions = {explanation.action for _, explanation in self.leaves}
        if "refused" in actions or not actions:
            return "refused"
        return "copied" if "copied" in actions else "shared"

    @property
    def nbytes(self) -> int:
        """Bytes of all results together."""
        return sum(explanation.nbytes or 0 for _, explanation in self.leaves)

    def __str__(self) -> str:
        width = max((len(path) for path, _ in self.leaves), default=0)
        lines = [f"{path:<{width}}  {explanation}" for path, explanation in self.leaves]
        counts = {action: sum(e.action == action for _, e in self.leaves) for action in _ACTIONS}
        total = ", ".join(f"{count} {action}" for action, count in counts.items() if count)
        return "\n".join([*lines, f"{len(self.leaves)} values: {total or 'none'}"])


_Native = tuple[int, int, int, "tuple[int, ...] | None", int, str, str, str, str]


def from_native(native: _Native) -> Explanation:
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
    )


def refused(error: Exception) -> Explanation:
    """The object for a value whose conversion raises ``error``."""
    return Explanation(action="refused", reason=str(error), error=type(error))
