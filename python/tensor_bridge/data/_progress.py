"""A progress bar over a pass, by tqdm or rich, whichever is installed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from tensor_bridge.errors import FrameworkError

__all__ = ["with_progress"]

_INTERVAL = 0.5  # seconds between two looks at the statistics


class _Tqdm:
    def __init__(self, total: int | None, first: int, text: str) -> None:
        tqdm: Any = import_module("tqdm.auto").tqdm

        self._bar = tqdm(total=total, initial=first, desc=text, unit="el")

    def update(self, count: int, text: str) -> None:
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(count)

    def close(self) -> None:
        self._bar.close()


class _Rich:
    def __init__(self, total: int | None, first: int, text: str) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[stats]}"),
        )
        self._task = self._progress.add_task(text, total=total, completed=first, stats="")
        self._progress.start()

    def update(self, count: int, text: str) -> None:
        self._progress.update(self._task, advance=count, stats=text)

    def close(self) -> None:
        self._progress.stop()


def _bar(total: int | None, first: int, text: str) -> _Tqdm | _Rich:
    for kind in (_Tqdm, _Rich):
        try:
            return kind(total, first, text)
        except ImportError:
            continue
    raise FrameworkError(
        "progress=True needs tqdm or rich, and neither is installed: pip install tqdm", name="tqdm"
    )


def with_progress(
    elements: Iterator[Any],
    *,
    total: int | None,
    first: int,
    epoch: int,
    describe: Callable[[], str],
) -> Iterator[Any]:
    """The elements, with a bar on the terminal that tells how far they are.

    Args:
      elements: What is iterated.
      total: The number of elements, if it is known.
      first: How many were delivered before (a resumed pass).
      epoch: Number of the pass.
      describe: What stands behind the bar.

    Raises:
      FrameworkError: There is neither tqdm nor rich.
    """
    return _iterate(elements, _bar(total, first, f"epoch {epoch}"), describe)


def _iterate(
    elements: Iterator[Any], bar: _Tqdm | _Rich, describe: Callable[[], str]
) -> Iterator[Any]:
    shown, count = time.monotonic(), 0
    try:
        for element in elements:
            yield element
            count += 1
            now = time.monotonic()
            if now - shown >= _INTERVAL:
                bar.update(count, describe())
                shown, count = now, 0
    finally:
        bar.update(count, describe())
        bar.close()
