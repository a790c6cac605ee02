"""The dtypes of a checkpoint's entries. Not for: what they become (`_stored_dtypes`)."""

from __future__ import annotations

from typing import Any

from tensor_bridge._dtypes import DtypeRow


def known_row(entry: Any) -> DtypeRow:
    """The row of an entry's dtype.

    Raises:
      UnsupportedDtypeError: There is none.
    """
    row: DtypeRow | None = entry.row
    if row is None:
        raise entry.unsupported(f"no TensorFlow up to 2.21 has a dtype of {entry.dtype}")
    return row
