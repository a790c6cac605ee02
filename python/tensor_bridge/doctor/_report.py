"""Findings, and how they are shown: for readers and as JSON."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from tensor_bridge._C import __version__
from tensor_bridge._printable import printable

if TYPE_CHECKING:
    from tensor_bridge.doctor._facts import Facts

Level = Literal["error", "warning", "note"]

_WIDTH = 88


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing.

    Attributes:
      level: "error" if conversion is impossible, "warning" if something will go wrong or be slow,
        "note" if it depends on how the process is used.
      check: short name of the check, stable from release to release.
      text: what was found.
      remedy: what to do.
    """

    level: Level
    check: str
    text: str
    remedy: str


@dataclass(frozen=True)
class Report:
    """The findings, and the facts on which they are based."""

    facts: Facts
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """1 if conversion is impossible, otherwise 0."""
        return int(any(finding.level == "error" for finding in self.findings))

    def summary(self) -> dict[str, str]:
        """What is installed, which adapter, what is shared: name to value, for the first lines."""
        facts, trial = self.facts, self.facts.best_trial
        data: dict[str, Any] = trial.data if trial else {}
        lines = {
            "tensor_bridge": __version__,
            "python": f"{facts.python} on {facts.platform}",
            "tensorflow": data.get("tensorflow") or facts.tensorflow or "not installed",
            "torch": data.get("torch") or facts.torch or "not installed",
            "adapters": ", ".join(facts.adapters) or "none",
            "adapter in use": data.get("adapter") or "none",
            "tf to torch": data.get("to_torch", "not tried"),
            "write in torch": data.get("write", "not tried"),
            "torch to tf": data.get("to_tf", "not tried"),
        }
        for framework, gpus in data.get("gpus", {}).items():
            lines[f"GPUs of {framework}"] = ", ".join(gpus) or "none"
        return lines

    def to_json(self) -> str:
        """Everything, as one JSON object; keys may be added by later releases."""
        return json.dumps(
            {
                "ok": self.exit_code == 0,
                "summary": self.summary(),
                "findings": [asdict(finding) for finding in self.findings],
                "facts": asdict(self.facts),
            },
            indent=2,
        )

    def __str__(self) -> str:
        summary = self.summary()
        width = max(map(len, summary))
        lines = [printable(f"{name:<{width}}  {value}") for name, value in summary.items()]
        for finding in self.findings:
            lines.append("")
            head = f"{finding.level}: {finding.check}: "
            text, remedy = printable(head + finding.text), printable(finding.remedy)
            lines += textwrap.wrap(text, _WIDTH, subsequent_indent="  ")
            lines += textwrap.wrap(
                remedy, _WIDTH, initial_indent="  -> ", subsequent_indent="     "
            )
        lines.append("")
        counts = [
            f"{number} {level}{'s' if number != 1 else ''}"
            for level in ("error", "warning", "note")
            if (number := sum(finding.level == level for finding in self.findings))
        ]
        verdict = "conversion is not possible" if self.exit_code else "ready to convert"
        lines.append(f"{verdict}: {', '.join(counts) or 'nothing found'}")
        return "\n".join(lines)
