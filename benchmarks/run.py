"""Runs every benchmark, each in separate processes, and keeps the numbers in results/.

    python benchmarks/run.py [NAME...] [--quick] [--large] [--output FOLDER]

One after the other: two at the same time would time each other.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from _report import RESULTS, Report

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Benchmark:
    """A script.

    Attributes:
        keras: What Keras is to be in its process; the script imports TensorFlow, which imports it.
        processes: How many processes share the rounds.
      only_named: Whether it runs only where it is named; it takes minutes by itself.
    """

    keras: str = "tensorflow"
    processes: int = 1
    only_named: bool = False


BENCHMARKS = {
    "to_torch": Benchmark("torch", processes=3),
    "to_tf": Benchmark(processes=2),
    "structures": Benchmark(processes=2),
    "copies": Benchmark(),
    "writes": Benchmark(),
    "strings": Benchmark(),
    "memory": Benchmark(),
    "threads": Benchmark(),
    "cpp": Benchmark(),
    "data": Benchmark(only_named=True),
    "records": Benchmark(only_named=True),
    "checkpoint": Benchmark(only_named=True),
    "autograd": Benchmark(only_named=True),
    "gpu": Benchmark(only_named=True),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs them one after the other; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names",
        nargs="*",
        help=f"of {', '.join(BENCHMARKS)}; if none, all but those that run only where named",
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON")
    options, rest = parser.parse_known_args(arguments)
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    start = time.monotonic()
    default = [name for name, benchmark in BENCHMARKS.items() if not benchmark.only_named]
    chosen = [name for name in BENCHMARKS if name in (options.names or default)]
    failed = [name for name in chosen if not run(name, rest, options.output)]
    print(f"{time.monotonic() - start:.0f} s", *failed and ["failed:", *failed])
    return int(bool(failed))


def run(name: str, arguments: Sequence[str], output: Path) -> bool:
    """Whether the benchmark ended well; its numbers are in the folder then."""
    benchmark = BENCHMARKS[name]
    environment = {**os.environ, "KERAS_BACKEND": benchmark.keras, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(HERE / f"bench_{name}.py"), *arguments]
    if benchmark.processes == 1:
        command += ["--output", str(output)]
        return subprocess.run(command, env=environment, check=False).returncode == 0
    with tempfile.TemporaryDirectory() as folder:
        parts = [Path(folder) / str(i) for i in range(benchmark.processes)]
        for part in parts:
            more = ["--output", str(part), "--parts", str(len(parts))]
            if subprocess.run([*command, *more], env=environment, check=False).returncode:
                return False
        report = Report.merged([part / f"{name}.json" for part in parts])
    report.print()
    report.write(output)
    return True


if __name__ == "__main__":
    sys.exit(main())
