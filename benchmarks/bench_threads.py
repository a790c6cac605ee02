"""The throughput of two threads: copies, which release the GIL, and conversions, which hold it.

Measured in wall time, which is the question; on a busy machine the numbers mean little.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence

import tensorflow as tf
import torch
from _report import Report, parse_options

import tensor_bridge

LEGEND = {
    "to_torch": "tensor_bridge.to_torch",
    "to_tf": "tensor_bridge.to_tf",
    "clone": "x.clone(), for scale",
    "detach": "x.detach(), for scale",
}
COPY = (4096, 4096)  # 64 MB


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints the tables, writes the JSON."""
    options = parse_options(__doc__, arguments)
    torch.set_num_threads(1)
    rounds = options.rounds(21)
    report = Report("threads", LEGEND, rounds=rounds, torch_threads=1)
    to_torch, to_tf = tensor_bridge.to_torch, tensor_bridge.to_tf

    t = tf.random.stateless_uniform(COPY, seed=(1, 2))
    x = torch.tensor(t.numpy())
    copies: dict[str, Callable[[], object]] = {
        "to_torch": lambda: to_torch(t, copy=True),
        "to_tf": lambda: to_tf(x, copy=True),
        "clone": x.clone,
    }
    for name, speedup in _race(copies, calls=2, rounds=rounds).items():
        report.add_value("two threads over one", "copies of 64 MB", name, speedup, "1")

    small = tf.random.stateless_uniform((2, 2), seed=(1, 2))
    y, z = torch.rand(2, 2), torch.rand(2, 2)
    conversions: dict[str, Callable[[], object]] = {
        "to_torch": lambda: to_torch(small),
        "to_tf": lambda: to_tf(y),
        "detach": z.detach,
    }
    for name, speedup in _race(conversions, calls=30_000, rounds=rounds // 2).items():
        report.add_value("two threads over one", "conversions of 16 B", name, speedup, "1")
    return report.finish(options)


def _race(
    calls_by_name: dict[str, Callable[[], object]], *, calls: int, rounds: int
) -> dict[str, float]:
    """Throughput of two threads divided by that of one; the median of interleaved rounds."""
    ratios: dict[str, list[float]] = {name: [] for name in calls_by_name}
    for _ in range(max(5, rounds)):
        for name, call in calls_by_name.items():
            one, two = (_seconds(call, calls, threads) for threads in (1, 2))
            ratios[name].append(2 * one / two)
    return {name: round(statistics.median(each), 3) for name, each in ratios.items()}


def _seconds(call: Callable[[], object], calls: int, threads: int) -> float:
    """Seconds that `threads` threads take for `calls` calls each."""
    start = threading.Barrier(threads + 1)
    turns = range(calls)

    def work() -> None:
        start.wait()
        for _ in turns:
            call()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    begin = time.perf_counter()
    for worker in workers:
        worker.join()
    return time.perf_counter() - begin


if __name__ == "__main__":
    sys.exit(main())
