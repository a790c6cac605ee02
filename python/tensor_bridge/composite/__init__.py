"""Values that are more than one dense tensor: one file each, found through the registry."""

from __future__ import annotations

from tensor_bridge.composite import (
    coo,
    csr,
    extension_type,
    keras,
    optional,
    ragged,
    string,
    tensor_array,
    uninitialized,
    variable,
)
from tensor_bridge.composite._collate import COLLATE
from tensor_bridge.composite._registry import (
    Composite,
    for_tensorflow,
    for_torch,
    named,
    register,
    unregister,
)
from tensor_bridge.composite.extension_type import Extension
from tensor_bridge.composite.ragged import Ragged
from tensor_bridge.composite.string import StringTensor
from tensor_bridge.composite.user import register_composite, unregister_composite
from tensor_bridge.composite.variable import LiveView, assign

__all__ = [
    "COLLATE",
    "Composite",
    "Extension",
    "LiveView",
    "Ragged",
    "StringTensor",
    "assign",
    "for_tensorflow",
    "for_torch",
    "register",
    "register_composite",
    "unregister_composite",
]

for _module in (
    variable,
    ragged,
    coo,
    csr,
    string,
    tensor_array,
    optional,
    extension_type,
    keras,
    uninitialized,
):
    for _composite in _module.COMPOSITES:
        _known = named(_composite.name)
        if _known is not None:  # this module is loaded again
            unregister(_known)
        register(_composite)
