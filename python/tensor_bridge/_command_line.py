"""What commands write to the terminal. Not for: what they say."""

from __future__ import annotations

import sys
import unicodedata
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def progress_bar(text: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal, where rich is installed: a function of done and total bytes."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn
    except ModuleNotFoundError:
        yield None
        return
    columns = (text, BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class CommandParser(ArgumentParser):
    """A parser that escapes its error messages, because they quote the command line."""

    def error(self, message: str) -> NoReturn:
        """Prints the usage and the message, and exits with 2."""
        super().error(printable(message))
