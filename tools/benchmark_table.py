"""Writes the benchmark table of README.md from benchmarks/results/convert.json.

make bench
python tools/benchmark_table.py
"""

from __future__ import annotations

import json
import sys
from typing import Any

from dtype_table import ROOT, between_markers, markdown

RESULTS = ROOT / "benchmarks" / "results" / "convert.json"
OURS = "tensor_bridge"
OTHERS = ("DLPack pair", "torch.from_dlpack", "NumPy", "detach")
CASES = ("16 B", "4 MB", "256 MB")


def time(ns: float) -> str:
    if ns >= 1e6:
        return f"{ns / 1e6:,.1f} ms"
    return f"{ns / 1e3:,.0f} µs" if ns >= 1e4 else f"{ns:,.0f} ns"


def ratio(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def table(report: dict[str, Any]) -> str:
    median: dict[tuple[str, str], float] = {
        (row["case"], row["contender"]): row["median_ns"]
        for row in report["results"]
        if row["group"] == "convert"
    }
    rows = []
    for case in CASES:
        ours = median[case, OURS]
        others = (median[case, name] for name in OTHERS)
        rows.append([case, time(ours), *(f"{time(ns)} ({ratio(ns / ours)} x)" for ns in others)])
    headings = ("float32", OURS, "DLPack pair", "`torch.from_dlpack`", "NumPy", "`x.detach()`")
    machine, versions = report["machine"], report["versions"]
    where = (
        f"Medians of one call, and the ratio to ours. {machine['cpu']}, {machine['cpus']} CPUs, "
        f"TensorFlow {versions['tensorflow']}, torch {versions['torch']}, {report['date']}."
    )
    return f"\n{markdown(headings, rows)}\n{where}\n\n"


def main() -> int:
    if not RESULTS.exists():
        raise SystemExit(f"{RESULTS.relative_to(ROOT)} is not there; run make bench first")
    readme = ROOT / "README.md"
    report = json.loads(RESULTS.read_text(encoding="utf-8"))
    text = between_markers(readme.read_text(encoding="utf-8"), "benchmarks", table(report))
    readme.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
