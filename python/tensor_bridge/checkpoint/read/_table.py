"""Which files are tables of TensorFlow's. Not for: what is in them, which C++ reads."""

from __future__ import annotations

from pathlib import Path

__all__ = ["is_table"]

_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")


def is_table(path: str) -> bool:
    """Whether a file ends as tables do: an index, or a checkpoint of the first format."""
    try:
        with Path(path).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - len(_MAGIC)))
            return file.read() == _MAGIC
    except (OSError, ValueError):  # ValueError: a path that no file can have
        return False
