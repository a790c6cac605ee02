"""Times the conversion of one TensorFlow tensor to PyTorch against what people do today.

All numbers of one row come from one interleaved run, and each result is checked before it is
timed. Writes the numbers, with machine and versions, to `results/convert.json`.

    python benchmarks/bench_convert.py [--quick] [--output FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf
import torch
from _machine import describe_machine, describe_versions
from _timing import Contender, Timing, race
from rich import box
from rich.console import Console
from rich.table import Table

import tensor_bridge
from tensor_bridge import testing

OURS = "tensor_bridge"
DLPACK = "DLPack pair"
FROM_DLPACK = "torch.from_dlpack"
NUMPY = "NumPy"
DETACH = "detach"

LEGEND = {
    OURS: "tensor_bridge.to_torch(t), write protection included",
    DLPACK: "torch.utils.dlpack.from_dlpack(tf.experimental.dlpack.to_dlpack(t))",
    FROM_DLPACK: "torch.from_dlpack(t), unprotected like the pair",
    NUMPY: "torch.from_numpy(t.numpy()), a copy; torch.as_tensor(t.numpy()) at rank 0",
    DETACH: "x.detach() of a torch tensor, torch's floor for a tensor over existing memory",
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A float32 tensor of one shape."""

    label: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the tensor's data."""
        return 4 * math.prod(self.shape)


CASES = (
    Case("16 B", (4,)),
    Case("4 MB", (1024, 1024)),
    Case("256 MB", (8192, 8192)),
    Case("0 B", (0,)),
    Case("rank 0", ()),
    Case("rank 2", (2, 2)),
    Case("rank 4", (1, 2, 1, 2)),
)


# Interquartile range over median from which a run is not worth quoting.
NOISY = 0.10


class WrongResultError(Exception):
    """A contender's result is not what it claims to be."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints the tables, writes the JSON."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, for a smoke test")
    parser.add_argument("--output", type=Path, default=here / "results" / "convert.json")
    options = parser.parse_args(arguments)
    rounds = 11 if options.quick else 201

    # The copies' rows would otherwise time how torch's threads wait for each other.
    torch.set_num_threads(1)
    machine = describe_machine()
    versions = describe_versions()
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    console.print(
        f"tensor_bridge {versions['tensor_bridge']}, TensorFlow {versions['tensorflow']}, "
        f"torch {versions['torch']}, Python {versions['python']}\n"
        f"{machine['cpu']}, {machine['cpus']} CPUs, "
        f"load {machine['load_average_1m']}, torch on one thread\n"
    )

    rows: list[dict[str, object]] = []
    watched: list[Timing] = []
    table = _conversion_table()
    for case in CASES:
        contenders = _conversions(case)
        timings = _measure(contenders, rounds)
        table.add_row(case.label, *_conversion_cells(timings), end_section=case is CASES[2])
        rows += _records("convert", case.label, case, contenders, timings)
        watched += [timings[OURS], timings[DETACH]]
    console.print(table)
    for name, meaning in LEGEND.items():
        console.print(f"  [bold]{name:<17}[/]  {meaning}", highlight=False)
    console.print()

    table = _table("Options, other ways in, and the first write (medians, a call)")
    table.add_column("what")
    table.add_column("statement", ratio=1)
    table.add_column("time", justify="right")
    table.add_column("/ first", justify="right", style="cyan")
    for label, case, contenders in _other_ways():
        timings = _measure(contenders, rounds // 2)
        first = timings[contenders[0].name].median
        for contender in contenders:
            own = timings[contender.name].median
            table.add_row(
                label if contender is contenders[0] else "",
                contender.statement,
                _time(own),
                _ratio(own / first),
                end_section=contender is contenders[-1],
            )
        rows += _records("other", label, case, contenders, timings)
    console.print(table)
    disturbed = sum(timing.disturbed for timing in watched) / (rounds * len(watched))
    spread = max(timing.spread for timing in watched)
    console.print(
        f"{rounds} interleaved rounds. Left out because other work had the processor: "
        f"{disturbed:.0%} of the batches\nof tensor_bridge and detach; the interquartile range of "
        f"the rest is at most {spread:.0%} of the median."
    )
    if spread > NOISY:
        console.print("[yellow]The machine was too busy: do not quote these numbers.[/]")

    report = {
        "schema": 1,
        "date": datetime.date.today().isoformat(),
        "machine": machine,
        "versions": versions,
        "rounds": rounds,
        "torch_threads": torch.get_num_threads(),
        "contenders": LEGEND,
        "results": rows,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"Written: {_short(options.output)}")
    return 0


def _conversions(case: Case) -> list[Contender]:
    """Every way to get `case` into torch, and torch's own floor."""
    t = _uniform(case.shape)
    names = {"t": t}
    numpy = "torch_from_numpy(t.numpy())" if case.shape else "torch_as_tensor(t.numpy())"
    return [
        Contender(OURS, "to_torch(t)", {"to_torch": tensor_bridge.to_torch, **names}, shared=True),
        Contender(DLPACK, "from_dlpack(to_dlpack(t))", _dlpack_pair() | names, shared=True),
        Contender(
            FROM_DLPACK, "from_dlpack(t)", {"from_dlpack": torch.from_dlpack, **names}, shared=True
        ),
        Contender(NUMPY, numpy, _numpy_hop() | names, shared=False),
        # Not TensorFlow's memory: the floor must not depend on how torch came by the tensor.
        Contender(DETACH, "x.detach()", {"x": _independent_copy(t), **names}, shared=False),
    ]


