"""The exit statuses of the command ``tensor-bridge``, the same in all of its commands."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """What the command's process ends with.

    Attributes:
      DONE: It did what was asked, and found none of what it looked for (differences, damage).
      FOUND: It found what it looked for: checkpoints that differ, damage, a conversion that is
        impossible.
      ERROR: It could not do what was asked: a missing file, a format that is not read, a target
        that exists, a wrong command line, an output that is full or closed.
      NOTHING_COMPARED: There was nothing to compare: no tensor with a checksum, no variables.
      INTERRUPTED: Ctrl-C ended it; the number is the one that shells use.
    """

    DONE = 0
    FOUND = 1
    ERROR = 2
    NOTHING_COMPARED = 3
    INTERRUPTED = 130
