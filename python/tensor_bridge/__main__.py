"""``python -m tensor_bridge``: the command of `tensor_bridge.cli`."""

from __future__ import annotations

import sys

from tensor_bridge.cli import main

if __name__ == "__main__":
    sys.exit(main())
