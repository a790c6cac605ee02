"""Interleaved timing of Python statements: what the benchmarks share.

Not a benchmark itself, and it knows nothing of either framework.
"""

from __future__ import annotations

import random
import statistics
import time
import timeit
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Contender:
    """One statement to time.

    Attributes:
        name: What the tables and the JSON call it.
        statement: The statement, timed as it stands: no lambda around it.
        names: What the statement's names mean. They become local variables of the timing loop.
        shared: Whether the result shares TensorFlow's memory; None if there is nothing to check.
    """

    name: str
    statement: str
    names: Mapping[str, object] = field(repr=False)
    shared: bool | None = None

    def timer(self) -> timeit.Timer:
        """A `timeit` loop over the statement. `timeit` turns the garbage collector off."""
        return self._timer(self.statement)

    def call(self) -> object:
        """The statement's value, once, for checks."""
        kept: list[object] = []
        self._timer(f"kept.append({self.statement})", kept=kept).timeit(1)
        return kept[0]

    def _timer(self, statement: str, **more: object) -> timeit.Timer:
        names = {**self.names, **more}
        setup = "; ".join(f"{name} = _{name}" for name in names)
        return timeit.Timer(
            statement, setup, globals={f"_{name}": value for name, value in names.items()}
        )


@dataclass(frozen=True)
class Timing:
    """Nanoseconds per call, over many batches.

    Attributes:
        batches: Number of batches in the figures.
        disturbed: Number of batches left out, because other work had the processor meanwhile.
    """

    median: float
    p25: float
    p75: float
    fastest: float
    batches: int
    disturbed: int
    calls_per_batch: int

    @classmethod
    def of(cls, ns_per_call: Sequence[float], calls: int, disturbed: int = 0) -> Timing:
        """The figures of some batches."""
        p25, median, p75 = statistics.quantiles(ns_per_call, n=4, method="inclusive")
        return cls(median, p25, p75, min(ns_per_call), len(ns_per_call), disturbed, calls)

    def as_json(self) -> dict[str, object]:
        """What is kept of it."""
        return {
            "value": round(self.median, 1),
            "unit": "ns",
            "p25": round(self.p25, 1),
            "p75": round(self.p75, 1),
            "fastest": round(self.fastest, 1),
            "batches": self.batches,
            "disturbed_batches": self.disturbed,
            "calls_per_batch": self.calls_per_batch,
        }


def race(
    contenders: Sequence[Contender],
    *,
    rounds: int,
    batch_s: float = 0.002,
    slow_s: float = 1.0,
) -> dict[str, Timing]:
    """Times all contenders in one interleaved run.

    Each round runs one batch of each contender, in an order drawn anew, so that noise, cold caches
    and clock changes hit all of them alike. A contender whose single call exceeds `batch_s` takes
    part in fewer rounds, spread evenly over the run, so that it costs about `slow_s` in all.

    Time is wall time. A batch whose wall time is notably longer than its thread's processor time is
    left out, because it timed another process. That suits only statements that run in the calling
    thread.

    Args:
        contenders: The contenders to time.
        rounds: Number of batches of each.
        batch_s: Intended seconds of a batch; the number of calls in it is calibrated to that.
        slow_s: Seconds that each slow contender may take in all.

    Returns:
        A timing for each contender's name.
    """
    timers = {contender.name: contender.timer() for contender in contenders}
    calls: dict[str, int] = {}
    chosen: dict[str, frozenset[int]] = {}
    for name, timer in timers.items():
        calls[name], batch = _calibrate(timer, batch_s)
        taken = rounds if batch < 2 * batch_s else max(5, min(rounds, round(slow_s / batch)))
        chosen[name] = frozenset(round(i * rounds / taken) for i in range(taken))

    order = list(timers)
    shuffle = random.Random(0).shuffle
    samples: dict[str, list[_Batch]] = {name: [] for name in order}
    for turn in range(rounds):
        shuffle(order)
        for name in order:
            if turn in chosen[name]:
                samples[name].append(_run(timers[name], calls[name]))
    return {name: _summarize(batches, calls[name]) for name, batches in samples.items()}


@dataclass(frozen=True)
class _Batch:
    ns_per_call: float
    disturbed: bool


def _run(timer: timeit.Timer, calls: int) -> _Batch:
    start = time.thread_time()
    wall = timer.timeit(calls)
    processor = time.thread_time() - start
    return _Batch(wall / calls * 1e9, disturbed=wall > 1.03 * processor)


def _calibrate(timer: timeit.Timer, batch_s: float) -> tuple[int, float]:
    """The number of calls in a batch of about `batch_s`, and the time of such a batch."""
    timer.timeit(1)  # the first call does lazy loading
    number = 1
    while (seconds := timer.timeit(number)) < batch_s / 4:
        number *= 2
    number = max(1, round(number * batch_s / seconds))
    return number, timer.timeit(number)


def _summarize(batches: Sequence[_Batch], calls: int) -> Timing:
    quiet = [batch.ns_per_call for batch in batches if not batch.disturbed]
    if len(quiet) < 3:  # too few quiet batches; the spread will show it
        quiet = [batch.ns_per_call for batch in batches]
    return Timing.of(quiet, calls, disturbed=len(batches) - len(quiet))
