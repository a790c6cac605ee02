"""Charts of times on a logarithmic scale, a panel for each question.

Two files, for light and for dark pages; both without a background. The text stays text, in the
reader's own font.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from _report import quantity

# Text and lines; ours; the others.
PALETTES = {"light": ("#1f2328", "#0969da", "#8c959f"), "dark": ("#e6edf3", "#4493f8", "#6e7681")}

Panel = tuple[str, Mapping[str, float]]


def draw(panels: Sequence[Panel], ours: str, folder: Path, name: str, about: str) -> list[Path]:
    """Writes the chart for each palette.

    Args:
        panels: A title and the nanoseconds of each contender, in the order to show them.
        ours: The contender to highlight.
        folder: The folder to write to.
        name: The files' name, without the palette.
        about: The files' title.

    Returns:
        The files written.
    """
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "tensor_bridge", "font.family": "sans-serif"}
    )
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for palette, (ink, accent, grey) in PALETTES.items():
        columns = 2 if len(panels) == 4 else len(panels)
        rows, contenders = len(panels) // columns, max(len(times) for _, times in panels)
        figure, axes = pyplot.subplots(
            rows,
            columns,
            figsize=(9, rows * (0.6 + 0.4 * contenders)),
            sharey=len({tuple(times) for _, times in panels}) == 1,
            sharex=True,
            squeeze=False,
        )
        for axis, (title, times) in zip(axes.flat, panels, strict=True):
            labels = list(times)[::-1]
            colours = [accent if label == ours else grey for label in labels]
            axis.barh(labels, [times[label] for label in labels], color=colours, height=0.62)
            for label in labels:
                axis.annotate(
                    quantity(times[label], "ns"),
                    (times[label], label),
                    xytext=(5, 0),
                    textcoords="offset points",
                    va="center",
                    color=ink,
                    fontsize=10,
                    weight="bold" if label == ours else "normal",
                )
            axis.set_title(title, color=ink, fontsize=11, loc="left")
            axis.set_xscale("log")
            axis.margins(x=0.45)
            axis.tick_params(colors=ink, length=0, labelsize=10)
            axis.xaxis.set_visible(False)
            for side in axis.spines.values():
                side.set_visible(False)
        figure.tight_layout()
        path = folder / f"{name}-{palette}.svg"
        metadata = {"Date": None, "Title": about}
        figure.savefig(path, transparent=True, metadata=metadata)
        pyplot.close(figure)
        # matplotlib leaves spaces at the ends of lines.
        lines = (line.rstrip() for line in path.read_text(encoding="utf-8").splitlines())
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        written.append(path)
    return written
