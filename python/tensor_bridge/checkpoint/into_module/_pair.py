"""A torch module beside the Keras layer whose weights it takes. Not for: comparing them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tensor_bridge.checkpoint.into_module._layer_graph import LayerGraph

if TYPE_CHECKING:
    from torch import nn

    from tensor_bridge.checkpoint.read._layer import Layer


@dataclass(frozen=True)
class Pair:
    """A module and a layer, each in its model.

    Attributes:
      path: The module's path, a key of ``modules``.
      name: The layer's name in ``graph``.
      modules: All modules of the torch model.
      graph: All layers of the Keras model.
      flattened: The sizes that the caller gave for a Linear module after a flattened picture.
    """

    path: str
    name: str
    modules: Mapping[str, nn.Module]
    graph: LayerGraph
    flattened: tuple[int, ...] | None = None

    @property
    def module(self) -> nn.Module:
        return self.modules[self.path]

    @property
    def layer(self) -> Layer:
        return self.graph.layers[self.name]

    @property
    def title(self) -> str:
        """The path of the module, and the layer's name if it differs."""
        same = self.path.replace(".", "/") == self.name
        return self.name if same else f"{self.path or 'the module'} <- {self.name}"

    @property
    def torch_name(self) -> str:
        """The module's name in messages."""
        return f"torch.nn.{torch_class(self.module) or type(self.module).__name__}"

    def differs(self, name: str, keras: Any, torch: Any) -> str:
        """The message for an option whose value differs in the module."""
        return f"the layer's {name} is {keras}, {self.torch_name} has {torch}"

    def neighbours(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """The modules before and after this one in an nn.Sequential; none elsewhere."""
        parent_path, _, last = self.path.rpartition(".")
        parent = self.modules.get(parent_path) if self.path else None
        if parent is None or torch_class(parent) != "Sequential":
            return [], []
        names = [name for name, _ in parent.named_children()]
        children = list(parent.children())
        if last not in names:
            return [], []
        at = names.index(last)
        return children[:at], children[at + 1 :]


def torch_class(module: nn.Module) -> str | None:
    """The torch.nn class whose ``forward`` the module has; None if it has its own."""
    own: Any = type(module)
    for kind in own.__mro__:
        if kind.__module__.startswith("torch.nn.modules"):
            same = own.forward is kind.forward
            inner = getattr(kind, "_conv_forward", None)
            same = same and getattr(own, "_conv_forward", None) is inner
            return kind.__name__ if same else None
    return None
