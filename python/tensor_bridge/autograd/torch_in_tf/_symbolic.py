"""A torch callable inside a TensorFlow graph: py_functions, with gradients of any order."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _dtypes, _refusals, _triton
from tensor_bridge._py_function import py_function
from tensor_bridge._structures import Rebuild, build, flatten
from tensor_bridge.autograd import _tape, _tokens
from tensor_bridge.autograd.torch_in_tf import _piece
from tensor_bridge.autograd.torch_in_tf._graph_gradient import with_gradient
from tensor_bridge.composite import TO_TORCH
from tensor_bridge.errors import GradientError, SymbolicTensorError, UnsupportedTypeError

if TYPE_CHECKING:
    import torch

# Sizes that stand for an unknown one, to find the sizes of the outputs that depend on it. torch's
# fake tensors have no memory. Both can be halved five times, as many networks do with their input.
_SIZES = (96, 160)


class _Lazy:
    """A piece of torch's graph whose outputs are gradients, computed again if asked for."""

    def __init__(self, inner: Any, upstream: list[torch.Tensor]) -> None:
        self._inner = inner
        self._upstream = upstream

    def piece(self) -> _piece.Piece:
        for g in self._upstream:
            g.requires_grad_()
        inner = self._inner.piece()
        found = inner.gradient(self._upstream, create_graph=True)
        zeros = [x.detach().new_zeros(x.shape) for x in inner.inputs]
        outputs = [z if g is None else g for g, z in zip(found, zeros, strict=True)]
        return _piece.Piece([*inner.inputs, *self._upstream], outputs)


class _Run:
    """A piece of torch's graph that was already computed."""

    def __init__(self, piece: _piece.Piece) -> None:
        self._piece = piece

    def piece(self) -> _piece.Piece:
        return self._piece


def call(
    fn: Callable[..., Any], signature: Any, spec: Rebuild, leaves: list[Any], constants: int
) -> Any:
    """The call as an operation of the graph that is being built.

    Args:
      fn: The torch callable.
      signature: Structure of tf.TensorSpec, or None to find it out.
      spec: How (args, kwargs) are built from the leaves.
      leaves: TensorFlow's tensors, symbolic or not, and Python values.
      constants: How many leading leaves need no gradient.

    Raises:
      GradientError: what the function returns cannot be found out.
      SymbolicTensorError: an argument of Keras's functional API.
    """
    import tensorflow as tf

    places = []
    for i, leaf in enumerate(leaves):
        if not TO_TORCH.takes(leaf):
            if _refusals.is_keras_tensor(leaf):
                raise SymbolicTensorError(
                    "expected a tensor, got a Keras symbolic tensor, which describes an input of a "
                    "model; put the torch code in a tensor_bridge.autograd.TorchLayer"
                )
            continue
        if not (_C.is_eager_tensor(leaf) or _refusals.is_graph_tensor(leaf)):
            raise UnsupportedTypeError(
                f"expected dense tensors inside a tf.function, got {_refusals.a_class(leaf)}; "
                "give its components (values, row_splits, indices) to the torch function"
            )
        places.append(i)
    tensors = [leaves[i] for i in places]
    result, specs = infer(fn, spec, leaves, places) if signature is None else _given(signature)
    wanted = [
        k for k, t in enumerate(tensors) if places[k] >= constants and _tape.differentiable(t)
    ]

    def forward(*values: Any) -> list[Any]:
        arguments = list(leaves)
        for place, value in zip(places, values, strict=True):
            arguments[place] = value
        chosen = [places[k] for k in wanted]
        made, inputs = _piece.run(fn, spec, arguments, chosen)
        outputs = made.tensors
        _check_count(outputs, specs)
        token = _tokens.issue_tf(_Run(_piece.Piece(inputs, outputs)))
        return [*map(_piece.to_tf, outputs), token]

    *outputs, token = py_function(
        forward, tensors, [*(s.dtype for s in specs), tf.int32], name="TorchFunction"
    )
    for output, output_spec in zip(outputs, specs, strict=True):
        output.set_shape(output_spec.shape)
    chosen = [tensors[k] for k in wanted]

    def gradient(*upstream: Any) -> list[Any]:
        found: Iterator[Any] = iter(_gradient(token, chosen, upstream))
        return [next(found) if k in wanted else None for k in range(len(tensors))]

    return result.build(with_gradient(outputs, tensors, gradient))


def _gradient(token: Any, inputs: Sequence[Any], upstream: Sequence[Any]) -> list[Any]:
    """Gradients to the inputs, which can be differentiated again."""
    import tensorflow as tf

    count = len(inputs)
    if not count:
        return []
    # Tensors of this graph: TensorFlow cannot differentiate a gradient to another graph's tensors.
    inputs = [tf.identity(x) for x in inputs]
    # Integer outputs have upstream gradients of zeros; torch takes none for them.
    live = [k for k, g in enumerate(upstream) if _tape.differentiable(g)]

    def backward(token: Any, *values: Any) -> list[Any]:
        state = _tokens.find_tf(token)
        if state is None:
            raise GradientError(
                "the state of a torch function's forward run is gone: something copied the tensor "
                "that stands for it between forward and backward. Run the function on the CPU, or "
                "take its gradient in the same tf.function"
            )
        ups = [_C.convert_tf_to_pytorch(g) for g in values[count:]]
        state = _Chosen(state, live)
        found = state.piece().gradient(ups, create_graph=False)
        results = [
            tf.zeros_like(x) if g is None else _piece.to_tf(g)
            for g, x in zip(found, values, strict=False)
        ]
        return [*results, _tokens.issue_tf(_Lazy(state, ups))]

    values = [*inputs, *(upstream[k] for k in live)]
    *outputs, following = py_function(
        backward,
        [token, *values],
        [*(x.dtype for x in inputs), tf.int32],
        name="TorchGradient",
    )
    for output, x in zip(outputs, inputs, strict=True):
        output.set_shape(x.shape)
    return with_gradient(outputs, values, lambda *more: _gradient(following, values, more))


