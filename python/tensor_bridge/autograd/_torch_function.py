"""A torch callable as a function of TensorFlow tensors that a tape differentiates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _classify
from tensor_bridge._frameworks import ensure_tensorflow
from tensor_bridge.autograd import _tape
from tensor_bridge.autograd._structure import (
    Rebuild,
    build,
    flatten,
    is_tf_leaf,
    is_torch_leaf,
    name_after,
)
from tensor_bridge.errors import UnsupportedTypeError

if TYPE_CHECKING:
    import torch

__all__ = ["Piece", "Result", "TorchFunction", "run", "torch_to_tf"]


class Result:
    """What a torch function returned: leaves, which of them are dense tensors, the structure."""

    __slots__ = ("leaves", "places", "spec")

    def __init__(self, value: Any) -> None:
        import torch

        self.leaves: list[Any] = []
        self.spec: Rebuild = flatten(value, _C.is_torch_tensor, is_torch_leaf, self.leaves)
        strided = torch.strided
        if self.spec is None and _C.is_torch_tensor(value):  # most are one dense tensor
            self.places = [0] if value.layout is strided and not value.is_nested else []
            return
        self.places = [
            i
            for i, leaf in enumerate(self.leaves)
            if _C.is_torch_tensor(leaf) and leaf.layout is strided and not leaf.is_nested
        ]

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The dense tensors."""
        return [self.leaves[i] for i in self.places]

    def build(self, tensors: Sequence[Any]) -> Any:
        """The structure with these in place of the dense tensors."""
        if self.spec is None and self.places:
            return tensors[0]
        leaves = list(self.leaves)
        for place, t in zip(self.places, tensors, strict=True):
            leaves[place] = t
        return build(self.spec, iter(leaves))


@cache
def _engine() -> Callable[..., Sequence[torch.Tensor | None]]:
    """torch.autograd.grad, without its checks of what is known to fit here: 20 us of 80."""
    import torch

    # Private; torch 2.6 to 2.15 have it with these arguments.
    native = getattr(torch.autograd.graph, "_engine_run_backward", None)
    if native is None:
        return lambda outputs, gradients, create, inputs: torch.autograd.grad(
            outputs, inputs, gradients, retain_graph=True, create_graph=create, allow_unused=True
        )
    return lambda outputs, gradients, create, inputs: native(
        outputs, gradients, True, create, inputs, True, accumulate_grad=False
    )


