"""Draws docs/guides/checkpoints.svg from benchmarks/results/checkpoint.json.

python benchmarks/bench_checkpoint.py
python tools/checkpoint_chart.py [FILE]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from data_chart import ROOT, bar, text

RESULTS = ROOT / "benchmarks" / "results" / "checkpoint.json"
CHART = ROOT / "docs" / "guides" / "checkpoints.svg"

OURS, OTHER = "#1a7f37", "#cf222e"
# Title of a comparison; name in the JSON, how the chart shows it, colour.
PAIRS = (
    (
        "Open, and make every tensor",
        ("load", "checkpoint.load", OURS),
        ("load, NumPy", "load_checkpoint, from_numpy", OTHER),
    ),
    (
        "Touch every page",
        ("touch", "checkpoint.load", OURS),
        ("read", "read() into a buffer", OTHER),
    ),
    (
        "Write to the disk",
        ("convert", "checkpoint.convert", OURS),
        ("cp", "cp", OTHER),
    ),
)
WIDTH, LEFT, RIGHT, BAR = 760, 220, 90, 16


def chart(report: dict[str, Any]) -> str:
    """The chart as SVG text; each comparison has a scale of its own."""
    median = report["median_seconds"]
    title = f"{report['bytes'] / 2**30:g} GiB in the page cache: milliseconds, less is better"
    parts, y = [text(LEFT, 20, title, weight="bold")], 30
    for heading, *contenders in PAIRS:
        y += 20
        parts.append(text(LEFT, y, heading))
        y += 6
        scale = (WIDTH - LEFT - RIGHT) / max(median[name] for name, *_ in contenders)
        for name, label, colour in contenders:
            parts.append(text(LEFT - 10, y + 12, label, anchor="end"))
            length = max(1.0, median[name] * scale)
            parts.append(bar(LEFT, y, length, BAR - 2, colour))
            parts.append(text(LEFT + length + 5, y + 12, f"{median[name] * 1e3:,.1f}"))
            y += BAR
    machine, versions = report["machine"], report["versions"]
    where = (
        f"{machine['cpu']}, {machine['cpus']} CPUs, TensorFlow {versions['tensorflow']}, "
        f"torch {versions['torch']}, {report['date']}; load {machine['load_average_1m']}"
    )
    parts.append(text(LEFT - 200, y + 24, where, size=10))
    size = f'width="{WIDTH}" height="{y + 36}" viewBox="0 0 {WIDTH} {y + 36}"'
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    CHART.write_text(chart(json.loads(source.read_text(encoding="utf-8"))), encoding="utf-8")