class _Chosen:
    """A piece with some of its outputs only."""

    def __init__(self, inner: Any, chosen: Sequence[int]) -> None:
        self._inner = inner
        self._chosen = chosen

    def piece(self) -> _piece.Piece:
        inner = self._inner.piece()
        return _piece.Piece(inner.inputs, [inner.outputs[k] for k in self._chosen])


# ---- what a function returns ---------------------------------------------------------------------


class _Signature:
    """The structure that an output_signature describes."""

    def __init__(self, spec: Rebuild) -> None:
        self._spec = spec

    def build(self, tensors: Sequence[Any]) -> Any:
        return build(self._spec, iter(tensors))


def _given(signature: Any) -> tuple[Any, list[Any]]:
    import tensorflow as tf

    specs: list[Any] = []
    spec = flatten(signature, lambda x: isinstance(x, tf.TensorSpec), lambda _: False, specs)
    for leaf in specs:
        if not isinstance(leaf, tf.TensorSpec):
            raise UnsupportedTypeError(
                "expected a structure of tf.TensorSpec for output_signature, got a "
                f"{type(leaf).__qualname__} in it"
            )
    return _Signature(spec), specs


def _check_count(outputs: Sequence[Any], specs: Sequence[Any]) -> None:
    """Checks that a run returned what the graph was built for; py_function would say less."""
    if len(outputs) != len(specs):
        raise GradientError(
            f"expected {len(specs)} tensors from the torch function, as when the graph was built, "
            f"got {len(outputs)}; give output_signature= if it depends on the values"
        )


def infer(
    fn: Callable[..., Any], spec: Rebuild, leaves: list[Any], places: Sequence[int]
) -> tuple[_piece.Result, list[Any]]:
    """What a torch function would return, found by running it on torch's fake tensors.

    Args:
      fn: The function.
      spec: How (args, kwargs) are built from the leaves.
      leaves: The arguments.
      places: Numbers of the leaves that are tensors.

    Returns:
      Its result with fake tensors in it, and a tf.TensorSpec for each. A size that depends on an
      unknown one is unknown.

    Raises:
      GradientError: a rank is unknown, or the function needs values.
    """
    _triton.check("finding the shapes of a torch function, by torch's fake tensors,")
    import tensorflow as tf

    name = getattr(fn, "__name__", type(fn).__name__)

    def refuse(why: str) -> GradientError:
        return GradientError(
            f"the shapes that the torch function {name!r} returns cannot be found without running "
            f"it: {why}. Give them: torch_to_tf(fn, output_signature=tf.TensorSpec(shape, dtype))"
        )

    for i in places:
        if leaves[i].shape.rank is None:
            raise refuse("an argument has unknown rank")
    unknown = any(None in leaves[i].shape.as_list() for i in places)
    results = []
    for size in _SIZES if unknown else _SIZES[:1]:
        try:
            with _unlogged():
                results.append(_run_fake(fn, spec, leaves, places, size))
        except Exception as e:
            stands = f" ({size} stands for an unknown size)" if unknown else ""
            why = f"{type(e).__name__}: {e}".splitlines()[0].rstrip(".")
            raise GradientError(
                f"the torch function {name!r} fails for the shapes of its arguments: {why}{stands}"
                ". Give arguments of shapes that it takes; if it needs values, which are not known "
                "while a graph is built, give the shapes of its results: "
                "output_signature=tf.TensorSpec(shape, dtype)"
            ) from e
    first, last = results[0], results[-1]
    if len(first.tensors) != len(last.tensors):
        raise refuse("their number depends on an unknown size")
    specs = []
    for x, y in zip(first.tensors, last.tensors, strict=True):
        shape = (
            [a if a == b else None for a, b in zip(x.shape, y.shape, strict=True)]
            if x.dim() == y.dim()
            else None
        )
        specs.append(tf.TensorSpec(shape, _dtypes.tf_dtype(x.dtype)))
    return first, specs


@contextmanager
def _unlogged() -> Iterator[None]:
    """Leaves out what torch logs of operations that fail on fake tensors: the error says it."""
    thread = threading.get_ident()

    def others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger = logging.getLogger("torch._subclasses.fake_tensor")
    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)


def _run_fake(
    fn: Callable[..., Any], spec: Rebuild, leaves: list[Any], places: Sequence[int], size: int
) -> _piece.Result:
    import torch

    # Private; torch 2.6 to 2.15.
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_map

    fake = FakeTensorMode(allow_non_fake_inputs=True)

    class AllFake(TorchDispatchMode):  # type: ignore[misc]
        """Gives every operation fake copies of real tensors, so that no real tensor is written.

        FakeTensorMode runs in-place operations on real scalars, such as a BatchNorm's counter.
        """

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            def faked(x: Any) -> Any:
                real = isinstance(x, torch.Tensor) and not isinstance(x, FakeTensor)
                return fake.from_tensor(x) if real else x

            return func(*tree_map(faked, args), **tree_map(faked, kwargs or {}))

    with fake, AllFake(), torch.no_grad():
        arguments = list(leaves)
        for i in places:
            sizes = [size if n is None else n for n in leaves[i].shape.as_list()]
            arguments[i] = torch.empty(sizes, dtype=_dtypes.torch_dtype(leaves[i].dtype))
        args, kwargs = _piece.arguments_of(spec, arguments)
        return _piece.Result(fn(*args, **kwargs))
