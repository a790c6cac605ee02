"""Names of files: paths, globs, URLs of fsspec, and lists of them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from typing import Any

from tensor_bridge import _refusals
from tensor_bridge.errors import FrameworkError, UnsupportedTypeError
from tensor_bridge.records._damage import damaged, not_found

__all__ = ["expand", "is_url", "open_url"]


def is_url(path: str) -> bool:
    """Whether fsspec must open the path."""
    return "://" in path or "::" in path


def _fsspec(path: str) -> Any:
    try:
        import fsspec
    except ModuleNotFoundError as e:
        raise FrameworkError(
            f"{path} is a URL; reading it needs fsspec, which is not installed: pip install fsspec",
            name="fsspec",
        ) from e
    return fsspec


def open_url(url: str) -> Any:
    """Opens a URL as a binary file, which the caller closes.

    Raises:
      FrameworkError: fsspec, or a package that it needs for this protocol, is not installed.
      RecordNotFoundError: There is no such file.
      RecordError: The file cannot be opened.
    """
    try:
        return _fsspec(url).open(url, "rb").open()
    except FileNotFoundError:
        raise not_found(url) from None
    except ImportError as e:
        raise FrameworkError(f"{url}: {e}", name=e.name) from e
    except (OSError, ValueError) as e:
        raise damaged(url, f"expected a file that can be opened: {e}") from e


def _matches(path: str) -> list[str]:
    if not is_url(path):
        return sorted(glob.glob(path, recursive=True))  # noqa: PTH207 - takes absolute patterns
    try:
        system, name = _fsspec(path).core.url_to_fs(path)
        return sorted(system.unstrip_protocol(found) for found in system.glob(name))
    except FrameworkError:
        raise
    except ImportError as e:
        raise FrameworkError(f"{path}: {e}", name=e.name) from e
    except (OSError, ValueError) as e:
        raise damaged(path, f"expected a pattern that can be expanded: {e}") from e


def expand(paths: Any) -> list[str]:
    """Returns the files in the given order; the files of a pattern are sorted by name.

    Args:
      paths: A path or a URL, which may have ``*``, ``?``, ``[...]`` or ``**`` in it, or an iterable
        of them. If a file with such characters in its name exists, it is not a pattern.

    Raises:
      RecordNotFoundError: A pattern matches nothing, or the list is empty.
      UnsupportedTypeError: `paths` is something else.
    """
    if isinstance(paths, (str, os.PathLike)):
        path = os.fspath(paths)
        if not isinstance(path, str):
            path = os.fsdecode(path)
        if not glob.has_magic(path) or (not is_url(path) and os.path.lexists(path)):
            return [path]
        found = _matches(path)
        if not found:
            raise not_found(path, "no file matches this pattern")
        return found
    if isinstance(paths, (bytes, bytearray)) or not isinstance(paths, Iterable):
        raise UnsupportedTypeError(
            f"expected a path, a pattern, a URL or a list of them, got {_refusals.a_class(paths)}"
        )
    found = [path for each in paths for path in expand(each)]
    if not found:
        raise not_found("[]", "expected at least one file, got an empty list")
    return found
