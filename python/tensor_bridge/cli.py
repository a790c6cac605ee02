"""The command ``tensor-bridge``, also ``python -m tensor_bridge``."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from typing import TYPE_CHECKING

from tensor_bridge import __version__
from tensor_bridge.checkpoint._commands import add_commands
from tensor_bridge.errors import TensorBridgeError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
      arguments: those after the command's name; by default the process's own.

    Returns:
      the exit code: 0, 1 for what a command found (differences, damage), 2 for an error, 130 if it
      was interrupted. A wrong command line exits with 2.
    """
    parser = ArgumentParser(
        prog="tensor-bridge", description="TensorFlow values become PyTorch values and back."
    )
    parser.add_argument("--version", action="version", version=f"tensor_bridge {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    text = "checkpoints, SavedModels and Keras weights"
    add_commands(commands.add_parser("checkpoint", help=text, description=text))
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `tensor-bridge ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except (TensorBridgeError, OSError) as e:
        print(f"tensor-bridge: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
