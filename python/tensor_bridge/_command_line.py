"""What commands write to the terminal. Not for: what they say."""

from __future__ import annotations

import sys
import unicodedata
from argparse import ArgumentParser
from typing import NoReturn, TextIO

from tensor_bridge._printable import printable

# A column's greatest width: a single long name must not pad every row.
_WIDEST = 120


def say(*lines: str, file: TextIO | None = None) -> None:
    """Prints each text as one line, with escapes for what a terminal does not show as text.

    Args:
      lines: What to print.
      file: Where to; standard output by default.
    """
    target = sys.stdout if file is None else file
    text = "\n".join(map(printable, lines))
    encoding = getattr(target, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=target)


def _width(text: str) -> int:
    """The columns that a terminal takes for a text: two for ideographs, none for accents."""
    if text.isascii():
        return len(text)
    return sum(
        (not unicodedata.combining(c)) * (1 + (unicodedata.east_asian_width(c) in "WF"))
        for c in text
    )


def padded(texts: list[str], right: bool = False) -> list[str]:
    """A column: the texts, escaped and as wide as the widest; ``right`` puts spaces before them."""
    shown = [printable(text) for text in texts]
    widths = [_width(text) for text in shown]
    widest = min(max(widths, default=0), _WIDEST)
    spaces = [" " * (widest - width) for width in widths]
    pairs = zip(spaces, shown, strict=True)
    return [space + text if right else text + space for space, text in pairs]


class CommandParser(ArgumentParser):
    """A parser that escapes its error messages, because they quote the command line."""

    def error(self, message: str) -> NoReturn:
        """Prints the usage and the message, and exits with 2."""
        super().error(printable(message))
