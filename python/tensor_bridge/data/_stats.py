"""Stats: counts and times of a pass over a dataset."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stats:
    """Counts and times of one pass over a dataset.

    Attributes:
      elements: Elements delivered.
      bytes: Their size.
      failures: Elements that the pipeline could not make.
      wait_seconds: How long the loop waited for elements. If this is large, the input is too slow.
      compute_seconds: How long the loop did other work between two elements. If this is large, the
        model is slower than the input.
      make_seconds: How long making elements took, mostly inside TensorFlow, while the loop waited
        or computed.
      queued: Elements that are ready now.
      skipped_records: Of `records.loader` with ``on_error="skip"``: places at which damage was left
        out, each a record or several. What the pass has met, and what was found when the files were
        opened, on all ranks.
      skipped_bytes: Their bytes in the files.
    """

    elements: int = 0
    bytes: int = 0
    failures: int = 0
    wait_seconds: float = 0.0
    compute_seconds: float = 0.0
    make_seconds: float = 0.0
    queued: int = 0
    skipped_records: int = 0
    skipped_bytes: int = 0

    @property
    def elements_per_second(self) -> float:
        """Delivered elements per second; 0 before the first element."""
        seconds = self.wait_seconds + self.compute_seconds
        return self.elements / seconds if seconds > 0 else 0.0

    @property
    def wait_share(self) -> float:
        """Share of the loop's time spent waiting for elements, from 0 to 1."""
        seconds = self.wait_seconds + self.compute_seconds
        return self.wait_seconds / seconds if seconds > 0 else 0.0

    def __str__(self) -> str:
        return (
            f"{self.elements} elements, {self.bytes / 1e6:.1f} MB, "
            f"{self.elements_per_second:.1f} elements/s, "
            f"waiting for data {100 * self.wait_share:.0f}% of the time"
            + (f", {self.failures} failed" if self.failures else "")
            + (f", {self.skipped_records} records skipped" if self.skipped_records else "")
        )
