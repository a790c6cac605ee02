"""Markdown pages as the tests see them: fenced blocks, tables, headings, links."""

from __future__ import annotations

import doctest
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from tree import ROOT

FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
# Marks a block that is shown only; tests/lint/test_examples.py asks for the reason.
NOT_RUN = "not-run"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
CODE_SPAN = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        language: First word of the info string.
        words: The others.
        text: The text between the fences.
        line: Number of the first line of the text.
        output: The text block that follows directly, or None.
    """

    language: str
    words: tuple[str, ...]
    text: str
    line: int
    output: str | None

    def prints(self, got: str) -> bool:
        """Whether the page shows this output for the block."""
        return doctest.OutputChecker().check_output(self.output or "", got, FLAGS)


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def prose(self) -> str:
        """The text without its fenced blocks."""
        return FENCE.sub("", self.text)

    def blocks(self, *languages: str) -> list[Block]:
        """The fenced blocks in those languages that are to be run, in order."""
        text = self.text
        fences = list(FENCE.finditer(text))
        found = []
        for fence, after in zip_longest(fences, fences[1:]):
            language, *words = fence["info"].split() or [""]
            if language not in languages or NOT_RUN in words:
                continue
            follows = after is not None and not text[fence.end() : after.start()].strip()
            found.append(
                Block(
                    language,
                    tuple(words),
                    fence["text"],
                    text.count("\n", 0, fence.start("text")) + 1,
                    after["text"] if follows and after["info"].strip() == "text" else None,
                )
            )
        return found

    def rows(self, name: str) -> Iterator[list[str]]:
        """The cells of the table between the markers `<!-- begin NAME` and `<!-- end NAME -->`."""
        text = self.text
        table = text[text.index(f"<!-- begin {name}") : text.index(f"<!-- end {name} -->")]
        lines = [line for line in table.splitlines() if line.startswith("|")]
        for line in lines[2:]:
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]

    def anchors(self) -> set[str]:
        """The anchors that a link to this page may name after `#`, by GitHub's rule."""
        headings = re.findall(r"^#{1,6} +(.+?) *$", self.prose, re.MULTILINE)
        kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
        return {heading.replace(" ", "-") for heading in kept}

    def links(self) -> Iterator[str]:
        """The targets of the page's links, those to other sites included."""
        yield from re.findall(r"\]\(([^)\s]+)\)", CODE_SPAN.sub("", self.prose))


PAGES = [
    Page(path)
    for path in (
        *sorted(ROOT.glob("*.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
    )
]


def spans(text: str) -> list[str]:
    """The code spans of a line."""
    return CODE_SPAN.findall(text)
