"""Draws docs/guides/data.svg from benchmarks/results/data.json.

python benchmarks/bench_data.py
python tools/data_chart.py [FILE]
"""

from __future__ import annotations

import sys
from typing import Any

from bar_chart import bar, draw, framed, text

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
    return framed(
        parts, WIDTH, LEFT, y, report, f"medians of {report['rounds']} interleaved runs, "
    )


if __name__ == "__main__":
    sys.exit(draw("data", "data", chart))
