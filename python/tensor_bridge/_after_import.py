"""Calls an action as soon as a module has been imported, without importing it.

torch reads some of its tables before it calls anything of ours: the functions that its compiler
knows, the classes that its collation and its unpickler take. Not for: changing another module.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from typing import Any


class _Finder:
    """Finds modules as the other finders do, and runs the actions once an awaited module has run.

    It removes itself from `sys.meta_path` after the last awaited module.
    """

    def __init__(self) -> None:
        self.actions: dict[str, list[Callable[[], object]]] = {}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in self.actions:
            return None
        for finder in sys.meta_path:
            find_spec = getattr(finder, "find_spec", None)
            if finder is self or find_spec is None:
                continue
            spec = find_spec(name, path, target)
            if spec is not None:
                return self._acting(spec)
        return None

    def _acting(self, spec: ModuleSpec) -> ModuleSpec:
        loader: Any = spec.loader
        run = getattr(loader, "exec_module", None)
        if run is None:
            return spec

        def exec_module(module: Any) -> None:
            del loader.exec_module  # back to the method of the class
            run(module)
            actions = self.actions.pop(spec.name, [])
            if not self.actions and self in sys.meta_path:
                sys.meta_path.remove(self)
            for action in actions:
                action()

        loader.exec_module = exec_module
        return spec


_finder = _Finder()


def _is_ready(name: str) -> bool:
    """Whether a module's import has finished."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    return module is not None and not getattr(spec, "_initializing", False)


def after_import(name: str, action: Callable[[], object]) -> None:
    """Calls ``action`` once the module has been imported: now, if it already has."""
    if _is_ready(name):
        action()
        return
    _finder.actions.setdefault(name, []).append(action)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