class Piece:
    """A piece of torch's graph, from inputs to outputs, as TensorFlow's tape sees it.

    Attributes:
      inputs: torch tensors that require grad.
      outputs: torch tensors, which may depend on them.
    """

    __slots__ = ("inputs", "outputs")

    def __init__(self, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> None:
        self.inputs = inputs
        self.outputs = outputs

    def gradient(
        self, upstream: Sequence[torch.Tensor], *, create_graph: bool
    ) -> list[torch.Tensor | None]:
        """Gradients to the inputs; None for one that no output depends on.

        The graph is kept: a persistent tape asks again, and TensorFlow does not say whether it is
        one. It goes with the tape.
        """
        outputs: Sequence[Any] = self.outputs
        gradients: Sequence[Any] = upstream
        if not all(y.requires_grad for y in outputs):
            pairs = [(y, g) for y, g in zip(outputs, upstream, strict=True) if y.requires_grad]
            if not pairs:
                return [None] * len(self.inputs)
            outputs, gradients = zip(*pairs, strict=True)
        return list(_engine()(tuple(outputs), tuple(gradients), create_graph, tuple(self.inputs)))

    def record(self, name: str, tf_outputs: list[Any], tf_inputs: list[Any]) -> None:
        """Puts the piece on the tapes that are recording."""

        def backward(*gradients: Any) -> list[Any]:
            return self._backward(tf_inputs, gradients)

        _tape.api().record_operation(name, tf_outputs, tf_inputs, backward)

    def _backward(self, tf_inputs: list[Any], tf_upstream: Sequence[Any]) -> list[Any]:
        dense_upstream = [_tape.dense(g) for g in tf_upstream]
        upstream = [_C.convert_tf_to_pytorch(g) for g in dense_upstream]
        if not _tape.is_recorded([*tf_inputs, *dense_upstream]):
            found = self.gradient(upstream, create_graph=False)
            return [g if g is None else to_tf(g) for g in found]
        for g in upstream:
            g.requires_grad_()
        found = self.gradient(upstream, create_graph=True)
        results = [g if g is None else to_tf(g) for g in found]
        piece = Piece([*self.inputs, *upstream], [g for g in found if g is not None])
        present = [g for g in results if g is not None]
        if present:
            piece.record("TorchGradient", present, [*tf_inputs, *dense_upstream])
        return results


def to_tf(x: torch.Tensor) -> Any:
    """A torch result for TensorFlow, detached; a sparse gradient becomes dense."""
    import torch

    return _C.convert_pytorch_to_tf(x if x.layout is torch.strided else x.to_dense())


def run(
    fn: Callable[..., Any], spec: Rebuild, leaves: list[Any], wanted: Sequence[int]
) -> tuple[Result, list[torch.Tensor]]:
    """Calls a torch function on converted leaves.

    Args:
      fn: The function.
      spec: How (args, kwargs) are built of the leaves; None if these are the arguments.
      leaves: TensorFlow's values and others.
      wanted: Numbers of the leaves whose gradients are wanted.

    Returns:
      What it returned, and the torch tensors of the wanted leaves.
    """
    import torch

    arguments = [_C.convert_tf_to_pytorch(leaf) if is_tf_leaf(leaf) else leaf for leaf in leaves]
    inputs = [arguments[i] for i in wanted]
    if not inputs:
        args, kwargs = arguments_of(spec, arguments)
        return Result(fn(*args, **kwargs)), inputs
    if torch.is_inference_mode_enabled():  # whose tensors cannot require grad
        with torch.inference_mode(False):
            return run(fn, spec, leaves, wanted)
    for x in inputs:
        x.requires_grad_()
    args, kwargs = arguments_of(spec, arguments)
    if torch.is_grad_enabled():
        return Result(fn(*args, **kwargs)), inputs
    with torch.enable_grad():
        return Result(fn(*args, **kwargs)), inputs


def arguments_of(spec: Rebuild, leaves: list[Any]) -> Any:
    """(args, kwargs) of the leaves."""
    return (leaves, {}) if spec is None else build(spec, iter(leaves))


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
      constants: How many of the first leaves no gradient is wanted of.
    """
    is_eager = _C.is_eager_tensor
    leaves: list[Any] = list(args)
    spec: Rebuild = None
    if kwargs or not all(map(is_eager, leaves)):
        leaves = []
        spec = flatten((args, kwargs), is_eager, is_tf_leaf, leaves)
    symbolic = not _tape.api().executing_eagerly()
    for i, leaf in enumerate(leaves):
        if not is_eager(leaf):
            if is_variable(leaf):
                leaves[i] = read(leaf)
            symbolic = symbolic or _is_symbolic(leaf)
    if symbolic:
        from tensor_bridge.autograd import _symbolic

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
        if i not in result.places and is_torch_leaf(leaf):
            result.leaves[i] = _C.convert_pytorch_to_tf(leaf)
    return result.build(values)


def is_variable(value: Any) -> bool:
    """Whether a value is a tf.Variable or a Keras variable."""
    return _classify.is_resource_variable(value) or (
        hasattr(value, "assign") and hasattr(value, "value")
    )


def read(variable: Any) -> Any:
    """A variable's value, read while tapes record it."""
    import tensorflow as tf

    return tf.convert_to_tensor(variable)


def _is_symbolic(leaf: Any) -> bool:
    return _classify.is_graph_tensor(leaf) or _classify.is_keras_tensor(leaf)


def torch_to_tf(fn: Callable[..., Any], *, output_signature: Any = None) -> TorchFunction:
    """Makes a torch callable one of TensorFlow tensors, which `tf.GradientTape` differentiates.

    Values and gradients are shared, not copied, where the memory can be. Gradients of any order are
    exact, and forward mode works.

    Inside a `tf.function` (and so in Keras's ``fit``, in tf.data) the call is a `tf.py_function`:
    it runs in the process that made it, cannot be compiled by XLA and is not part of a SavedModel.

    Args:
      fn: A function or torch.nn.Module: anything that takes and returns torch values, in structures
        if it likes. Parameters of a module are constants for TensorFlow; `TorchLayer` trains them.
      output_signature: Structure of `tf.TensorSpec` like what ``fn`` returns. Needed in a graph
        only, and there only if the shapes cannot be found by running ``fn`` on torch's fake
        tensors.

    Returns:
      A callable.

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
