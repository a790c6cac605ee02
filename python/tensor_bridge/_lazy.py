"""Names of a package that are imported when they are asked for."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["find"]


def find(package: str, table: Mapping[str, str | None], name: str) -> Any:
    """What a package's ``__getattr__`` returns.

    Args:
      package: Name of the package.
      table: For each name its module in the package; ``"module:function"`` if it is what a function
        there returns; with a dot in front, of the package above; None if it is a module itself.
      name: The name that was asked for.

    Raises:
      AttributeError: The table has no such name.
    """
    from importlib import import_module

    if name not in table:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    place = table[name]
    if place is None:
        return import_module(f"{package}.{name}")
    module, _, function = place.partition(":")
    found = import_module(f".{module}", package)
    return getattr(found, function)() if function else getattr(found, name)
