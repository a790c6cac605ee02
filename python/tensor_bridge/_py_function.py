"""Python functions inside TensorFlow's graphs that are released with the graph that calls them.

TensorFlow 2.12 to 2.21 keep the function of a `tf.py_function` in the outermost graph
(ops/script_ops.py), which in eager mode lives as long as the process: a torch module, or a data
set, would never be freed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

_CALLABLES = "_tensor_bridge_callables"


class _Held:
    """A function that graphs hold."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function


def _graphs() -> list[Any]:
    """The graph that is being built and its outer graphs, without the process's own graph."""
    import tensorflow as tf

    graph = tf.compat.v1.get_default_graph()
    found = [graph]
    # The outermost graph is the process's own; it is not a FuncGraph.
    while hasattr(graph, "outer_graph"):
        graph = graph.outer_graph
        if hasattr(graph, "outer_graph"):
            found.append(graph)
    return found


def py_function(
    function: Callable[..., Any], inputs: Sequence[Any], dtypes: Any, name: str | None = None
) -> Any:
    """`tf.py_function` while a graph is built; the function lives as long as that graph."""
    import tensorflow as tf

    held = _Held(function)
    reference = weakref.ref(held)
    # A function that was traced inside another may outlive it, and the other way round.
    for graph in _graphs():
        kept = getattr(graph, _CALLABLES, None)
        if kept is None:
            kept = []
            setattr(graph, _CALLABLES, kept)
        kept.append(held)
    del held

    def call(*values: Any) -> Any:
        target = reference()
        if target is None:
            raise RuntimeError("the graph that this function belongs to is gone")
        return target.function(*values)

    return tf.py_function(call, inputs, dtypes, name=name)
