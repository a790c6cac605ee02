"""Draws docs/guides/autograd.svg from benchmarks/results/autograd.json.

python benchmarks/bench_autograd.py
python tools/autograd_chart.py [FILE]
"""

from __future__ import annotations

import sys
from typing import Any

from bar_chart import bar, draw, framed, text

COLOURS = ("#1a7f37", "#8c959f", "#bf8700")
WIDTH, LEFT, RIGHT, BAR, GAP, TOP = 760, 170, 60, 17, 16, 54


def chart(report: dict[str, Any]) -> str:
    """The chart as SVG text: a bar for each wrapped function, one below it for its two parts."""
    us = {name: row["fastest_us"] for name, row in report["small"].items()}
    scale = (WIDTH - LEFT - RIGHT) / max(
        max(us[row["ours"]], sum(us[part] for part in row["parts"])) for row in report["cases"]
    )
    parts = [
        text(LEFT, 20, "Microseconds forward + backward, tanh(x) * x of 8 x 8", weight="bold"),
        bar(LEFT, 30, 10, 10, COLOURS[0]),
        text(LEFT + 15, 39, "wrapped"),
        bar(LEFT + 90, 30, 10, 10, COLOURS[1]),
        text(LEFT + 105, 39, "the same in its own framework"),
        bar(LEFT + 300, 30, 10, 10, COLOURS[2]),
        text(LEFT + 315, 39, "an identity of the other"),
    ]
    y = TOP
    for row in report["cases"]:
        y += GAP
        parts.append(text(LEFT - 10, y + BAR, row["case"], anchor="end"))
        ours = us[row["ours"]]
        parts.append(bar(LEFT, y, ours * scale, BAR - 2, COLOURS[0]))
        parts.append(text(LEFT + ours * scale + 5, y + 12, f"{ours:,.0f}"))
        y += BAR
        x: float = LEFT
        for part, colour in zip(row["parts"], COLOURS[1:], strict=True):
            parts.append(bar(x, y, us[part] * scale, BAR - 2, colour))
            x += us[part] * scale
        parts.append(text(x + 5, y + 12, f"{sum(us[part] for part in row['parts']):,.0f}"))
        y += BAR
    return framed(parts, WIDTH, LEFT, y, report, "fastest of interleaved runs, ")


if __name__ == "__main__":
    sys.exit(draw("autograd", "autograd", chart))
