"""Entries in torch's tables about this package, made once torch has been imported.

Not for: importing torch, or work that would delay a conversion.
"""

from __future__ import annotations

from contextlib import suppress

from tensor_bridge._after_import import after_import

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _unpickler() -> None:
    """Lets ``torch.load(weights_only=True)`` make our values; their constructors check them."""
    import torch

    from tensor_bridge.composite import Ragged, StringTensor

    torch.serialization.add_safe_globals([Ragged, StringTensor])


def _collation() -> None:
    # Private; torch 2.6 to 2.15.
    from torch.utils.data._utils.collate import default_collate_fn_map

    from tensor_bridge.composite import COLLATE

    default_collate_fn_map.update(COLLATE)


def _compiler() -> None:
    from tensor_bridge._torch_compile import break_graphs

    break_graphs()


def tell_torch() -> None:
    """Fills each of torch's tables once it is there. Called when tensor_bridge is imported."""
    for name, tell in (
        ("torch", _unpickler),
        ("torch.utils.data._utils.collate", _collation),
        ("torch._dynamo", _compiler),
    ):
        after_import(name, _harmless(tell))


def _harmless(tell: Callable[[], None]) -> Callable[[], None]:
    def told() -> None:
        # A torch without this table, or another module of the same name. The first conversion
        # reports it, not the import.
        with suppress(Exception):
            tell()

    return told
