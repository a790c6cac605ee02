"""`tensor-bridge doctor`: finds out about this installation, and reports.

The facts are gathered first (`_facts`, which tries conversions in separate processes, `_trial`),
then judged (`_checks`), then shown (`_report`). Not for: conversions; the package does not use it.
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
