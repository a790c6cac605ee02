"""pytest's plugin of the rig, `-p emulator_plugin`: tests run on the emulated device, not a GPU.

A test that passed fails if the device saw a violation meanwhile, unless the test took it
(`emulator.take_violations`). Kernels without a stand-in are reported, since what they should have
computed is missing.
"""

from __future__ import annotations

from collections.abc import Generator

import emulator
import pytest

_MAX_SHOWN = 10
_missing: dict[str, list[str]] = {}

emulator.load()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fails the test for what the device saw during its call or its fixtures' end."""
    report = yield
    if call.when == "setup":
        return report
    missing = sorted(set(emulator.take_missing_kernels()))
    if missing:
        _missing[item.nodeid] = missing
        report.sections.append(("kernels without a stand-in", "\n".join(missing)))
    violations = list(dict.fromkeys(emulator.take_violations()))
    if violations:
        report.sections.append(("violations", "\n".join(violations)))
        if report.passed:
            report.outcome = "failed"
            report.longrepr = "the emulated device saw:\n" + "\n".join(violations[:_MAX_SHOWN])
    return report


def pytest_report_header() -> str:
    """What the tests run on."""
    return f"emulated device, not a GPU; mode {emulator.mode()}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which kernels did nothing."""
    for test, kernels in _missing.items():
        terminalreporter.write_line(f"no stand-in in {test}: {', '.join(kernels)}")
