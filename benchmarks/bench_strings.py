"""Times a million TensorFlow strings on their way to PyTorch and back, against NumPy's.

All numbers of one row come from one interleaved run, and each result is checked before it is
timed. Times include the release of the result. Writes the numbers, with machine and versions, to
`results/strings.json`.

    python benchmarks/bench_strings.py [--quick] [--count N] [--output FILE]
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import gc
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import tensorflow as tf
import torch
from _machine import describe_machine, describe_versions
from _timing import Contender, Timing, race
from rich import box
from rich.console import Console
from rich.table import Table

import tensor_bridge
from tensor_bridge import StringTensor

TENSOR = "StringTensor"
LIST = "list"
NUMPY = "NumPy"
TEXT = "text"
NUMPY_TEXT = "NumPy text"
BACK = "back"
CONSTANT = "tf.constant"

LEGEND = {
    TENSOR: "tensor_bridge.to_torch(t): bytes and offsets",
    LIST: 'tensor_bridge.to_torch(t, strings="list"): a list of bytes',
    NUMPY: "t.numpy().tolist(), what people do today",
    TEXT: "tensor_bridge.to_torch(t).to_str(): a list of str",
    NUMPY_TEXT: "t.numpy().tolist(), each decoded",
    BACK: "tensor_bridge.to_tf(x) of a StringTensor",
    CONSTANT: "tf.constant(l) of a list of bytes",
}
SIZES = (1, 8, 22, 40, 100)
NOISY = 0.10


class WrongResultError(Exception):
    """A contender's result is not what it claims to be."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints the table, writes the JSON."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, for a smoke test")
    parser.add_argument("--count", type=int, default=1_000_000, help="strings in the tensor")
    parser.add_argument("--output", type=Path, default=here / "results" / "strings.json")
    options = parser.parse_args(arguments)
    rounds = 5 if options.quick else 15

    torch.set_num_threads(1)
    machine = describe_machine()
    versions = describe_versions()
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    console.print(
        f"tensor_bridge {versions['tensor_bridge']}, TensorFlow {versions['tensorflow']}, "
        f"torch {versions['torch']}, Python {versions['python']}\n"
        f"{machine['cpu']}, {machine['cpus']} CPUs, load {machine['load_average_1m']}\n"
    )

    rows: list[dict[str, object]] = []
    spreads: list[float] = []
    table = _table(
        f"{options.count:,} TensorFlow strings to PyTorch (medians, a call)",
        ("StringTensor", "list", "NumPy"),
        ("NumPy / StringTensor", "NumPy / list", "peak"),
    )
    others = _table(
        "As text, and back to TensorFlow",
        ("text", "NumPy text", "back", "tf.constant"),
        ("NumPy text / text", "tf.constant / back"),
    )
    for size in SIZES:
        t = _strings(options.count, size)
        contenders = _contenders(t)
        for contender in contenders:
            _check(contender, t)
        gc.freeze()  # a collection would walk through the lists of the others
        timings = race(contenders, rounds=rounds, batch_s=0.001, slow_s=60)
        gc.unfreeze()
        peak = _peak_ratio(lambda t=t: tensor_bridge.to_torch(t))
        cells = _cells(timings, (TENSOR, LIST, NUMPY), ((NUMPY, TENSOR), (NUMPY, LIST)))
        table.add_row(f"{size} B", *cells, "" if peak is None else f"{peak:.2f}")
        ratios = ((NUMPY_TEXT, TEXT), (CONSTANT, BACK))
        others.add_row(f"{size} B", *_cells(timings, (TEXT, NUMPY_TEXT, BACK, CONSTANT), ratios))
        spreads += [timings[name].spread for name in (TENSOR, LIST, NUMPY)]
        rows += [
            {
                "case": f"{size} B",
                "count": options.count,
                "size": size,
                "contender": contender.name,
                "statement": contender.statement,
                "peak_memory_over_result": peak if contender.name == TENSOR else None,
                **timings[contender.name].as_json(),
            }
            for contender in contenders
        ]
    console.print(table)
    console.print(others)
    for name, meaning in LEGEND.items():
        console.print(f"  [bold]{name:<13}[/]  {meaning}", highlight=False, markup=True)
    console.print(
        "\nPeak: resident memory added at most by to_torch(t), over the bytes of its result.\n"
        f"{rounds} interleaved rounds; the interquartile range of the first table's times is at "
        f"most {max(spreads):.0%} of\nthe median."
    )
    if max(spreads) > NOISY:
        console.print("[yellow]The machine was too busy: do not quote these numbers.[/]")

    report = {
        "schema": 1,
        "date": datetime.date.today().isoformat(),
        "machine": machine,
        "versions": versions,
        "rounds": rounds,
        "contenders": LEGEND,
        "results": rows,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"Written: {options.output}")
    return 0


def _strings(count: int, size: int) -> tf.Tensor:
    """Distinct random text, made by TensorFlow: no Python objects are left from it."""
    letters = random.Random(size).choices(b"abcdefghijklmnop", k=count + 4096)
    block = bytes(letters)
    return tf.constant([block[i : i + size] for i in range(count)])


def _contenders(t: tf.Tensor) -> list[Contender]:
    to_torch, to_tf = tensor_bridge.to_torch, tensor_bridge.to_tf
    x = to_torch(t)
    listed = t.numpy().tolist()
    ours: Mapping[str, object] = {"to_torch": to_torch, "t": t}
    return [
        Contender(TENSOR, "to_torch(t)", ours),
        Contender(LIST, "to_torch(t, strings='list')", ours),
        Contender(NUMPY, "t.numpy().tolist()", {"t": t}),
        Contender(TEXT, "to_torch(t).to_str()", ours),
        Contender(NUMPY_TEXT, "[s.decode() for s in t.numpy().tolist()]", {"t": t}),
        Contender(BACK, "to_tf(x)", {"to_tf": to_tf, "x": x}),
        Contender(CONSTANT, "constant(l)", {"constant": tf.constant, "l": listed}),
    ]


def _check(contender: Contender, t: tf.Tensor) -> None:
    """Raises unless the result has the tensor's strings."""
    expected = t.numpy().tolist()
    result = contender.call()
    if isinstance(result, StringTensor):
        result = result.to_bytes()
    elif isinstance(result, tf.Tensor):
        result = result.numpy().tolist()
    elif isinstance(result[0], str):  # type: ignore[index]
        result = [text.encode() for text in result]  # type: ignore[attr-defined]
    if result != expected:
        raise WrongResultError(f"{contender.statement} returned other strings")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def _peak_ratio(convert: Callable[[], StringTensor]) -> float | None:
    """Resident memory that a conversion adds at most, over the bytes of its result."""
    gc.collect()
    # Memory that was freed and kept would hide what the conversion takes.
    ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = _status("VmRSS")
    result = convert()
    return round((_status("VmHWM") - before) / result.nbytes, 3)


def _table(title: str, times: Sequence[str], ratios: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("each", no_wrap=True)
    for header in times:
        table.add_column(header, justify="right", no_wrap=True)
    for header in ratios:
        table.add_column(header, justify="right", style="cyan", no_wrap=True)
    return table


def _cells(
    timings: Mapping[str, Timing], times: Sequence[str], ratios: Sequence[tuple[str, str]]
) -> list[str]:
    median = {name: timing.median for name, timing in timings.items()}
    return [
        *(f"{median[name] / 1e6:,.1f} ms" for name in times),
        *(f"{median[them] / median[us]:.1f}" for them, us in ratios),
    ]


if __name__ == "__main__":
    sys.exit(main())
