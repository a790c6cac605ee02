"""Writes the charts, and the tables of the docs, from results/*.json.

    python benchmarks/draw.py           rewrites what lies between the markers, and the charts
    python benchmarks/draw.py --check   only says whether a table would change

No number in those tables is typed by hand.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from _report import RESULTS, quantity, ratio

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tools"))
import dtype_table  # noqa: E402
from dtype_table import markdown  # noqa: E402

ASSETS = ROOT / "docs" / "assets"
PAGE = "docs/figures.md"
SHARED_OR_COPIED = "docs/concepts/shared_or_copied.md"
OURS, PAIR, DETACH = "tensor_bridge", "DLPack pair", "detach"
OWN, GONE, HELD, ALONE = "torch's own", "tf.Tensor gone", "tf.Tensor held", "no loader"
FIRST_WRITES = ("first write, loader's element", "first write, op's result")
PARSED, SINGLE, RAW = "parsed, batches of 64", "parsed, one by one", "raw, batches of 64"
ONE_THREAD, LIMIT = "records.loader, 1 thread", "CRC and copy, 1 thread"
PEERS = ("tvm-ffi", "arraybridge", "eagerpy", "Keras ops")


@cache
def report(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        raise SystemExit(f"{path.relative_to(ROOT)} is not there; run make bench first")
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def rows(name: str, group: str) -> list[dict[str, Any]]:
    return [row for row in report(name)["results"] if row["group"] == group]


def value(name: str, group: str, case: str, contender: str) -> float:
    """The one number of that name."""
    (found,) = (
        row["value"]
        for row in rows(name, group)
        if (row["case"], row["contender"]) == (case, contender)
    )
    return float(found)


def over(name: str, group: str, case: str, one: str, other: str) -> float:
    """`one` divided by `other`: the median of the ratios in each process."""
    found = {row["contender"]: row for row in rows(name, group) if row["case"] == case}
    values = (found[each].get("processes", [found[each]["value"]]) for each in (one, other))
    return statistics.median(a / b for a, b in zip(*values, strict=True))


def cases(name: str, group: str) -> list[str]:
    return list(dict.fromkeys(row["case"] for row in rows(name, group)))


# --- the aims -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Aim:
    """A ratio or an amount, and what it should be at most or at least."""

    what: str
    measured: float
    limit: float
    at_most: bool = True
    unit: str = "1"

    @property
    def met(self) -> bool:
        """Whether the aim is met, at the precision of the shown digits."""
        measured, limit = round(self.measured, 2), round(self.limit, 2)
        return measured <= limit if self.at_most else measured >= limit

    def cells(self) -> tuple[str, str, str, str]:
        shown, limit = (
            quantity(number, self.unit) if self.unit != "1" else ratio(number)
            for number in (self.measured, self.limit)
        )
        return (
            self.what,
            f"{'at most' if self.at_most else 'at least'} {limit}",
            shown,
            "reached" if self.met else "**missed**",
        )


def aims() -> Iterator[Aim]:
    """Each aim with its worst case."""

    every = cases("to_torch", "sizes")
    for rank, limit in ((0, 0.6), (1, 0.6), (2, 0.6), (4, 0.7)):
        ours = over("to_torch", "ranks", f"rank {rank}", OURS, DETACH)
        yield Aim(f"`to_torch(t)`, rank {rank}, over `x.detach()`", ours, limit)
    for contender, limit in ((PAIR, 4.5), ("torch.from_dlpack", 9)):
        worst = min(over("to_torch", "sizes", case, contender, OURS) for case in every)
        yield Aim(f"{said(contender)} over `to_torch(t)`, any size", worst, limit, at_most=False)
    flat = rows("to_torch", "size does not matter")
    of_size = {row["contender"]: row["value"] for row in flat}
    some = [ns for size, ns in of_size.items() if size != "0 B"]
    yield Aim("`to_torch(t)`, slowest size over fastest", max(some) / min(some), 1.05)
    yield Aim("`to_torch(t)`, 0 B over 16 B", of_size["0 B"] / of_size["16 B"], 1.0)

    cpp = [f"rank {rank}" for rank in (0, 2, 4)]
    for what, group, contender, limit in (
        ("`tfTensorToPyTorchTensor(t)`", "to_torch", "tfTensorToPyTorchTensor(t)", 1.6),
        ("taking over", "taking over", "tfTensorToPyTorchTensor(owned)", 0.8),
    ):
        worst = max(over("cpp", group, case, contender, "at::from_blob") for case in cpp)
        yield Aim(f"C++, {what}, over `at::from_blob`", worst, limit)

    back = min(over("to_tf", "sizes", case, PAIR, OURS) for case in cases("to_tf", "sizes"))
    yield Aim("DLPack pair over `to_tf(x)`, any size", back, 2.5, at_most=False)
    leaves = report("structures")["settings"]["leaves"]
    for way in ("to_torch", "to_tf"):
        for case, limit in (("list of 1,000", 1.5), ("dict of 1,000", 1.7)):
            leaf = over("structures", way, case, OURS, "one tensor") / leaves
            yield Aim(f"`{way}`, {case}, a leaf over one tensor", leaf, limit)
            what = f"`map_structure` with the pair over `{way}`, {case}"
            theirs = over("structures", way, case, "map_structure", OURS)
            yield Aim(what, theirs, 4, at_most=False)
    trip = over("to_tf", "small", "round trip", OURS, "to_torch(t) alone")
    yield Aim("`to_tf(to_torch(t))` over `to_torch(t)`", trip, 1.6)
    trip = value("to_tf", "small", "round trip", OURS) / value("to_tf", "sizes", "16 B", OURS)
    yield Aim("`to_tf(to_torch(t))` over `to_tf(x)`", trip, 1.6)
    for way in ("to_torch", "to_tf"):
        copied = over("copies", "256 MB", "copy=True", way, "x.clone()")
        yield Aim(f"`{way}(..., copy=True)`, 256 MB, over `x.clone()`", copied, 1.05)
    copied = over("copies", "256 MB", "transposed", "to_tf", "x.contiguous()")
    yield Aim("`to_tf` of a transposed tensor, 256 MB, over `x.contiguous()`", copied, 1.05)
    for group in FIRST_WRITES:
        for size in cases("writes", group):
            gone, own = (value("writes", group, size, way) for way in (GONE, OWN))
            what = f"{group} of {size}, tf.Tensor gone, less 100 ns, over torch's own"
            yield Aim(what, (gone - 100) / own, 1.1)
    (case,) = cases("writes", "training loop")
    loop = over("writes", "training loop", case, GONE, OWN)
    yield Aim("training that normalises a loader's batches in place, over torch's own", loop, 1.05)
    for size, limit in (("8 B", 10), ("22 B", 10), ("40 B", 3)):
        what = f"a million strings of {size}: `t.numpy().tolist()` over"
        gathered, listed = (
            over("strings", "a million strings", size, "NumPy", ours)
            for ours in ("StringTensor", "list")
        )
        yield Aim(f"{what} a `StringTensor`", gathered, limit, at_most=False)
        yield Aim(f"{what} a list", listed, 1.7, at_most=False)
    ratios = [
        over("strings", "any size", case, "StringTensor", "t.numpy()")
        for case in cases("strings", "any size")
    ]
    if ratios:
        yield Aim("one string of 5 B: a `StringTensor` over `t.numpy()`", ratios[0], 3)
        what = "strings of any size, 1 kB to 1 GiB: a `StringTensor` over `t.numpy()`"
        yield Aim(what, max(ratios[1:]), 1)
    peak = max(row["value"] for row in rows("strings", "peak memory over the result"))
    yield Aim("strings, peak memory over the result", peak, 1.2)
    for way in ("to_torch", "to_tf"):
        more = value("memory", "bytes a live tensor", way, "overhead")
        yield Aim(f"`{way}`, memory beyond the framework's own objects", more, 300, unit="B")
    case = "1,000 shared tensors of 4 MB"
    grown = value("memory", "resident growth", case, "to_torch") / 1000
    yield Aim(f"{case}, resident memory added by each", grown, 1024, unit="B")
    yield Aim(
        "`import tensor_bridge`", value("memory", "import", "wall, median", OURS), 20e6, unit="ns"
    )
    two = "two threads over one"
    for way in ("to_torch", "to_tf"):
        speedup = value("threads", two, "copies of 64 MB", way)
        yield Aim(f"two threads over one, `{way}(..., copy=True)`", speedup, 1.6, at_most=False)
    floor = value("threads", two, "conversions of 16 B", DETACH)
    for way in ("to_torch", "to_tf"):
        ours = value("threads", two, "conversions of 16 B", way)
        what = f"two threads over one, `{way}`, and `x.detach()` in the same way"
        yield Aim(what, ours, floor, at_most=False)
    yield from aims_of_records()


def aims_of_records() -> Iterator[Aim]:
    """Rates of `tensor_bridge.records` over those of other readers."""

    def at_least(what: str, group: str, one: str, other: str, limit: float) -> Aim:
        rate = over("records", group, "rate", one, other)
        return Aim(f"records, {what}", rate, limit, at_most=False)

    one, two = ONE_THREAD, "records.loader, 2 threads"
    dataset = "records.IterableRecordDataset"
    for other, limit in (("data.loader", 6), ("rustfrecord", 6), ("tfrecord", 14)):
        yield at_least(f"parsed, one thread, over `{other}`", PARSED, one, other, limit)
    yield at_least("parsed, two threads over one", PARSED, two, one, 1.7)
    yield at_least("one by one, over `rustfrecord`", SINGLE, dataset, "rustfrecord", 1.5)
    for other, limit in (("grain", 8), ("tfrecords", 4)):
        yield at_least(f"raw, one thread, over `{other}`", RAW, one, other, limit)
    yield at_least(f"raw, one thread, over {LIMIT}", RAW, one, LIMIT, 0.5)
    batches, raw = "records.RecordDataset, batches of 64", "records.RecordDataset, raw"
    yield at_least("64 random ones parsed, over sequential", "random access", batches, one, 0.5)
    rate = value("records", "random access", "rate", raw)
    yield Aim("records, random access, raw", rate, 200_000, at_most=False, unit="records/s")
    for size in (64, 1024):
        workers = f"2 workers, batches of {size}"
        yield at_least(f"{workers}, over empty tensors", workers, dataset, "empty tensors", 0.9)
    yield at_least("JPEG, over the decoder alone", "JPEG", "records.loader", "the decoder", 0.95)
    amounts = (("opening", 1e8, "ns"), ("first batch", 3e8, "ns"), ("memory", 2**20, "B"))
    for group, limit, unit in amounts:
        (row,) = rows("records", group)
        yield Aim(f"records, {group}, {row['case']}", row["value"], limit, unit=unit)


# --- tables -------------------------------------------------------------------------------------


def aims_table() -> str:
    return markdown(("what", "aim", "measured", ""), (aim.cells() for aim in aims()))


def machine(name: str = "to_torch") -> str:
    """The machine and versions of the numbers."""
    about, versions = report(name)["machine"], report(name)["versions"]
    return (
        f"{about['cpu']}, {about['cpus']} CPUs, TensorFlow {versions['tensorflow']}, "
        f"torch {versions['torch']}, Python {versions['python']}, {report(name)['date'][:10]}."
    )


def load(name: str) -> str:
    """The same, with the machine's load."""
    return f"{machine(name)[:-1]}; load {report(name)['machine']['load_average_1m']}."


