"""A torch callable as a function of TensorFlow tensors that a tape differentiates."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from tensor_bridge import _C, _refusals
from tensor_bridge._frameworks import ensure_tensorflow
from tensor_bridge._options import checks_keywords
from tensor_bridge._structures import (
    Rebuild,
    flatten,
)
from tensor_bridge.autograd import _tape
from tensor_bridge.autograd._naming import name_after
from tensor_bridge.autograd.torch_in_tf import _symbolic
from tensor_bridge.autograd.torch_in_tf._piece import Piece, run, to_tf
from tensor_bridge.composite import TO_TF, TO_TORCH
from tensor_bridge.errors import UnsupportedTypeError


class TorchFunction:
    """What `torch_to_tf` returns: call it like the torch callable, with TensorFlow values.

    Attributes:
      fn: The torch callable.
    """

    def __init__(self, fn: Callable[..., Any], output_signature: Any) -> None:
        self.fn = fn
        self._signature = output_signature
        self._in_graph = without_autograph(call)
        name_after(self, fn)

    def __repr__(self) -> str:
        return f"torch_to_tf({self.fn!r})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function with TensorFlow values."""
        if _tape.api().executing_eagerly():
            return call(self.fn, self._signature, args, kwargs)
        return self._in_graph(self.fn, self._signature, args, kwargs)


@cache
def without_autograph(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which AutoGraph leaves as it is."""
    import tensorflow as tf

    marked: Callable[..., Any] = tf.autograph.experimental.do_not_convert(fn)
    return marked


def call(fn: Callable[..., Any], signature: Any, args: Any, kwargs: Any, constants: int = 0) -> Any:
    """Calls a torch function on TensorFlow values, eagerly or as an operation of a graph.

    Args:
      fn: The function.
      signature: What it returns in a graph, or None to find it out.
      args: Its arguments.
      kwargs: Its keywords.
      constants: How many leading leaves need no gradient.
    """
    is_eager = _C.is_eager_tensor
    leaves: list[Any] = list(args)
    spec: Rebuild = None
    if kwargs or not all(map(is_eager, leaves)):
        leaves = []
        spec = flatten((args, kwargs), is_eager, TO_TORCH.takes, leaves)
    symbolic = not _tape.api().executing_eagerly()
    for i, leaf in enumerate(leaves):
        if not is_eager(leaf):
            if is_variable(leaf):
                leaves[i] = read(leaf)
            symbolic = symbolic or _is_symbolic(leaf)
    if symbolic:
        return _symbolic.call(fn, signature, spec, leaves, constants)
    watched = _tape.api().possible_types
    wanted = [
        i
        for i, leaf in enumerate(leaves)
        if i >= constants and is_eager(leaf) and watched([leaf]) and _tape.is_dense(leaf)
    ]
    result, inputs = run(fn, spec, leaves, wanted)
    tensors = result.tensors
    values = [to_tf(x) for x in tensors]
    depending = [i for i, x in enumerate(tensors) if x.requires_grad] if wanted else []
    if depending:
        piece = Piece(inputs, [tensors[i] for i in depending])
        piece.record("TorchFunction", [values[i] for i in depending], [leaves[i] for i in wanted])
    for i, leaf in enumerate(result.leaves if len(values) < len(result.leaves) else ()):
        if i not in result.places and TO_TF.takes(leaf):
            result.leaves[i] = _C.convert_pytorch_to_tf(leaf)
    return result.build(values)


def is_variable(value: Any) -> bool:
    """Whether a value is a tf.Variable or a Keras variable."""
    return _refusals.is_resource_variable(value) or (
        hasattr(value, "assign") and hasattr(value, "value")
    )


def read(variable: Any) -> Any:
    """A variable's value, read while tapes record it."""
    import tensorflow as tf

    return tf.convert_to_tensor(variable)


def _is_symbolic(leaf: Any) -> bool:
    return _refusals.is_graph_tensor(leaf) or _refusals.is_keras_tensor(leaf)


@checks_keywords
def torch_to_tf(fn: Callable[..., Any], *, output_signature: Any = None) -> TorchFunction:
    """Makes a torch callable a function of TensorFlow tensors that GradientTape differentiates.

    Values and gradients share memory where possible, and are copied otherwise. Gradients of any
    order are exact, and forward mode works.

    Inside a `tf.function` (and so in Keras's ``fit``, in tf.data) the call is a `tf.py_function`:
    it runs in the process that made it, cannot be compiled by XLA and is not part of a SavedModel.

    Args:
      fn: A function or torch.nn.Module: anything that takes and returns torch values, or structures
        of them. Gradients flow to floating-point and complex tensors. A module's parameters are
        constants for TensorFlow; `TorchLayer` trains them.
      output_signature: Structure of `tf.TensorSpec` like the result of ``fn``. Needed only in a
        graph, if running ``fn`` on torch's fake tensors cannot find the shapes.

    Returns:
      A callable that takes and returns TensorFlow values. A call in a graph raises `GradientError`
      if ``output_signature`` is needed and missing.

    Raises:
      UnsupportedTypeError: ``fn`` is not callable.

    Example:
      >>> import tensorflow as tf, torch
      >>> from tensor_bridge.autograd import torch_to_tf
      >>> square = torch_to_tf(lambda x: x * x)
      >>> x = tf.constant([1.0, 2.0])
      >>> with tf.GradientTape() as tape:
      ...     tape.watch(x)
      ...     y = square(x)
      >>> tape.gradient(y, x).numpy().tolist()
      [2.0, 4.0]
    """
    if not callable(fn):
        raise UnsupportedTypeError(
            f"expected a torch callable, got a {type(fn).__module__}.{type(fn).__qualname__}; give "
            "a function or a torch.nn.Module"
        )
    ensure_tensorflow()
    return TorchFunction(fn, output_signature)
