"""Counts the memory that live conversions take, and times the import of the package.

Each number comes from a separate process. Memory is counted by malloc (`mallinfo2`), with
PYTHONMALLOC=malloc so that Python's objects are included. Only "resident growth" is resident
memory.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from _allocated import allocated
from _report import Report, parse_options

LIVE = 20_000
LEGEND = {
    "to_torch": "a live tensor_bridge.to_torch(t)",
    "to_tf": "a live tensor_bridge.to_tf(x)",
    "DLPack pair": "the same through the DLPack pair, unprotected",
    "torch's own": "torch.empty(0): tensor, storage and Python object without data",
    "TensorFlow's own": "tf.identity(t): handle and Python object over shared data",
    "tensor_bridge": "python -c 'import tensor_bridge', over python -c pass",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints the tables, writes the JSON."""
    if arguments is None and sys.argv[1:] == ["--children"]:
        return _measure_all()
    options = parse_options(__doc__, arguments)
    report = Report("memory", LEGEND, live=LIVE)

    each = _in_children()
    group = "bytes a live tensor"
    for case, ours, pair, own in (
        ("to_torch", "to_torch", "DLPack to torch", "torch's own"),
        ("to_tf", "to_tf", "DLPack to TensorFlow", "TensorFlow's own"),
    ):
        report.add_value(group, case, case, each[ours], "B")
        report.add_value(group, case, "DLPack pair", each[pair], "B")
        report.add_value(group, case, own, each[own], "B")
        report.add_value(group, case, "overhead", each[ours] - each[own], "B")
    report.add_value(
        "resident growth", "1,000 shared tensors of 4 MB", "to_torch", each["resident growth"], "B"
    )

    for case, ns in _import_time(options.rounds(21)).items():
        report.add_value("import", case, "tensor_bridge", ns, "ns")
    return report.finish(options)


def _in_children() -> dict[str, float]:
    environment = {**os.environ, "PYTHONMALLOC": "malloc", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, "--children"]
    done = subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, timeout=240
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return {str(name): float(value) for name, value in json.loads(done.stdout)}


# --- in processes of their own ----------------------------------------------------------------


def _measure_all() -> int:
    """Prints each measurement, made in a fresh fork."""
    import tensorflow as tf
    import torch

    del tf, torch
    measured = []
    for name, measure in CHILDREN.items():
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writing, f"{measure()}".encode())
            except BaseException as error:
                print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            measured.append((name, float(pipe.read() or "nan")))
        if os.waitpid(child, 0)[1]:
            return 1
    print(json.dumps(measured))
    return 0


def _live(make: Callable[[], object]) -> float:
    """Bytes that each of many live results takes."""
    kept: list[object] = [None] * LIVE
    for i in range(100):
        kept[i] = make()  # warms up: makes all one-time allocations
    before = allocated()
    for i in range(100, LIVE):
        kept[i] = make()
    return round((allocated() - before) / (LIVE - 100), 1)


def _to_torch() -> float:
    import tensorflow as tf

    import tensor_bridge

    t = tf.random.stateless_uniform((2, 2), seed=(1, 2))
    return _live(lambda: tensor_bridge.to_torch(t))


def _dlpack_to_torch() -> float:
    import tensorflow as tf
    import torch

    t = tf.random.stateless_uniform((2, 2), seed=(1, 2))
    to_dlpack, from_dlpack = tf.experimental.dlpack.to_dlpack, torch.utils.dlpack.from_dlpack
    return _live(lambda: from_dlpack(to_dlpack(t)))


def _torch() -> float:
    import torch

    return _live(lambda: torch.empty(0))


def _to_tf() -> float:
    import torch

    import tensor_bridge

    x = torch.rand(2, 2)
    return _live(lambda: tensor_bridge.to_tf(x))


def _dlpack_to_tf() -> float:
    import tensorflow as tf
    import torch

    x = torch.rand(2, 2)
    to_dlpack, from_dlpack = torch.utils.dlpack.to_dlpack, tf.experimental.dlpack.from_dlpack
    return _live(lambda: from_dlpack(to_dlpack(x)))


def _tensorflow() -> float:
    import tensorflow as tf

    t = tf.random.stateless_uniform((2, 2), seed=(1, 2))
    return _live(lambda: tf.identity(t))


def _resident_growth() -> float:
    """Growth of the resident size; copies would add 4 GB."""
    import tensorflow as tf

    import tensor_bridge

    def resident() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    elements = 1 << 20
    sources = [tf.fill((elements,), float(i)) for i in range(50)]
    tensor_bridge.to_torch(sources[0]).sum()
    kept: list[object] = [None] * 1000
    before = resident()
    for i in range(1000):
        kept[i] = tensor_bridge.to_torch(sources[i % 50])
    return resident() - before


CHILDREN: dict[str, Callable[[], float]] = {
    "to_torch": _to_torch,
    "DLPack to torch": _dlpack_to_torch,
    "torch's own": _torch,
    "to_tf": _to_tf,
    "DLPack to TensorFlow": _dlpack_to_tf,
    "TensorFlow's own": _tensorflow,
    "resident growth": _resident_growth,
}


# --- import -----------------------------------------------------------------------------------


def _import_time(rounds: int) -> dict[str, int]:
    """Nanoseconds of an import, beyond those of a Python that imports nothing."""
    programs = ("pass", "import tensor_bridge")
    samples: dict[str, list[tuple[float, float]]] = {program: [] for program in programs}
    for _ in range(rounds):
        for program in programs:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            wall = time.perf_counter() - start
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            samples[program].append((wall, processor))
    without, with_it = (list(zip(*samples[program], strict=True)) for program in programs)
    seconds = {
        "wall, median": statistics.median(with_it[0]) - statistics.median(without[0]),
        "wall, fastest": min(with_it[0]) - min(without[0]),
        "processor, median": statistics.median(with_it[1]) - statistics.median(without[1]),
    }
    return {case: round(each * 1e9) for case, each in seconds.items()}


if __name__ == "__main__":
    sys.exit(main())
