"""The files of the repository, as every lint sees them. Not for rules: those are in the tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
ROOT = SUPPORT.parents[2]


def files(*patterns: str) -> Iterator[tuple[str, str]]:
    """Path from the root and text of each tracked or trackable file that matches a git pathspec."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"]
    listed = subprocess.run(
        [*command, *patterns], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in sorted(set(filter(None, listed.split("\0")))):
        path = ROOT / name
        if not path.is_file():  # deleted and not yet committed
            continue
        try:
            yield name, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # an image
