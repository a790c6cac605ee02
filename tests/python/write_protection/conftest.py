"""Fixtures for the write-protection tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from guard import Guard, guard


@pytest.fixture
def armed_guard() -> Iterator[Guard]:
    """The active write detector. At the end it must have no faults."""
    detector = guard()
    with detector.armed():
        detector.reclaim()
        detector.take_faults()
        detector.take_changed_at_release()
        regions = detector.live_regions()
        yield detector
        assert detector.is_armed(), "other code has replaced the handler of SIGSEGV"
        assert detector.take_faults() == []
        assert detector.live_regions() == regions
        detector.reclaim()
