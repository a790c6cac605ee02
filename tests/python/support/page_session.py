"""Runs the Python blocks of a page, one after the other in one namespace.

Not a test: the tests run it in a separate process.
"""

from __future__ import annotations

import contextlib
import io
import traceback
from typing import Any


def run(blocks: list[tuple[int, str]], page: str) -> list[str]:
    """The output of each block, and the last line of its traceback if it raises.

    Args:
        blocks: Line number in the page, and code.
        page: Path of the page, for tracebacks and for what reads the source of a function.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    outputs = []
    for line, code in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            try:
                # Blank lines in front, so that a traceback names the line of the page.
                # A page is not compiled as this file is: `from __future__` stops here.
                text = "\n" * (line - 1) + code
                exec(compile(text, page, "exec", dont_inherit=True), namespace)
            except Exception as e:
                printed.write("".join(traceback.format_exception_only(e)))
        outputs.append(printed.getvalue())
    return outputs
