"""The command ``tensor-bridge``, also ``python -m tensor_bridge``."""

from __future__ import annotations

import argparse
import os
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from tensor_bridge import __version__
from tensor_bridge._command_line import CommandParser, activity, say
from tensor_bridge._completion import SCRIPTS, completions
from tensor_bridge._exit_status import ExitStatus
from tensor_bridge.checkpoint import _commands as checkpoint_commands
from tensor_bridge.errors import TensorBridgeError
from tensor_bridge.records import _commands as records_commands

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def _doctor(options: Namespace) -> int:
    from tensor_bridge import doctor

    with activity("importing both frameworks, in processes of their own"):
        report = doctor.examine()
    for line in (report.to_json() if options.json else str(report)).split("\n"):
        say(line, colour=None if options.json else _COLOURS.get(line.partition(":")[0]))
    return report.exit_code


def _completion(options: Namespace) -> int:
    if options.shell == "words":
        say(*completions(_parser(), options.words))
    else:
        print(SCRIPTS[options.shell].strip())
    return ExitStatus.DONE


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="tensor-bridge", description="TensorFlow values become PyTorch values and back."
    )
    parser.add_argument("-V", "--version", action="version", version=f"tensor_bridge {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    text = "checkpoints, SavedModels and Keras weights"
    checkpoint_commands.add_commands(commands.add_parser("checkpoint", help=text, description=text))
    text = "TFRecord files"
    records_commands.add_commands(commands.add_parser("records", help=text, description=text))
    doctor = commands.add_parser(
        "doctor",
        help="what is installed, what is shared, what is in the way, and what to do about it",
        description="Tries both conversions in processes of their own and reports. Exits with 1 "
        "if conversion is impossible, with 0 otherwise, warnings included.",
    )
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.set_defaults(run=_doctor)
    text = "prints the code by which a shell completes commands and options"
    completion = commands.add_parser("completion", help=text, description=text)
    completion.add_argument("shell", choices=[*SCRIPTS, "words"], help="words: for that code")
    completion.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    completion.set_defaults(run=_completion)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
      arguments: the arguments after the command's name; by default the process's own.

    Returns:
      The exit status; the guide "The command line" has a table of them.
    """
    if sys.stdout is None:  # `tensor-bridge ... >&-`
        say("tensor-bridge: standard output is closed", error=True)
        return ExitStatus.ERROR
    try:
        options = _parser().parse_args(arguments)
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `tensor-bridge ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return ExitStatus.DONE
    except (TensorBridgeError, OSError) as e:
        say(f"tensor-bridge: {e}", error=True)
        return ExitStatus.ERROR
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    return status


if __name__ == "__main__":
    sys.exit(main())
