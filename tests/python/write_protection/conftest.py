"""Fixtures for the write-protection tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from guard import Guard, guard


@pytest.fixture
def armed_guard() -> Iterator[Guard]:
    """The write detector, listening; it must have nothing left to say at the end."""
    detector = guard()
    with detector.armed():
        detector.reclaim()
        detector.take_faults()
        detector.take_changed_at_release()
        regions = detector.live_regions()
        yield detector
        assert detector.is_armed(), "somebody else took SIGSEGV during the test"
        assert detector.take_faults() == []
        assert detector.live_regions() == regions
        detector.reclaim()
