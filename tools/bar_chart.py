"""SVG charts of bars for the guides: their parts, and the frame around them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{colour}"/>'


def text(
    x: float, y: float, words: str, *, anchor: str = "start", weight: str = "normal", size: int = 12
) -> str:
    style = f'font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="#1f2328"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


def framed(
    parts: list[str], width: int, x: float, y: float, report: dict[str, Any], how: str = ""
) -> str:
    """The picture: the parts, which end at ``y``, and below them where the numbers come from.

    Args:
      parts: What `bar` and `text` make.
      width: Of the picture.
      x: Where the last line begins.
      y: The lower end of the parts.
      report: The JSON of a benchmark, for machine, versions and date.
      how: How it was measured.
    """
    machine, versions = report["machine"], report["versions"]
    where = (
        f"{machine['cpu']}, {machine['cpus']} CPUs, TensorFlow {versions['tensorflow']}, "
        f"torch {versions['torch']}, {report['date']}; {how}load {machine['load_average_1m']}"
    )
    size = f'width="{width}" height="{y + 36}" viewBox="0 0 {width} {y + 36}"'
    body = "\n".join([*parts, text(x, y + 24, where, size=10)])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def draw(name: str, target: str, chart: Callable[[dict[str, Any]], str]) -> int:
    """Draws docs/guides/<target>.svg from the results of benchmarks/bench_<name>.py."""
    given = sys.argv[1:]
    results = Path(given[0]) if given else ROOT / "benchmarks" / "results" / f"{name}.json"
    if not results.exists():
        raise SystemExit(f"{results} is not there; run benchmarks/bench_{name}.py first")
    picture = chart(json.loads(results.read_text(encoding="utf-8")))
    (ROOT / "docs" / "guides" / f"{target}.svg").write_text(picture, encoding="utf-8")
    return 0
