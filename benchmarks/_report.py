"""The output of benchmarks: one JSON schema for all of them, and one kind of table.

Not for measuring; see `_timing.py`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _machine import describe_machine, describe_versions
from _timing import Contender, Timing
from rich import box
from rich.console import Console
from rich.table import Table

SCHEMA = 1
RESULTS = Path(__file__).resolve().parent / "results"
# Interquartile range over median from which a number is not worth quoting.
NOISY = 0.15


class WrongResultError(Exception):
    """A contender's result is not what it claims to be."""


@dataclass(frozen=True)
class Options:
    """The options of every benchmark."""

    quick: bool
    large: bool
    output: Path
    parts: int

    def rounds(self, full: int) -> int:
        """How many rounds of `full` to run."""
        return max(5, full // (20 if self.quick else self.parts))


def options_parser(
    doc: str | None, quick: str = "few rounds, for a smoke test"
) -> argparse.ArgumentParser:
    """What every benchmark asks for."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON")
    return parser


def parse_options(doc: str | None, arguments: Sequence[str] | None = None) -> Options:
    """The command line, the same for all that keep a `Report`."""
    parser = options_parser(doc)
    parser.add_argument("--large", action="store_true", help="with 4 GB; needs 20 GB of memory")
    parser.add_argument(
        "--parts", type=int, default=1, help="do one of so many parts, and print nothing"
    )
    options = parser.parse_args(arguments)
    return Options(options.quick, options.large, options.output, options.parts)


class Report:
    """The numbers of one benchmark.

    A row has a group (a question), a case (the subject of the question), a contender (who answers),
    and a value with its unit: the median if there are many measurements.
    """

    def __init__(self, name: str, legend: Mapping[str, str], **settings: object) -> None:
        self.name = name
        self.legend = legend
        self.settings = settings
        self.rows: list[dict[str, Any]] = []
        self.machine = describe_machine()
        self.versions = describe_versions()
        self.console = Console(width=None if sys.stdout.isatty() else 132, highlight=False)

    def add_timings(
        self,
        group: str,
        case: str,
        contenders: Sequence[Contender],
        timings: Mapping[str, Timing],
        **facts: object,
    ) -> None:
        """Adds one interleaved run."""
        for contender in contenders:
            timing = timings[contender.name]
            about = {"statement": contender.statement, "shared": contender.shared, **facts}
            self._add(group, case, contender.name, timing.as_json() | about)

    def add_timing(
        self, group: str, case: str, contender: str, timing: Timing, **facts: object
    ) -> None:
        """Adds one contender's time."""
        self._add(group, case, contender, timing.as_json() | facts)

    def add_value(
        self, group: str, case: str, contender: str, value: float, unit: str, **facts: object
    ) -> None:
        """Adds one number."""
        self._add(group, case, contender, {"value": value, "unit": unit, **facts})

    def _add(self, group: str, case: str, contender: str, rest: Mapping[str, object]) -> None:
        self.rows.append({"group": group, "case": case, "contender": contender, **rest})

    def print(self) -> None:
        """Prints one table per group: a line for each contender, a column for each case."""
        versions, machine = self.versions, self.machine
        self.console.print(
            f"[bold]{self.name}[/]: tensor_bridge {versions['tensor_bridge']}, "
            f"TensorFlow {versions['tensorflow']}, torch {versions['torch']}, "
            f"load {machine['load_average_1m']}"
        )
        for group in dict.fromkeys(row["group"] for row in self.rows):
            self._print_group(group)
        noisy = [
            f"{row['group']}, {row['case']}, {row['contender']}"
            for row in self.rows
            if "p75" in row and (row["p75"] - row["p25"]) / row["value"] > NOISY
        ]
        if noisy:
            self.console.print(f"[yellow]Too noisy to quote:[/] {'; '.join(noisy)}")

    def _print_group(self, group: str) -> None:
        rows = [row for row in self.rows if row["group"] == group]
        cases = list(dict.fromkeys(row["case"] for row in rows))
        first = {row["case"]: row["value"] for row in reversed(rows)}
        table = Table(title=group, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("", no_wrap=True)
        for case in cases:
            table.add_column(case, justify="right", no_wrap=True)
        for contender in dict.fromkeys(row["contender"] for row in rows):
            cells = {
                row["case"]: f"{quantity(row['value'], row['unit'])}  "
                f"[cyan]{ratio(row['value'] / first[row['case']] if first[row['case']] else 1)}[/]"
                for row in rows
                if row["contender"] == contender
            }
            table.add_row(contender, *(cells.get(case, "") for case in cases))
        self.console.print(table)

    def write(self, folder: Path) -> None:
        """Writes the numbers with the machine and versions."""
        report = {
            "schema": SCHEMA,
            "benchmark": self.name,
            "date": datetime.date.today().isoformat(),
            "machine": self.machine,
            "versions": self.versions,
            "settings": self.settings,
            "contenders": self.legend,
            "results": self.rows,
        }
        write_json(folder, self.name, report)

    def finish(self, options: Options) -> int:
        """Prints and writes."""
        if options.parts == 1:
            self.print()
        self.write(options.output)
        return 0

    @classmethod
    def merged(cls, parts: Sequence[Path]) -> Report:
        """The same benchmark from several processes.

        Processes differ more from each other than batches within a process do. So a value is the
        median over the processes, and each process's value is kept.
        """
        loaded = [json.loads(path.read_text(encoding="utf-8")) for path in parts]
        report = cls(loaded[0]["benchmark"], loaded[0]["contenders"], **loaded[0]["settings"])
        report.settings["processes"] = len(loaded)
        for rows in zip(*(each["results"] for each in loaded), strict=True):
            row = dict(rows[0])
            assert all(other["statement"] == row["statement"] for other in rows)
            for key in ("value", "p25", "p75"):
                row[key] = round(statistics.median(other[key] for other in rows), 1)
            row["fastest"] = min(other["fastest"] for other in rows)
            for key in ("batches", "disturbed_batches"):
                row[key] = sum(other[key] for other in rows)
            row["processes"] = [other["value"] for other in rows]
            report.rows.append(row)
        return report


def write_json(folder: Path, name: str, report: dict[str, Any]) -> Path:
    """Writes a benchmark's numbers to ``folder/name.json``; returns that path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return path


def quantity(value: float, unit: str) -> str:
    """A number as people read it."""
    if unit == "ns":
        for name, scale, limit in (("s", 1e9, 1e9), ("ms", 1e6, 1e6), ("µs", 1e3, 1e4)):
            if abs(value) >= limit:
                return f"{value / scale:,.1f} {name}"
        return f"{value:,.0f} ns"
    if unit == "B":
        for name, scale in (("GB", 2**30), ("MB", 2**20), ("KB", 1e4)):
            if abs(value) >= scale:
                return f"{value / (1024 if name == 'KB' else scale):,.1f} {name}"
        return f"{value:,.0f} B"
    shown = f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"
    return shown if unit == "1" else f"{shown} {unit}"


def ratio(value: float) -> str:
    """A ratio with about two digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
