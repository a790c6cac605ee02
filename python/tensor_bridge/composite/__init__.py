"""Values that are more than one dense tensor: one file each, found through the registry."""

from __future__ import annotations

from tensor_bridge.composite import (
    coo,
    csr,
    extension_type,
    keras,
    live_view,
    optional,
    ragged,
    string,
    tensor_array,
    uninitialized,
    variable,
)
from tensor_bridge.composite._assign import assign
from tensor_bridge.composite._collate import COLLATE
from tensor_bridge.composite._registry import (
    TO_TF,
    TO_TORCH,
    for_torch,
    named,
    register,
    unregister,
)
from tensor_bridge.composite.extension_type import Extension
from tensor_bridge.composite.live_view import LiveView
from tensor_bridge.composite.ragged import Ragged
from tensor_bridge.composite.string import StringTensor
from tensor_bridge.composite.user import register_composite, unregister_composite

__all__ = [
    "COLLATE",
    "TO_TF",
    "TO_TORCH",
    "Extension",
    "LiveView",
    "Ragged",
    "StringTensor",
    "assign",
    "for_torch",
    "register_composite",
    "unregister_composite",
]

for _module in (
    variable,
    live_view,
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
        if named(_composite.name) is not None:  # this module is being reloaded
            unregister(_composite.name, of_user=False)
        register(_composite)
