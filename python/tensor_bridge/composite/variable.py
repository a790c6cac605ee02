"""TensorFlow 2 variables: by value, a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _classify, _explanation
from tensor_bridge.composite._registry import Composite, Options, dense

if TYPE_CHECKING:
    import torch

    from tensor_bridge._explanation import Explanation

__all__ = ["COMPOSITES"]


def _to_torch(variable: Any, options: Options) -> torch.Tensor:
    return _C.convert_variable(*_classify.variable_source(variable), **dense(options))


def _explain(variable: Any, options: Options) -> Explanation:
    source = _classify.variable_source(variable)
    return _explanation.from_native(_C.explain_variable(*source, **dense(options)))


COMPOSITES = (
    Composite(
        name="variable",
        tf_keys=(_classify.RESOURCE_VARIABLE,),
        to_torch=_to_torch,
        explain=_explain,
    ),
)
