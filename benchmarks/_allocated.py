"""Bytes that malloc has handed out, counted as the tests count them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests/python/support"))

from memory import allocated

__all__ = ["allocated"]
