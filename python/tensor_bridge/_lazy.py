"""Names of a package that are imported at their first use."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


def attributes(
    module: dict[str, Any], table: Mapping[str, str | None]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's ``__getattr__`` and ``__dir__``.

    Args:
      module: The package's globals; a name that was found is stored in them.
      table: For each name its module in the package; ``"module:function"`` if a function there
        returns the value; with a leading dot, a module of the package above; None if the name is
        that of a module.
    """
    package: str = module["__name__"]

    def find(name: str) -> Any:
        from importlib import import_module

        if name not in table:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        place = table[name]
        if place is None:
            value: Any = import_module(f"{package}.{name}")
        else:
            stem, _, function = place.partition(":")
            found = import_module(f".{stem}", package)
            value = getattr(found, function)() if function else getattr(found, name)
        module[name] = value
        return value

    # Only what is public: the rest of the globals are imports and the package's own modules.
    dunders = {name for name in module if name.startswith("__")}
    return find, lambda: sorted(dunders | set(module["__all__"]))
