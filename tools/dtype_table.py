"""Writes the dtype tables of docs/concepts/dtypes.md from tensor_bridge.dtypes().

python tools/dtype_table.py           rewrites what lies between the markers
python tools/dtype_table.py --check   only says whether something would change
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tensor_bridge import DtypeRow, dtypes

ROOT = Path(__file__).resolve().parent.parent
# How the lists of names are sorted.
FAMILIES = (
    "float",
    "bfloat",
    "float8",
    "float4",
    "complex",
    "int",
    "uint",
    "bool",
    "qint",
    "quint",
)


def between_markers(text: str, name: str, content: str) -> str:
    """`text` with `content` between `<!-- begin NAME ... -->` and `<!-- end NAME -->`."""
    begin, end = text.index(f"<!-- begin {name}"), text.index(f"<!-- end {name} -->")
    first = text.index("-->", begin) + len("-->")
    return f"{text[:first]}\n{content}{text[end:]}"


def markdown(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    table = [list(headings), *map(list, rows)]
    table.insert(1, ["---"] * len(table[0]))
    return "".join("|".join(["", *(f" {c} " if c else " " for c in row), "\n"]) for row in table)


def code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def order(row: DtypeRow) -> tuple[int, int, str]:
    stem = row.name.split("_")[0]
    family = stem if stem in FAMILIES else stem.rstrip("0123456789")
    rank = FAMILIES.index(family) if family in FAMILIES else len(FAMILIES)
    return rank, row.itemsize, row.name


def result(row: DtypeRow) -> str:
    """The result of a conversion without keywords."""
    return {
        "shared": "shared",
        "viewed": f"shared as `{row.nearest}`",
        "converted": f"copied to `{row.nearest}`",
        "quantized": "refused",
        "copied": "copied to a `StringTensor`",
        "refused": "refused",
    }[row.kind]


def with_keywords(row: DtypeRow) -> str:
    """The effect of the keywords for dtypes."""
    if row.kind == "converted":
        return "`raw=True`: shared as `torch.uint8`"
    if row.kind == "quantized":
        raw = f"`raw=True`: shared as `{row.nearest}`"
        if not row.torch_name:
            return raw
        return f"`scale=`, `zero_point=`: shared as `{row.torch_name}`; {raw}"
    return ""


def summary() -> str:
    """docs/concepts/dtypes.md: one line for each group of dtypes that are treated alike."""
    groups: dict[tuple[str, str, str], list[DtypeRow]] = {}
    for row in sorted(dtypes(), key=order):
        if row.kind == "torch only":
            continue
        remark = row.reason if row.kind in ("copied", "refused") else with_keywords(row)
        if row.kind == "converted":
            remark = f"every value is exact; {remark}"
        if row.kind == "quantized":
            remark = (
                "`scale=`, `zero_point=`: shared as torch's quantized dtype; "
                if row.torch_name
                else "torch has no such dtype; "
            ) + "`raw=True`: shared as plain integers"
        if row.kind == "viewed":
            remark = "TensorFlow keeps one element a byte"
        groups.setdefault((row.kind, result(row), remark), []).append(row)
    kinds = ("shared", "viewed", "converted", "quantized", "copied", "refused")
    rows = [
        (code(row.name for row in members), how, remark)
        for (kind, how, remark), members in sorted(
            groups.items(), key=lambda group: kinds.index(group[0][0])
        )
    ]
    return markdown(("TensorFlow dtype", "by default", "remarks"), rows)


def full_table() -> str:
    """docs/concepts/dtypes.md: one line per dtype that TensorFlow has."""
    rows = [
        (
            f"`{row.name}`",
            str(row.tf_enum),
            str(row.itemsize or ""),
            f"`{row.torch_name}`" if row.torch_name else "none",
            result(row),
            with_keywords(row),
            row.reason,
        )
        for row in sorted(dtypes(), key=lambda row: row.tf_enum)
        if row.kind != "torch only"
    ]
    headings = ("dtype", "number", "bytes", "torch", "by default", "with keywords", "remarks")
    return markdown(headings, rows)


def torch_only_table() -> str:
    """docs/concepts/dtypes.md: one line per dtype that only torch has."""
    rows = [(f"`{row.torch_name}`", row.reason) for row in dtypes() if row.kind == "torch only"]
    return markdown(("torch dtype", "remarks"), rows)


# A file, a name in its markers, and what writes the text between them.
Table = tuple[str, str, Callable[[], str]]
TABLES: tuple[Table, ...] = (
    ("docs/concepts/dtypes.md", "summary", summary),
    ("docs/concepts/dtypes.md", "dtypes", full_table),
    ("docs/concepts/dtypes.md", "torch only", torch_only_table),
)


def updated(tables: Sequence[Table] = TABLES) -> dict[str, str]:
    """The text that each file should have."""
    texts: dict[str, str] = {}
    for path, name, render in tables:
        text = texts.get(path) or (ROOT / path).read_text(encoding="utf-8")
        texts[path] = between_markers(text, name, render())
    return texts


def main(doc: str = __doc__, tables: Sequence[Table] = TABLES) -> None:
    """Rewrites what is out of date; with `--check`, only leaves with whether something is."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    texts = updated(tables)
    stale = [path for path in texts if texts[path] != (ROOT / path).read_text(encoding="utf-8")]
    for path in stale:
        print(f"{path}: {'is out of date' if check else 'rewritten'}")
        if not check:
            (ROOT / path).write_text(texts[path], encoding="utf-8")
    if check:
        sys.exit(bool(stale))


if __name__ == "__main__":
    main()
