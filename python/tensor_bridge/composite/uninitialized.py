"""Parameters of lazy modules, which have no value yet."""

from __future__ import annotations

from typing import Any

from tensor_bridge import _refusals
from tensor_bridge.composite._registry import TO_TF, Composite, Options, of_parts

__all__ = ["COMPOSITES"]


def _refuse(parameter: Any, options: Options) -> Any:
    raise _refusals.refusal_to_tf(parameter)


COMPOSITES = (
    Composite(
        name="uninitialized parameter",
        torch_keys=(_refusals.UNINITIALIZED,),
        to_tf=of_parts(TO_TF, _refuse),
    ),
)
