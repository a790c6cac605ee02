"""The figures of docs/recipes: rows of boxes with arrows, in docs/assets/recipes, light and dark.

    python tools/recipe_figures.py           writes them from the table below

A box says whose it is: a file, TensorFlow's or torch's. An arrow back stands for a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

ASSETS = Path(__file__).resolve().parent.parent / "docs" / "assets" / "recipes"
FILE, TENSORFLOW, TORCH = "file", "TensorFlow", "torch"

# Text, lines, and the edge and ground of the boxes of each owner.
PALETTES = {
    "light": {
        "ink": "#1f2328",
        "line": "#59636e",
        FILE: ("#59636e", "#f6f8fa"),
        TENSORFLOW: ("#bc4c00", "#fff1e5"),
        TORCH: ("#0969da", "#ddf4ff"),
    },
    "dark": {
        "ink": "#e6edf3",
        "line": "#9198a1",
        FILE: ("#9198a1", "#212830"),
        TENSORFLOW: ("#db6d28", "#5a1e02"),
        TORCH: ("#4493f8", "#0c2d6b"),
    },
}


@dataclass(frozen=True)
class Figure:
    """A figure: what it shows, and columns of boxes, each with a text and an owner.

    Attributes:
        about: Its title, which a reader hears.
        columns: From left to right; boxes of one column stand below each other.
        back: Whether a gradient flows back.
    """

    about: str
    columns: tuple[tuple[tuple[str, str], ...], ...]
    back: bool = False


def row(about: str, *boxes: tuple[str, str], back: bool = False) -> Figure:
    return Figure(about, tuple((box,) for box in boxes), back)


FIGURES = {
    "keras-backbone": row(
        "Images go through a Keras backbone into a torch head, and the gradient goes back",
        ("images", TORCH),
        ("Keras layers", TENSORFLOW),
        ("head, loss", TORCH),
        back=True,
    ),
    "tfds-classifier": row(
        "records.tfds reads a prepared folder for a torch network",
        ("TFDS folder", FILE),
        ("records.tfds", TORCH),
        ("network", TORCH),
    ),
    "rlds-windows": row(
        "records.rlds cuts episodes into windows for a policy",
        ("episodes", FILE),
        ("windows", TORCH),
        ("policy", TORCH),
    ),
    "bert": row(
        "The rules for BERT load a checkpoint of TensorFlow 1 into transformers' class",
        ("bert_model.ckpt", FILE),
        ("rules.BERT", TORCH),
        ("BertModel", TORCH),
    ),
    "records": row(
        "records.loader reads TFRecord files for a torch network",
        ("TFRecord", FILE),
        ("records.loader", TORCH),
        ("network", TORCH),
    ),
    "text": row(
        "tf.data splits sentences, torch learns from ragged rows",
        ("sentences", TENSORFLOW),
        ("ragged rows", TORCH),
        ("EmbeddingBag", TORCH),
    ),
    "trainer": row(
        "A tf.data pipeline becomes the dataset of transformers' Trainer",
        ("tf.data", TENSORFLOW),
        ("TorchDataset", TORCH),
        ("Trainer", TORCH),
    ),
    "accelerate": row(
        "A tf.data pipeline is a loader that accelerate prepares",
        ("tf.data", TENSORFLOW),
        ("loader", TORCH),
        ("Accelerator", TORCH),
    ),
    "lightning": row(
        "A tf.data pipeline is a loader of a LightningDataModule",
        ("tf.data", TENSORFLOW),
        ("loader", TORCH),
        ("Lightning", TORCH),
    ),
    "two-ranks": Figure(
        "Two ranks read different records of one file",
        ((("TFRecord", FILE),), (("rank 0", TORCH), ("rank 1", TORCH))),
    ),
}

WIDTH, HEIGHT, BOX_WIDTH, BOX_HEIGHT = 400, 96, 116, 44


def drawn(figure: Figure, palette: str) -> str:
    """The figure as SVG. The text stays text, in the reader's own font."""
    return "\n".join(_lines(figure, PALETTES[palette])) + "\n"


def _lines(figure: Figure, colours: dict[str, object]) -> Iterator[str]:
    ink, line = colours["ink"], colours["line"]
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    )
    yield f"<title>{escape(figure.about)}</title>"
    yield (
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{line}"/></marker></defs>'
    )
    gap = (WIDTH - 4 - len(figure.columns) * BOX_WIDTH) / (len(figure.columns) - 1)
    lefts = [2 + i * (BOX_WIDTH + gap) for i in range(len(figure.columns))]
    middles = [
        [HEIGHT / 2 + (i - (len(column) - 1) / 2) * (BOX_HEIGHT + 4) for i in range(len(column))]
        for column in figure.columns
    ]
    for column, left, rows in zip(figure.columns, lefts, middles, strict=True):
        for (text, owner), middle in zip(column, rows, strict=True):
            edge, ground = colours[owner]  # type: ignore[misc]
            x, top = left + BOX_WIDTH / 2, middle - BOX_HEIGHT / 2
            yield (
                f'<rect x="{left:g}" y="{top:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" '
                f'fill="{ground}" stroke="{edge}" stroke-width="1.5"/>'
            )
            for what, y, size in ((text, middle - 2, 13), (owner, middle + 14, 11)):
                yield (
                    f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="middle" '
                    f'fill="{ink}">{escape(what)}</text>'
                )
    for i in range(len(lefts) - 1):
        begin, end = lefts[i] + BOX_WIDTH, lefts[i + 1]
        shift = 8 if figure.back else 0
        for one in middles[i]:
            for other in middles[i + 1]:
                yield _arrow(begin, one - shift, end, other - shift, line)
                if figure.back:
                    yield _arrow(end, other + shift, begin, one + shift, line, "4 3")
    yield "</svg>"


def _arrow(x1: float, y1: float, x2: float, y2: float, colour: object, dashes: str = "") -> str:
    way = 2 if x1 < x2 else -2
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<line x1="{x1 + way:g}" y1="{y1:g}" x2="{x2 - way:g}" y2="{y2:g}" stroke="{colour}" '
        f'stroke-width="1.5" marker-end="url(#a)"{dashed}/>'
    )


def files() -> dict[Path, str]:
    """Every file, and what it contains."""
    return {
        ASSETS / f"{name}-{palette}.svg": drawn(figure, palette)
        for name, figure in FIGURES.items()
        for palette in PALETTES
    }


if __name__ == "__main__":
    ASSETS.mkdir(parents=True, exist_ok=True)
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
