"""tf.experimental.Optional: the converted value, or None if it is empty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensor_bridge import _explanation
from tensor_bridge.composite._registry import (
    TO_TORCH,
    Composite,
    Conversion,
    Options,
    to_dense_torch,
)

if TYPE_CHECKING:
    from tensor_bridge._explanation import Explanation

__all__ = ["COMPOSITES"]


def _has_value(optional: Any) -> bool:
    return bool(to_dense_torch(optional.has_value(), {}).item())


# By hand, because an empty optional has no part.


def _to_torch(optional: Any, options: Options) -> Any:
    return TO_TORCH.convert(optional.get_value(), **options) if _has_value(optional) else None


def _explain(optional: Any, options: Options) -> Explanation:
    if not _has_value(optional):
        return _explanation.combined("None", [])
    return TO_TORCH.explain(optional.get_value(), options)


COMPOSITES = (
    Composite(
        name="optional",
        tf_keys=("tensorflow.python.data.ops.optional_ops.Optional",),
        to_torch=Conversion(_to_torch, _explain),
    ),
)
