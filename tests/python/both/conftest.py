"""Both directions of sharing, for tests that assert the same of both."""

from __future__ import annotations

import needs
import pytest
from ways import TO_TF, TO_TORCH, Way

WAYS = [
    pytest.param(TO_TORCH, id="to_torch"),
    pytest.param(TO_TF, id="to_tf", marks=needs.shares_to_tf),
]


@pytest.fixture(params=WAYS)
def sharing_way(request: pytest.FixtureRequest) -> Way:
    way: Way = request.param
    return way