def times(name: str, group: str, *, only: Sequence[str] = (), first: str = "") -> str:
    """Contenders by cases: the median, and its ratio to the first contender."""
    columns = cases(name, group)
    found = {(row["case"], row["contender"]): row for row in rows(name, group)}
    names = [c for c in dict.fromkeys(c for _, c in found) if not only or c in only]
    body = []
    for contender in names:
        cells = []
        for case in columns:
            row, base = found.get((case, contender)), found.get((case, first or names[0]))
            if row is None:
                cells.append("")
                continue
            shown = quantity(row["value"], row["unit"])
            compare = base is not None and base is not row and base["value"]
            cells.append(f"{shown} ({ratio(row['value'] / base['value'])} x)" if compare else shown)
        body.append((said(contender), *cells))
    return markdown(("", *columns), body)


def any_size() -> Iterator[str]:
    """Strings of any number and size, a row for each."""
    columns = ("StringTensor", "t.numpy()")
    body = []
    for case in cases("strings", "any size"):
        ours, theirs = (value("strings", "any size", case, contender) for contender in columns)
        body.append(
            (case, quantity(ours, "ns"), quantity(theirs, "ns"), f"{ratio(ours / theirs)} x")
        )
    if body:
        yield markdown(("strings", *(f"`{column}`" for column in columns), "ratio"), body)


