"""Values that are more than one dense tensor: one file each, found through the registry."""

from __future__ import annotations

from tensor_bridge.composite import variable
from tensor_bridge.composite._registry import Composite, for_tensorflow, for_torch, register

__all__ = ["Composite", "for_tensorflow", "for_torch", "register"]

for _module in (variable,):
    for _composite in _module.COMPOSITES:
        register(_composite)
