"""What `tensor-bridge doctor` finds out about this installation, and says.

Gathered first (`_facts`, with conversions tried in processes of their own, `_trial`), then judged
(`_checks`), then shown (`_report`). Not for the conversions: nothing of the package uses it.
"""

from __future__ import annotations

from tensor_bridge.doctor._checks import CHECKS
from tensor_bridge.doctor._facts import Facts, Trial, gather
from tensor_bridge.doctor._report import Finding, Report

__all__ = ["Facts", "Finding", "Report", "Trial", "examine", "gather"]


def examine(facts: Facts | None = None) -> Report:
    """Judges ``facts``, by default those of this machine, which takes some seconds to gather.

    Loads neither framework in this process.
    """
    if facts is None:
        facts = gather()
    return Report(facts, tuple(finding for check in CHECKS for finding in check(facts)))