def structures(way: str) -> str:
    """Nanoseconds per leaf, and the ratio to a conversion of one tensor."""
    leaves = report("structures")["settings"]["leaves"]
    columns = cases("structures", way)
    body = []
    for contender, size in ((OURS, leaves), ("map_structure", leaves), ("one tensor", 1)):
        cells = []
        for case in columns:
            shown = quantity(value("structures", way, case, contender) / size, "ns")
            alone = over("structures", way, case, contender, "one tensor") / size
            cells.append(shown if size == 1 else f"{shown} ({ratio(alone)} x)")
        body.append((said(contender), *cells))
    return markdown(("a leaf", *columns), body)


def said(contender: str) -> str:
    """The contender's name, in backticks if it is code."""
    if contender.endswith(" alone"):
        return f"`{contender.removesuffix(' alone')}` alone"
    plain = (
        OURS,
        *PEERS,
        PAIR,
        "NumPy",
        "plain",
        "list",
        "text",
        "NumPy text",
        "overhead",
        "one tensor",
        GONE,
        HELD,
        ALONE,
    )
    return contender if contender in plain or "own" in contender else f"`{contender}`"


def first_calls() -> str:
    """Cost of each call while TensorFlow holds the tensor and after, and whether it moves."""
    (group,) = {row["group"] for row in report("writes")["results"] if "calls" in row["group"]}
    ways = {HELD: "TensorFlow holds it", GONE: "TensorFlow has let go", OWN: "torch's own tensor"}
    found = {(row["case"], row["contender"]): row for row in rows("writes", group)}

    def cell(call: str, way: str) -> str:
        row = found[call, way]
        moved = ", another address" if row["moved"] else ""
        return f"{quantity(row['value'], row['unit'])}{moved}"

    body = ((f"`{call}`", *(cell(call, way) for way in ways)) for call in cases("writes", group))
    return markdown((group, *ways.values()), body)


