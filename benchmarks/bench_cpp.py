"""Builds and runs the C++ benchmark, and keeps its numbers in the schema of the others.

Google Benchmark interleaves the repetitions of all cases at random.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from _report import Report, parse_options
from _timing import Timing

ROOT = Path(__file__).resolve().parent.parent
LEGEND = {
    "at::from_blob": "by hand, with a deleter; unprotected",
    "tfTensorToPyTorchTensor(t)": "the caller keeps the TF_Tensor",
    "tfTensorToPyTorchTensor(owned)": "the TF_Tensor goes to torch",
    "TF_NewTensor": "by hand, over torch's memory, with a deallocator; unprotected",
    "pyTorchTensorToTfTensor(x)": "both sides protected",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints the tables, writes the JSON."""
    options = parse_options(__doc__, arguments)
    for step in (["--preset", "bench"], ["--build", "--preset", "bench"]):
        done = subprocess.run(
            ["cmake", *step], cwd=ROOT, check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
    repetitions = options.rounds(21)
    report = Report("cpp", LEGEND, repetitions=repetitions)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "cpp.json"
        command = [
            str(ROOT / "build" / "bench" / "benchmarks" / "cpp" / "convert_benchmark"),
            f"--benchmark_repetitions={repetitions}",
            "--benchmark_enable_random_interleaving=true",
            "--benchmark_min_time=0.02",
            f"--benchmark_out={output}",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        measured = json.loads(output.read_text())["benchmarks"]
    times: dict[str, list[float]] = defaultdict(list)
    calls: dict[str, int] = {}
    for run in measured:
        if run["run_type"] == "iteration":
            # The processor's time: other work on the machine is not in it.
            times[run["run_name"]].append(run["cpu_time"])
            calls[run["run_name"]] = run["iterations"]
    order = list(LEGEND)
    for name in sorted(times, key=lambda name: (order.index(name.split("/")[1]), name)):
        group, contender, rank = name.split("/")
        timing = Timing.of(times[name], calls[name])
        report.add_timing(group, f"rank {rank}", contender, timing)
    return report.finish(options)


if __name__ == "__main__":
    sys.exit(main())
