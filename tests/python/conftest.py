"""Fixtures of all Python tests: both interfaces, and the check that no TensorFlow buffer leaks."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow would take all of a GPU's memory, and leave torch none.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

import tensor_bridge

_FAILED = pytest.StashKey[bool]()


# Folders whose tests measure memory, threads or the collector, and are marked `alone`.
_ALONE = {"concurrent", "guard", "lifetime"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of some folders, so that the rest can run side by side."""
    for item in items:
        if _ALONE & set(item.path.parts):
            item.add_marker(pytest.mark.alone)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """If only tests marked `alone` are run, skips files without such tests."""
    if not (config.option.markexpr.endswith(" and alone") and collection_path.suffix == ".py"):
        return None
    if _ALONE & set(collection_path.parts):
        return None
    return "mark.alone" not in collection_path.read_text(encoding="utf-8") or None


@pytest.fixture(scope="module", autouse=True)
def frozen() -> None:
    """Hides what there is from the garbage collector, which tests run often.

    The frameworks have a million objects, and what tests of other files have made of them adds to
    these: 0.3 s for each collection.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        # The traceback keeps the test's tensors alive for a while.
        item.stash[_FAILED] = item.session.stash[_FAILED] = True
    return report


@pytest.fixture(autouse=True)
def no_owner_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test, torch keeps as many TensorFlow buffers alive as before it."""
    live_owners = tensor_bridge.testing.live_owners
    before = live_owners()
    yield
    if live_owners() == before or request.node.stash.get(_FAILED, False):
        return
    # What a traceback held is young. All that there is takes 50 times as long.
    gc.collect(1)
    if live_owners() == before:
        return
    gc.collect()
    # A GPU's buffers, and those that another thread held, are released shortly after.
    deadline = time.monotonic() + 30
    while live_owners() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert live_owners() <= before, "the test leaves TensorFlow buffers alive"
    if not request.session.stash.get(_FAILED, False):
        assert live_owners() == before, "a buffer was released twice, or counted wrongly"


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Disables the garbage collector, so that only reference counts free objects."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(params=["module", "ctypes"])
def interface(request: pytest.FixtureRequest) -> Any:
    """Python's interfaces, which have the same functions: the module, the class over the C ABI."""
    return tensor_bridge if request.param == "module" else tensor_bridge.TensorBridge()
