"""What commands write to the terminal. Not for: what they say."""

from __future__ import annotations

import os
import sys
import unicodedata
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

from tensor_bridge._printable import printable

# A column's greatest width: a single long name must not pad every row.
_WIDEST = 120


# The codes of ECMA-48.
_CODES = {"red": 31, "yellow": 33, "cyan": 36}


def say(*lines: str, error: bool = False, colour: str | None = None) -> None:
    """Prints each text as one line, with escapes for what a terminal does not show as text.

    Args:
      lines: What to print.
      error: Whether to print to standard error, not to standard output. What is closed (None in
        ``sys``) takes nothing, and the other one nothing in its place.
      colour: "red", "yellow" or "cyan", for a terminal that shows colours.
    """
    target = sys.stderr if error else sys.stdout
    if target is None:
        return
    text = "\n".join(map(printable, lines))
    encoding = getattr(target, "encoding", None) or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    if colour is not None and _shows_colours(target):
        text = f"\x1b[{_CODES[colour]}m{text}\x1b[0m"
    print(text, file=target)


def _shows_colours(target: TextIO) -> bool:
    """Whether it is a terminal whose user has not asked for none (https://no-color.org)."""
    return target.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


@contextmanager
def activity(text: str) -> Iterator[None]:
    """Shows on a terminal what takes some seconds, until it is done."""
    shown = sys.stderr is not None and sys.stderr.isatty()
    if shown:
        print(f"{text} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print(f"\r{' ' * (len(text) + 4)}\r", end="", file=sys.stderr, flush=True)


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
    if sys.stderr is None or not sys.stderr.isatty():
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

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse ignores an error at the output: --help to a full disk would be a success.
        if file is None or file is not sys.stdout:
            super()._print_message(message, file)
        else:
            print(message, end="", file=file, flush=True)
