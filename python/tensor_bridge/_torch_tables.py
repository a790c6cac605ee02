"""What torch is told about this package: in its tables, when it has been imported.

Not for: importing torch, or anything that a conversion waits for.
"""

from __future__ import annotations

from contextlib import suppress

from tensor_bridge._after_import import after_import

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _unpickler() -> None:
    """``torch.load(weights_only=True)`` makes our values; their constructors check them."""
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
    """Fills torch's tables, each as soon as it is there. Called when tensor_bridge is imported."""
    for name, tell in (
        ("torch", _unpickler),
        ("torch.utils.data._utils.collate", _collation),
        ("torch._dynamo", _compiler),
    ):
        after_import(name, _harmless(tell))


def _harmless(tell: Callable[[], None]) -> Callable[[], None]:
    def told() -> None:
        # A torch that has no such table, or something else of its name. Importing it is not the
        # moment to say so: the first conversion does.
        with suppress(Exception):
            tell()

    return told
