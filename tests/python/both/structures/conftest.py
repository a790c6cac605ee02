"""Both directions, for the tests of structures."""

from __future__ import annotations

import pytest
from ways import WAYS, Way


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]