RATES = (PARSED, SINGLE, RAW, "random access", "2 workers, batches of 1024", "JPEG")


def heading(group: str) -> str:
    """The group's name with a capital."""
    return f"{group[0].upper()}{group[1:]}"


def record_rates(group: str) -> str:
    """Records a second of each way, and the ratio to the first way of ours."""
    found = rows("records", group)
    ours = next(row["value"] for row in found if row["contender"].startswith("records."))
    body = (
        (
            row["contender"].replace("CRC and copy", "checksum and copy"),
            f"{round(row['value'], -3):,}",
            ratio(row["value"] / ours),
        )
        for row in sorted(found, key=lambda row: -row["value"])
    )
    return markdown(("", "records a second", "ratio"), body)


def listed(*tables: str) -> str:
    return "\n" + "\n".join(tables) + "\n"


TABLES: tuple[dtype_table.Table, ...] = (
    (PAGE, "aims", lambda: listed(aims_table(), machine() + "\n")),
    (PAGE, "sizes", lambda: listed(times("to_torch", "sizes"))),
    (PAGE, "ranks", lambda: listed(times("to_torch", "ranks"))),
    (PAGE, "other ways", lambda: listed(times("to_torch", "other"))),
    (
        PAGE,
        "first writes",
        lambda: listed(
            *(
                f"{group}:\n\n{times('writes', group)}"
                for group in (*FIRST_WRITES, "training loop")
            ),
            load("writes") + "\n",
        ),
    ),
    (SHARED_OR_COPIED, "first calls", lambda: listed(first_calls(), load("writes") + "\n")),
    (PAGE, "back", lambda: listed(times("to_tf", "sizes"))),
    (PAGE, "small", lambda: listed(times("to_tf", "small"))),
    (PAGE, "copies", lambda: listed(times("copies", "256 MB"))),
    (
        PAGE,
        "structures",
        lambda: listed(*(f"`{way}`:\n\n{structures(way)}" for way in ("to_torch", "to_tf"))),
    ),
    (
        PAGE,
        "million strings",
        lambda: listed(
            *(times("strings", group) for group in ("a million strings", "as text", "back")),
            *any_size(),
        ),
    ),
    (PAGE, "memory", lambda: listed(times("memory", "bytes a live tensor"))),
    (PAGE, "import", lambda: listed(times("memory", "import"))),
    (PAGE, "threads", lambda: listed(times("threads", "two threads over one"))),
    ("docs/guides/data.md", "machine", lambda: listed(load("data") + "\n")),
    (
        "docs/guides/records.md",
        "rates",
        lambda: listed(
            *(f"{heading(group)}:\n\n{record_rates(group)}" for group in RATES),
            load("records") + "\n",
        ),
    ),
    ("docs/guides/autograd.md", "machine", lambda: listed(load("autograd") + "\n")),
    ("docs/guides/checkpoints.md", "machine", lambda: listed(load("checkpoint") + "\n")),
    (
        PAGE,
        "native",
        lambda: listed(*(times("cpp", group) for group in ("to_torch", "taking over", "to_tf"))),
    ),
)


