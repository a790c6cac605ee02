"""Draws docs/guides/checkpoints.svg from benchmarks/results/checkpoint.json.

python benchmarks/bench_checkpoint.py
python tools/checkpoint_chart.py [FILE]
"""

from __future__ import annotations

import sys
from typing import Any

from bar_chart import bar, draw, framed, text

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
    return framed(parts, WIDTH, LEFT - 200, y, report)


if __name__ == "__main__":
    sys.exit(draw("checkpoint", "checkpoints", chart))
