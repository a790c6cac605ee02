"""Times checkpoints: opening, reading and converting one, compared with what people do today.

All contenders of one comparison run in turn in one process, with the files in the page cache: one
pass over the files before each comparison loads them. Writes the numbers, with machine and
versions, to `results/checkpoint.json`.

    python benchmarks/bench_checkpoint.py [--quick] [--gigabytes N] [--output FOLDER]
"""

from __future__ import annotations

import datetime
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import torch
from _machine import describe_machine, describe_versions
from _report import options_parser, write_json
from rich.console import Console
from rich.table import Table

from tensor_bridge import checkpoint

ROUNDS = 5
TENSORS = 64

LEGEND = {
    "first load": "the first checkpoint.load after import torch, tensor_bridge's import included",
    "load": "checkpoint.load(path), every tensor made, none touched",
    "load, NumPy": "tf.train.load_checkpoint, get_tensor and torch.from_numpy of every tensor",
    "touch": "the same as load, and a byte of every page added up",
    "read": "the data file read into a buffer of 16 MiB, a byte of every page added up",
    "convert": "checkpoint.convert(path, .safetensors), the file flushed to disk",
    "cp": "cp of the data file, the copy flushed to disk",
}


FIRST_LOAD = """
import sys, time
import torch
begin = time.perf_counter()
import tensor_bridge
tensor_bridge.checkpoint.load(sys.argv[1])
print(time.perf_counter() - begin)
"""


def first_load(prefix: str) -> float:
    """Seconds that the first load of a new process takes."""
    command = [sys.executable, "-c", FIRST_LOAD, prefix]
    # Compiles the package to bytecode, as pip does.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    return float(done.stdout)


def rss(field: str) -> int:
    """The bytes in a field of /proc/self/status of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def make_checkpoint(folder: Path, size: int) -> str:
    """A checkpoint of float32 variables, written by TensorFlow."""
    count = size // TENSORS // 4
    prefix = str(folder / "big")
    parts = []
    for i in range(TENSORS):
        parts.append(f"{prefix}-{i}")
        tf.raw_ops.SaveV2(
            prefix=parts[-1],
            tensor_names=[f"w{i:02}"],
            shape_and_slices=[""],
            tensors=[tf.random.normal((count,), seed=i)],
        )
    # In one data file, as a model is saved: TensorFlow's reader goes through it in order.
    state = {name: x for p in parts for name, x in checkpoint.load(p).items()}
    checkpoint.save(state, prefix, object_based=False)
    for part in parts:
        for file in Path(part).parent.glob(Path(part).name + ".*"):
            file.unlink()
    return prefix


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes the JSON."""
    parser = options_parser(__doc__, quick="a quarter of a gigabyte, one round")
    parser.add_argument("--gigabytes", type=float, default=4, help="size of the checkpoint")
    options = parser.parse_args(arguments)
    size = int((0.25 if options.quick else options.gigabytes) * 2**30)
    rounds = 1 if options.quick else ROUNDS
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        results = measure(Path(name), size, rounds)
    results = {
        "machine": describe_machine(),
        "versions": describe_versions(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "page_cache": "warm",
        **results,
    }
    write_json(options.output, "checkpoint", results)
    show(results)
    return 0


def measure(folder: Path, size: int, rounds: int) -> dict[str, Any]:
    prefix = make_checkpoint(folder, size)
    data = f"{prefix}.data-00000-of-00001"
    target, copied = folder / "out.safetensors", folder / "copy"

    def load() -> Any:
        return list(checkpoint.load(prefix).values())

    def with_numpy() -> Any:
        reader = tf.train.load_checkpoint(prefix)
        names = reader.get_variable_to_shape_map()
        return [torch.from_numpy(reader.get_tensor(name)) for name in names]

    def touch() -> float:
        return sum(int(x.view(torch.uint8)[::4096].sum()) for x in load())

    def read() -> int:
        storage = bytearray(16 << 20)
        view, buffer = memoryview(storage), torch.frombuffer(storage, dtype=torch.uint8)
        total = 0
        with Path(data).open("rb", buffering=0) as file:
            while count := file.readinto(view):
                total += int(buffer[:count:4096].sum())
        return total

    def convert() -> None:
        checkpoint.convert(prefix, target, overwrite=True)
        flush(target)

    def cp() -> None:
        subprocess.run(["cp", data, str(copied)], check=True)
        flush(copied)

    expected = {name: float(x.sum()) for name, x in checkpoint.load(prefix).items()}
    reader = tf.train.load_checkpoint(prefix)
    for name, value in expected.items():
        if float(torch.from_numpy(reader.get_tensor(name)).sum()) != value:
            raise AssertionError(f"{name}: other values")
    before = rss("VmRSS")
    kept = load()
    grown = rss("VmRSS") - before
    del kept
    times: dict[str, list[float]] = {
        "first load": [first_load(prefix) for _ in range(rounds + 1)][1:]
    }
    pairs: list[dict[str, Callable[[], Any]]] = [
        {"load": load, "load, NumPy": with_numpy},
        {"touch": touch, "read": read},
        {"convert": convert, "cp": cp},
    ]
    for pair in pairs:
        read()
        for number in range(rounds):
            order = list(pair) if number % 2 else list(pair)[::-1]
            for name in order:
                for file in (target, copied):
                    file.unlink(missing_ok=True)
                begin = time.perf_counter()
                result = pair[name]()
                times.setdefault(name, []).append(time.perf_counter() - begin)
                del result
    median = {name: statistics.median(values) for name, values in times.items()}
    return {
        "bytes": size,
        "tensors": TENSORS,
        "seconds": times,
        "median_seconds": median,
        "resident_growth_of_load": grown,
        "ratios": {
            "load, NumPy / load": median["load, NumPy"] / median["load"],
            "read / touch": median["read"] / median["touch"],
            "cp / convert": median["cp"] / median["convert"],
        },
    }


def flush(path: Path) -> None:
    """Waits until the file is on the disk, so that neither contender leaves work behind."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def show(results: dict[str, Any]) -> None:
    console = Console()
    table = Table("what", "median, ms", "GB/s", title=f"{results['bytes'] / 2**30:g} GiB, warm")
    for name, seconds in results["median_seconds"].items():
        rate = "" if name == "first load" else f"{results['bytes'] / seconds / 1e9:,.1f}"
        table.add_row(name, f"{seconds * 1e3:,.1f}", rate)
    console.print(table)
    for name, meaning in LEGEND.items():
        console.print(f"  {name:<12} {meaning}", highlight=False)
    for name, ratio in results["ratios"].items():
        console.print(f"{name}: {ratio:.2f}")
    console.print(f"resident memory after load: +{results['resident_growth_of_load'] / 1e6:.1f} MB")


if __name__ == "__main__":
    if shutil.which("cp") is None:
        sys.exit("cp is needed")
    sys.exit(main())