def conversions() -> list[tuple[str, dict[str, float]]]:
    names = {
        OURS: OURS,
        DETACH: "x.detach(), torch's floor",
        PAIR: "DLPack pair, unprotected",
        "torch.from_dlpack": "torch.from_dlpack, unprotected",
        "NumPy": "through NumPy, copied",
    }
    return [
        (case, {names[c]: value("to_torch", "sizes", case, c) for c in names})
        for case in ("16 B", "256 MB")
    ]


def first_writes() -> list[tuple[str, dict[str, float]]]:
    names = {
        OWN: "a tensor of torch's own",
        GONE: "TensorFlow has let go",
        HELD: "TensorFlow holds it",
    }
    (batch,) = cases("writes", "training loop")
    return [
        (title, {names[way]: value("writes", group, case, way) for way in names})
        for title, group, case in (
            ("Loader's element, 1 MB", FIRST_WRITES[0], "1 MB"),
            ("Loader's element, 64 MB", FIRST_WRITES[0], "64 MB"),
            (f"Training, {batch}", "training loop", batch),
        )
    ]


def pipelines() -> list[tuple[str, dict[str, float]]]:
    names = {
        OURS: "tensor_bridge.data.loader",
        "raw": "iterator_get_next alone",
        PAIR: "for x in ds, DLPack pair",
        "NumPy": "as_numpy_iterator, from_numpy",
    }
    found = {(row["case"], row["contender"]): row for row in report("data")["results"]}
    return [
        (case, {names[c]: found[case, c]["median_us"] * 1e3 for c in names})
        for case in ("repeated pair", "batches of 8", "shuffled batches", "parallel map")
    ]


def gradients() -> list[tuple[str, dict[str, float]]]:
    """Each wrapped function, and its two parts alone."""
    ns = {name: row["fastest_us"] * 1e3 for name, row in report("autograd")["small"].items()}
    parts = "own framework + an identity"
    return [
        (row["case"], {"wrapped": ns[row["ours"]], parts: sum(ns[part] for part in row["parts"])})
        for row in report("autograd")["cases"]
    ]


def files() -> list[tuple[str, dict[str, float]]]:
    ns = {name: 1e9 * s for name, s in report("checkpoint")["median_seconds"].items()}
    return [
        (title, {OURS: ns[ours], "others": ns[other]})
        for title, ours, other in (
            ("Open, over load_checkpoint", "load", "load, NumPy"),
            ("Touch all, over read()", "touch", "read"),
            ("convert to disk, over cp", "convert", "cp"),
        )
    ]


def stored() -> list[tuple[str, dict[str, float]]]:
    """Nanoseconds a record."""
    names = {ONE_THREAD: OURS, "data.loader": "TensorFlow's parser", LIMIT: "checksum and copy"}
    return [
        (
            heading(group),
            {names.get(c, c): 1e9 / value("records", group, "rate", c) for c in contenders},
        )
        for group, contenders in (
            (PARSED, (ONE_THREAD, "data.loader", "rustfrecord", "tfrecord")),
            (RAW, (ONE_THREAD, "tfrecords", "grain", LIMIT)),
        )
    ]


# File name of a chart, its title, its data, and the highlighted contender.
CHARTS = (
    ("conversion", "Nanoseconds of one conversion, TensorFlow to PyTorch", conversions, OURS),
    ("first-write", "Nanoseconds of a first write in place", first_writes, "TensorFlow has let go"),
    ("data", "Nanoseconds an element", pipelines, "tensor_bridge.data.loader"),
    ("autograd", "Nanoseconds forward and backward, tanh(x) * x of 8 x 8", gradients, "wrapped"),
    ("records", "Nanoseconds a record of 3.6 kB", stored, OURS),
    ("checkpoint", "Nanoseconds for a checkpoint of 4 GiB", files, OURS),
)


def main() -> None:
    dtype_table.main(__doc__, TABLES)
    import _chart

    for name, title, panels, ours in CHARTS:
        for path in _chart.draw(panels(), ours, ASSETS, name, title):
            print(path.relative_to(ROOT))
    for aim in aims():
        if not aim.met:
            print("missed:", *aim.cells()[:3], sep="  ")


if __name__ == "__main__":
    main()
