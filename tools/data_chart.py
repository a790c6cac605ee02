"""Draws docs/guides/data.svg from benchmarks/results/data.json.

python benchmarks/bench_data.py
python tools/data_chart.py [FILE]
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "data.json"
CHART = ROOT / "docs" / "guides" / "data.svg"

# Name in the JSON, and how the chart shows it.
SERIES = (
    ("tensor_bridge", "tensor_bridge.data.loader", "#1a7f37"),
    ("raw", "TensorFlow's iterator_get_next alone", "#8c959f"),
    ("DLPack pair", "for x in ds, DLPack pair", "#bf8700"),
    ("NumPy", "as_numpy_iterator, torch.from_numpy", "#cf222e"),
)
CASES = ("repeated pair", "batches of 8", "shuffled batches", "parallel map")
WIDTH, LEFT, RIGHT, BAR, GAP, TOP = 760, 150, 70, 15, 18, 62


def chart(report: dict[str, Any]) -> str:
    """The chart as SVG text: one group of bars a pipeline, one bar a way to iterate it."""
    median = {(row["case"], row["contender"]): row["median_us"] for row in report["results"]}
    longest = max(median[case, name] for case in CASES for name, *_ in SERIES)
    scale = (WIDTH - LEFT - RIGHT) / longest
    parts = [text(LEFT, 20, "Microseconds an element (median), less is better", weight="bold")]
    for i, (_, label, colour) in enumerate(SERIES):
        x, y = LEFT + 300 * (i % 2), 30 + 16 * (i // 2)
        parts += [bar(x, y, 10, 10, colour), text(x + 15, y + 9, label)]
    y = TOP
    for case in CASES:
        y += GAP
        parts.append(text(LEFT - 10, y + BAR * 2 + 4, case, anchor="end"))
        for name, _, colour in SERIES:
            value = median[case, name]
            parts.append(bar(LEFT, y, value * scale, BAR - 2, colour))
            parts.append(text(LEFT + value * scale + 5, y + 11, f"{value:,.0f}"))
            y += BAR
    machine, versions = report["machine"], report["versions"]
    where = (
        f"{machine['cpu']}, {machine['cpus']} CPUs, TensorFlow {versions['tensorflow']}, "
        f"torch {versions['torch']}, {report['date']}; medians of {report['rounds']} "
        f"interleaved runs, load {machine['load_average_1m']}"
    )
    parts.append(text(LEFT, y + 24, where, size=10))
    size = f'width="{WIDTH}" height="{y + 36}" viewBox="0 0 {WIDTH} {y + 36}"'
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{colour}"/>'


def text(
    x: float, y: float, words: str, *, anchor: str = "start", weight: str = "normal", size: int = 12
) -> str:
    style = f'font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="#1f2328"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


def main(arguments: list[str]) -> int:
    results = Path(arguments[0]) if arguments else RESULTS
    if not results.exists():
        raise SystemExit(f"{results} is not there; run benchmarks/bench_data.py first")
    CHART.write_text(chart(json.loads(results.read_text(encoding="utf-8"))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
