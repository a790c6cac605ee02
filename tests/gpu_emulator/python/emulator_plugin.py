"""pytest's plugin of the rig, `-p emulator_plugin`: tests run on the emulated device, not a GPU.

A test that passed fails if there was a violation on the device, unless the test took it
(`emulator.take_violations`). Kernels without a stand-in are reported, because their results are
missing.
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
    """Fails the test for violations during its call or the end of its fixtures."""
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
    """Says that the tests run on the emulated device."""
    return f"emulated device, not a GPU; mode {emulator.mode()}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Lists the kernels that did nothing."""
    for test, kernels in _missing.items():
        terminalreporter.write_line(f"no stand-in in {test}: {', '.join(kernels)}")
