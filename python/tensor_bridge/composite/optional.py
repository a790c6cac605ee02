"""tf.experimental.Optional: the converted value, or None where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _explanation
from tensor_bridge.composite._registry import (
    Composite,
    Options,
    explain_to_torch,
    part,
    to_dense_torch,
)

if TYPE_CHECKING:
    from tensor_bridge._explanation import Explanation

__all__ = ["COMPOSITES"]


def _has_value(optional: Any) -> bool:
    return bool(to_dense_torch(optional.has_value(), {}).item())


def _to_torch(optional: Any, options: Options) -> Any:
    if not _has_value(optional):
        return None
    # One tensor, a composite, or a structure of them.
    return _C.convert_tf_to_pytorch(optional.get_value(), **options)


def _explain(optional: Any, options: Options) -> Explanation:
    if not _has_value(optional):
        return _explanation.combined("None", [])
    import tensorflow as tf

    value = optional.get_value()
    if not tf.nest.is_nested(value):
        return explain_to_torch(value, options)
    parts = []
    for i, leaf in enumerate(tf.nest.flatten(value)):
        with part(f"leaf {i}"):
            parts.append((f"leaf {i}", explain_to_torch(leaf, options)))
    return _explanation.combined(type(value).__name__, parts)


COMPOSITES = (
    Composite(
        name="optional",
        tf_keys=("tensorflow.python.data.ops.optional_ops.Optional",),
        to_torch=_to_torch,
        explain=_explain,
    ),
)