def _other_ways() -> list[tuple[str, Case, list[Contender]]]:
    """Keywords, the ctypes door, variables, copies, and what the first write costs."""
    small, large = CASES[0], CASES[1]
    to_torch = tensor_bridge.to_torch

    t = _uniform(small.shape)
    bridge = tensor_bridge.TensorBridge()
    ours: Mapping[str, object] = {"to_torch": to_torch, "bridge": bridge, "t": t}
    doors = [
        Contender("plain", "to_torch(t)", ours, True),
        Contender("on_write=raise", "to_torch(t, on_write='raise')", ours, True),
        Contender("on_write=alias", "to_torch(t, on_write='alias')", ours, True),
        Contender("copy=True", "to_torch(t, copy=True)", ours, False),
        Contender("ctypes", "bridge.to_torch(t)", ours, True),
    ]

    variable = tf.Variable(t)
    # `t` is what the checks compare with: a variable shares the memory of its initial value.
    read = {"v": variable, "t": t}
    variables = [
        Contender("plain", "to_torch(v)", {"to_torch": to_torch, **read}, True),
        Contender(DLPACK, "from_dlpack(to_dlpack(v.read_value()))", _dlpack_pair() | read, True),
        Contender(NUMPY, "torch_from_numpy(v.numpy())", _numpy_hop() | read, False),
    ]

    big = {"t": _uniform(large.shape)}
    copies = [
        Contender("copy=True", "to_torch(t, copy=True)", {"to_torch": to_torch, **big}, False),
        Contender(DLPACK, "from_dlpack(to_dlpack(t)).clone()", _dlpack_pair() | big, False),
        Contender(NUMPY, "torch_from_numpy(t.numpy())", _numpy_hop() | big, False),
    ]
    # Multiplying by 1 leaves the value that the checks expect.
    writes = [
        Contender("plain", "to_torch(t).mul_(1)", {"to_torch": to_torch, **big}, False),
        Contender(DLPACK, "from_dlpack(to_dlpack(t)).clone().mul_(1)", _dlpack_pair() | big, False),
        Contender(NUMPY, "torch_from_numpy(t.numpy()).mul_(1)", _numpy_hop() | big, False),
    ]
    return [
        ("options, 16 B", small, doors),
        ("variable, 16 B", small, variables),
        ("copy, 4 MB", large, copies),
        ("first write, 4 MB", large, writes),
    ]


def _uniform(shape: tuple[int, ...]) -> tf.Tensor:
    """A tensor with a buffer of its own: random, so never one of TensorFlow's cached constants."""
    return tf.random.stateless_uniform(shape, seed=(1, 2))


def _independent_copy(t: tf.Tensor) -> torch.Tensor:
    return torch.tensor(t.numpy())


def _dlpack_pair() -> dict[str, object]:
    return {
        "from_dlpack": torch.utils.dlpack.from_dlpack,
        "to_dlpack": tf.experimental.dlpack.to_dlpack,
    }


def _numpy_hop() -> dict[str, object]:
    return {"torch_from_numpy": torch.from_numpy, "torch_as_tensor": torch.as_tensor}


def _measure(contenders: Sequence[Contender], rounds: int) -> dict[str, Timing]:
    for contender in contenders:
        _check(contender)
    return race(contenders, rounds=rounds)


def _check(contender: Contender) -> None:
    """Raises unless the result has the tensor's bytes, and shares them exactly where it should."""
    t = contender.names["t"]
    result = contender.call()
    if not isinstance(result, torch.Tensor):
        raise WrongResultError(f"{contender.statement} returned a {type(result).__name__}")
    expected = _independent_copy(t)
    if result.dtype != expected.dtype or result.shape != expected.shape:
        raise WrongResultError(f"{contender.statement} returned {result.dtype} {result.shape}")
    if not torch.equal(result, expected):
        raise WrongResultError(f"{contender.statement} returned other values")
    if expected.numel() and testing.shares_memory(t, result) != contender.shared:
        wanted = "shares" if contender.shared else "does not share"
        raise WrongResultError(f"{contender.statement}: expected a result that {wanted} memory")


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


def _conversion_table() -> Table:
    table = _table("TensorFlow tensor to PyTorch, float32 on the CPU (medians, a call)")
    table.add_column("case", vertical="bottom", no_wrap=True)
    for header in ("tensor_bridge", "DLPack\npair", "torch.\nfrom_dlpack", "NumPy", "detach"):
        table.add_column(header, justify="right", no_wrap=True)
    for ratio in ("ours /\ndetach", "DLPack\n/ ours", "NumPy\n/ ours"):
        table.add_column(ratio, justify="right", style="cyan", no_wrap=True)
    return table


def _conversion_cells(timings: Mapping[str, Timing]) -> list[str]:
    median = {name: timing.median for name, timing in timings.items()}
    ours = median[OURS]
    return [
        *(_time(median[name]) for name in (OURS, DLPACK, FROM_DLPACK, NUMPY, DETACH)),
        _ratio(ours / median[DETACH]),
        _ratio(median[DLPACK] / ours),
        _ratio(median[NUMPY] / ours),
    ]


def _records(
    group: str,
    label: str,
    case: Case,
    contenders: Sequence[Contender],
    timings: Mapping[str, Timing],
) -> list[dict[str, object]]:
    return [
        {
            "group": group,
            "case": label,
            "shape": list(case.shape),
            "dtype": "float32",
            "nbytes": case.nbytes,
            "contender": contender.name,
            "statement": contender.statement,
            "shared": contender.shared,
            **timings[contender.name].as_json(),
        }
        for contender in contenders
    ]


def _time(ns: float) -> str:
    for unit, scale in (("ms", 1e6), ("us", 1e4)):
        if ns >= scale:
            return f"{ns / (1e6 if unit == 'ms' else 1e3):,.1f} {unit}"
    return f"{ns:,.0f} ns"


def _ratio(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _short(path: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main())
