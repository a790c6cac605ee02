"""Which files are TensorFlow's tables. Not for: their content, which C++ reads."""

from __future__ import annotations

from tensor_bridge.checkpoint.read._files import last_bytes
from tensor_bridge.errors import TensorBridgeError

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")


def is_table(path: str) -> bool:
    """Whether a file ends as tables do: an index, or a checkpoint of the first format."""
    try:
        return last_bytes(path, len(MAGIC)) == MAGIC
    except TensorBridgeError:  # no file, or none that can be read
        return False
