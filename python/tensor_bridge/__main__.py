"""`python -m tensor_bridge`, the same as the command `tensor-bridge`."""

from __future__ import annotations

import sys

from tensor_bridge.cli import main

sys.exit(main())
