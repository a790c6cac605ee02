"""The command ``tensor-bridge``, also ``python -m tensor_bridge``."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import TYPE_CHECKING

from tensor_bridge import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def _doctor(as_json: bool) -> int:
    from tensor_bridge import doctor

    report = doctor.examine()
    print(report.to_json() if as_json else report)
    return report.exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
      arguments: those after the command's name; by default the process's own.

    Returns:
      the exit code: 0, or 1 if the doctor finds that conversion is impossible. A wrong command
      line exits with 2.
    """
    parser = ArgumentParser(
        prog="tensor-bridge", description="TensorFlow values become PyTorch values and back."
    )
    parser.add_argument("--version", action="version", version=f"tensor_bridge {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    doctor = commands.add_parser(
        "doctor",
        help="what is installed, what is shared, what is in the way, and what to do about it",
        description="Tries both conversions in processes of their own and reports. Exits with 1 "
        "if conversion is impossible, with 0 otherwise, warnings included.",
    )
    doctor.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(arguments)
    return _doctor(options.json)


if __name__ == "__main__":
    sys.exit(main())
