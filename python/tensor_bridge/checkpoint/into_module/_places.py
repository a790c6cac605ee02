"""Where names lead in a torch module: its submodules and tensors by path."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tensor_bridge.checkpoint.into_module._layouts import layout_of

if TYPE_CHECKING:
    from torch import nn


def joined(path: str, name: str) -> str:
    """The name of something in the module at a path; "" is the path of the outermost one."""
    return f"{path}.{name}" if path else name


class Places:
    """The submodules and tensors of a module.

    The wrappers of torch.compile, DataParallel and DistributedDataParallel are not part of the
    paths: "conv" leads to "_orig_mod.conv". A module that is used twice has two paths.

    Attributes:
      modules: Each submodule by its path; the module itself is at "".
      tensors: The module's ``state_dict``, the parameters themselves.
    """

    def __init__(self, module: nn.Module) -> None:
        self.tensors: dict[str, Any] = module.state_dict(keep_vars=True)
        self.modules: dict[str, nn.Module] = {}
        self._full: dict[str, str] = {}
        self._seen: dict[str, tuple[str, nn.Module]] = {}
        self._below: dict[str, list[str]] = {"": list(self.tensors)}
        for name in self.tensors:
            for end in (m.start() for m in re.finditer(r"\.", name)):
                self._below.setdefault(name[:end], []).append(name)
        for full, found in module.named_modules(remove_duplicate=False):
            parent, _, name = full.rpartition(".")
            path = ""
            if full:
                above, holder = self._seen[parent]
                path = above if _wraps(holder, name) else joined(above, name)
            self._seen[full] = path, found
            self.modules[path] = found
            self._full[path] = full

    def target(self, path: str, name: str) -> str:
        """The ``state_dict``'s name of a tensor of the module at a path."""
        return joined(self._full[path], name)

    def path_of(self, target: str) -> str:
        """The path of the module that has the tensor of that name in the ``state_dict``."""
        full = target.rpartition(".")[0]
        while full not in self._seen:  # a name that the module's own hooks add
            full = full.rpartition(".")[0]
        return self._seen[full][0]

    def tensor(self, name: str) -> str | None:
        """The ``state_dict``'s name of the tensor that a name, with dots or slashes, leads to."""
        for dotted in (name, name.replace("/", ".")):
            if dotted in self.tensors:
                return dotted
            path, _, last = dotted.rpartition(".")
            if path in self.modules and self._has(path, last):
                return self.target(path, last)
        return None

    def place(self, name: str) -> tuple[str, str] | None:
        """The deepest module that a name leads to, and the rest of the name."""
        parts = re.split(r"[/.]", name)
        for length in range(len(parts) - 1, -1, -1):
            path, rest = ".".join(parts[:length]), parts[length:]
            if path not in self.modules:
                continue
            if layout_of(self.modules[path]) is not None:
                return path, "/".join(rest)
            if len(rest) == 1 and self._has(path, rest[0]):
                return path, rest[0]
        return None

    def own_tensors(self, path: str) -> list[str]:
        """The ``state_dict``'s names of the tensors that a module's weights go to."""
        full = self._full[path]
        below = self._below.get(full, [])
        if layout_of(self.modules[path]) is None:
            return [name for name in below if name.rpartition(".")[0] == full]
        return below

    def _has(self, path: str, name: str) -> bool:
        """Whether a module has a tensor of its own, stored directly or as parts of a formula."""
        if self.target(path, name) in self.tensors:
            return True
        return name in getattr(self.modules[path], "parametrizations", ())


def _wraps(module: nn.Module, name: str) -> bool:
    """Whether the module is a wrapper of its submodule of that name."""
    from torch import nn

    # Its class is in torch._dynamo, whose import takes a second.
    if name == "_orig_mod":
        return type(module).__name__ == "OptimizedModule"
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return name == "module" and isinstance(module, parallel)
