"""Stats: what a pass over a dataset has cost so far, and who waited for whom."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Stats"]


@dataclass(frozen=True)
class Stats:
    """Counts and times of one pass over a dataset.

    Attributes:
      elements: Elements delivered.
      bytes: Their size.
      failures: Elements that the pipeline could not make.
      wait_seconds: How long the loop waited for elements: the input starves the model.
      compute_seconds: How long it did something else between two elements: the model is the
        slower one, and the input waits.
      make_seconds: How long elements were made, mostly inside TensorFlow, while the loop waited or
        computed.
      queued: Elements that are ready now.
    """

    elements: int = 0
    bytes: int = 0
    failures: int = 0
    wait_seconds: float = 0.0
    compute_seconds: float = 0.0
    make_seconds: float = 0.0
    queued: int = 0

    @property
    def elements_per_second(self) -> float:
        """Rate of the loop, 0 before the first element."""
        seconds = self.wait_seconds + self.compute_seconds
        return self.elements / seconds if seconds > 0 else 0.0

    @property
    def wait_share(self) -> float:
        """Part of the loop's time that it waited for elements, from 0 to 1."""
        seconds = self.wait_seconds + self.compute_seconds
        return self.wait_seconds / seconds if seconds > 0 else 0.0

    def __str__(self) -> str:
        return (
            f"{self.elements} elements, {self.bytes / 1e6:.1f} MB, "
            f"{self.elements_per_second:.1f} elements/s, "
            f"waiting for data {100 * self.wait_share:.0f}% of the time"
            + (f", {self.failures} failed" if self.failures else "")
        )
