"""Paths that callers pass. Not for: the files there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from tensor_bridge import _refusals
from tensor_bridge.errors import InvalidOptionError, UnsupportedTypeError

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/{1,2}")


def _is_path(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:  # a surrogate that represents no byte
        return False
    return True


def local_path(value: Any, hint: str = "") -> Path:
    """Returns the path that a caller passed, with ``~`` for the home folder.

    Args:
      value: A string or path of the local file system.
      hint: Advice for a value that is not a path.

    Raises:
      UnsupportedTypeError: It is not a path.
      InvalidOptionError: It is empty, or a URL or another address that is not a local file.
    """
    if not isinstance(value, (str, os.PathLike)) or isinstance(os.fspath(value), bytes):
        raise UnsupportedTypeError(f"expected a path, got {_refusals.a_class(value)}{hint}")
    text = str(os.fspath(value))
    if not text or "\0" in text or not _is_path(text):
        raise InvalidOptionError(f"expected a path, got {text!r}")
    remote = _REMOTE.match(text)
    if remote is not None and not Path(remote[0]).exists():
        raise InvalidOptionError(
            f"{text}: expected a local path, for only local files are read and written; copy it to "
            "a disk first"
        )
    return Path(text).expanduser()
