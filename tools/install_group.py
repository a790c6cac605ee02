"""Installs dependency groups of pyproject.toml with the pip of this interpreter.

    python tools/install_group.py GROUP... [-- pip options]

pip itself reads groups from 25.1 on; virtual environments made by Python 3.10 to 3.13 may start
with an older pip.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib  # type: ignore[no-redef]

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def requirements(groups: dict[str, list[Any]], name: str, path: tuple[str, ...] = ()) -> list[str]:
    """The requirements of one group, those of included groups in place."""
    if name in path:
        raise SystemExit(f"dependency group {name!r} includes itself: {' -> '.join((*path, name))}")
    if name not in groups:
        raise SystemExit(f"no dependency group {name!r}; there are: {', '.join(sorted(groups))}")
    found: list[str] = []
    for entry in groups[name]:
        if isinstance(entry, str):
            found.append(entry)
        else:
            found += requirements(groups, entry["include-group"], (*path, name))
    return found


def main(arguments: list[str]) -> int:
    split = arguments.index("--") if "--" in arguments else len(arguments)
    names, options = arguments[:split], arguments[split + 1 :]
    if not names:
        raise SystemExit(__doc__)
    groups = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["dependency-groups"]
    wanted = [requirement for name in names for requirement in requirements(groups, name)]
    command = [sys.executable, "-m", "pip", "install", *options, *dict.fromkeys(wanted)]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
