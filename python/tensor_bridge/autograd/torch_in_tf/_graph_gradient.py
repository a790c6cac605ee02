"""A gradient for tensors of a TensorFlow graph, which is released with the graph.

TensorFlow 2.12 to 2.21 keep the gradient of a `tf.custom_gradient`, which refers to its graph, in a
registry for as long as the process lives (ops/custom_gradient.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from tensor_bridge.autograd import _tape

_GRADIENTS = "_tensor_bridge_gradients"
_GRADIENT_NAME = "TensorBridgeFunction"


@cache
def _register() -> None:
    """Registers the gradient of all operations that `with_gradient` makes, once."""
    import tensorflow as tf

    @tf.RegisterGradient(_GRADIENT_NAME)  # type: ignore[untyped-decorator]
    def gradient(op: Any, *upstream: Any) -> Any:
        backward = getattr(op.graph, _GRADIENTS, {}).get(op.name)
        if backward is None:
            raise LookupError(
                f"{op.name} was copied from the graph that knows its gradient; a torch function "
                "cannot be differentiated in an imported graph"
            )
        return backward(*upstream)


def with_gradient(
    outputs: Sequence[Any], inputs: Sequence[Any], gradient: Callable[..., Sequence[Any]]
) -> list[Any]:
    """Gives symbolic tensors a gradient of their own, as `tf.custom_gradient` does.

    Args:
      outputs: Tensors of the graph that is being built.
      inputs: What they depend on.
      gradient: From upstream gradients of the outputs to gradients of the inputs.

    Returns:
      The outputs, through which the gradient flows.
    """
    import tensorflow as tf
    from tensorflow.python.framework import ops

    _register()
    count = len(outputs)
    originals = [ops.convert_to_tensor(t) for t in (*outputs, *inputs)]

    def backward(*upstream: Any) -> list[Any]:
        return [None] * count + list(gradient(*upstream[:count]))

    graph = ops.get_default_graph()
    with graph.gradient_override_map({"IdentityN": _GRADIENT_NAME}):
        copies = list(tf.identity_n(originals))
    kept = getattr(graph, _GRADIENTS, None)
    if kept is None:
        kept = {}
        setattr(graph, _GRADIENTS, kept)
    kept[copies[0].op.name] = backward
    _tape.api().record_operation(_GRADIENT_NAME, copies, originals, backward)
    return copies[:count]
