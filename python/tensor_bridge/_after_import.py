"""What is to be done as soon as a module of torch is there, without importing it.

Some of torch's tables are read before anything of ours is called: which functions its compiler
knows, which classes its collation and its unpickler take. Not for: changing anybody's module.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from typing import Any


class _Finder:
    """Finds what the others find, and acts when the awaited modules have run.

    It leaves `sys.meta_path` with the last of them.
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
            del loader.exec_module  # the class has its own
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
    """Whether a module is imported, and not only being imported."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    return module is not None and not getattr(spec, "_initializing", False)


def after_import(name: str, action: Callable[[], object]) -> None:
    """Calls ``action`` when the module has been imported: at once if it is, else then."""
    if _is_ready(name):
        action()
        return
    _finder.actions.setdefault(name, []).append(action)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
