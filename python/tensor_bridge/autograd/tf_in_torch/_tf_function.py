"""A TensorFlow callable as a function of torch tensors that torch differentiates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, overload

from typing_extensions import TypeVar

from tensor_bridge import _C, _refusals, composite
from tensor_bridge._frameworks import ensure_tensorflow
from tensor_bridge._options import checks_keywords
from tensor_bridge._structures import (
    Rebuild,
    build,
    flatten,
)
from tensor_bridge.autograd import _tape
from tensor_bridge.autograd._naming import name_after
from tensor_bridge.autograd.tf_in_torch import _compiled, _mirror, _nodes
from tensor_bridge.composite import TO_TF, TO_TORCH
from tensor_bridge.errors import GradientError, UnsupportedTypeError

if TYPE_CHECKING:
    import torch
    from typing_extensions import Never

    from tensor_bridge._checked_types import TfTensor

# What a call returns; a TfFunction without it returns anything.
_Result_co = TypeVar("_Result_co", default=Any, covariant=True)


def _to_tf(value: Any) -> Any:
    """Converts a torch composite; any other argument that is no dense tensor stays as it is."""
    found = composite.for_torch(value)
    if found is None and not _C.is_torch_tensor(value):
        return value
    return _C.convert_pytorch_to_tf(value)


class _Template:
    """The form of a call's result: the leaves that no node makes, and how to build it."""

    __slots__ = ("leaves", "places", "spec")

    def __init__(self, spec: Rebuild, leaves: list[Any], places: list[int]) -> None:
        self.spec = spec
        self.leaves = leaves
        self.places = places

    def fill(self, outputs: Sequence[Any]) -> Any:
        if self.spec is None:
            return outputs[0] if self.places else self.leaves[0]
        leaves = list(self.leaves)
        for place, output in zip(self.places, outputs, strict=True):
            leaves[place] = output
        return build(self.spec, iter(leaves))


class TfFunction(Generic[_Result_co]):
    """What `tf_to_torch` returns: call it like the TensorFlow callable, with torch tensors.

    Attributes:
      fn: The TensorFlow callable.
      parameters: A torch Parameter for each of the ``variables``, over the same memory until one
        side writes. A call first gives the variables the current values of the parameters.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        mirrors: Sequence[_mirror.Mirror],
        sparse: bool,
        higher_order: bool | None,
    ) -> None:
        self.fn = fn
        self._persistent = not is_graph_function(fn) if higher_order is None else higher_order
        self.mirrors = tuple(mirrors)
        self._sparse = sparse
        self.number = _compiled.numbered(self)
        name_after(self, fn)

    @property
    def parameters(self) -> tuple[torch.nn.Parameter, ...]:
        """One Parameter for each of the variables."""
        return tuple([mirror.own for mirror in self.mirrors])

    def __repr__(self) -> str:
        return f"tf_to_torch({self.fn!r})"

    def __call__(self, *args: Any, **kwargs: Any) -> _Result_co:
        """Calls the function with torch values."""
        result: _Result_co = self.call_with([mirror.own for mirror in self.mirrors], args, kwargs)
        return result

    def call_with(self, tensors: Sequence[Any], args: Any, kwargs: Any) -> Any:
        """Calls the function with these tensors standing for the variables."""
        import torch

        if torch.compiler.is_compiling():
            return _compiled.call(self, tensors, args, kwargs)
        if not self.mirrors:
            return self._call(tensors, args, kwargs)
        pairs = list(zip(self.mirrors, tensors, strict=True))
        _mirror.pull_all([pair for pair in pairs if pair[0].trainable])
        result = self._call(tensors, args, kwargs)
        # Variables that the call updated, such as statistics.
        _mirror.pull_all([pair for pair in pairs if not pair[0].trainable])
        return result

    def _call(self, tensors: Sequence[Any], args: Any, kwargs: Any) -> Any:
        step, inputs = self.prepare(tensors, args, kwargs)
        if step.taped is None:
            outputs = step.run(step, inputs)
        else:
            outputs = _nodes.apply("call", step, inputs)
        template: _Template = step.kept
        return template.fill(outputs)

    def prepare(
        self, tensors: Sequence[Any], args: Any, kwargs: Any, taped: list[int] | None = None
    ) -> tuple[_nodes.Step, list[Any]]:
        """The step of a call, and the torch tensors that it takes.

        Args:
          tensors: The tensors that stand for the variables.
          args: The arguments.
          kwargs: The keywords.
          taped: Numbers of the inputs whose gradients are wanted; None: find them out.
        """
        import torch

        leaves: list[Any] = []
        spec = flatten((args, kwargs), _C.is_torch_tensor, TO_TF.takes, leaves)
        strided = torch.strided
        places, inputs = [], []
        for i, leaf in enumerate(leaves):
            if _C.is_torch_tensor(leaf):
                if leaf.layout is strided and not leaf.is_nested:
                    places.append(i)
                    inputs.append(leaf)
                    continue
                if leaf.requires_grad and torch.is_grad_enabled():
                    raise GradientError(
                        "expected a dense tensor where a gradient is wanted, got one of layout "
                        f"{leaf.layout} that requires grad; use x.detach(), or x.to_dense()"
                    )
            leaves[i] = _to_tf(leaf)
        inputs += tensors

        def run(step: _nodes.Step, given: Sequence[Any]) -> tuple[Any, ...]:
            return self._run(step, given, spec, leaves, places)

        wanted = _taped(inputs) if taped is None else taped
        step = _nodes.Step(run, wanted, self._sparse, self._persistent or _nodes.transforming())
        return step, inputs

    def _run(
        self,
        step: _nodes.Step,
        given: Sequence[Any],
        spec: Rebuild,
        leaves: list[Any],
        places: list[int],
    ) -> tuple[Any, ...]:
        arguments = list(leaves)
        convert = _C.convert_pytorch_to_tf
        values = [convert(x) for x in given[: len(places)]]
        for place, value in zip(places, values, strict=True):
            arguments[place] = value
        if self.mirrors:
            _mirror.push_all(list(zip(self.mirrors, given[len(places) :], strict=True)))
            values += [mirror.handle for mirror in self.mirrors]
        args, kwargs = build(spec, iter(arguments))

        template = _Template(None, [], [])

        def outputs() -> list[Any]:
            result = self.fn(*args, **kwargs)
            template.spec = flatten(result, _C.is_eager_tensor, TO_TORCH.takes, template.leaves)
            found = []
            for i, leaf in enumerate(template.leaves):
                if not _C.is_eager_tensor(leaf):
                    leaf = template.leaves[i] = _as_tensor(leaf)
                if _tape.is_dense(leaf):
                    template.places.append(i)
                    found.append(leaf)
            return found

        if step.taped:
            sources = [values[i] for i in step.taped]
            segment, step.depends = _tape.Segment.record(sources, outputs, step.persistent)
            step.segment, found = segment, segment.outputs
            if not step.persistent:
                step.check_rerun = lambda: check_rerun(self.fn, args, kwargs)
        else:
            found = outputs()
            step.depends = (False,) * len(found)
        to_torch = _C.convert_tf_to_pytorch
        if len(template.leaves) != len(found):
            taken = set(template.places)
            for i, leaf in enumerate(template.leaves):
                if i not in taken and TO_TORCH.takes(leaf):
                    template.leaves[i] = to_torch(leaf)
        step.kept = template
        return tuple([to_torch(t) for t in found])


def _as_tensor(value: Any) -> Any:
    """The value of a variable, read while it is recorded; everything else as it is."""
    if _refusals.is_resource_variable(value):
        return value.read_value()
    inner = getattr(value, "value", None)
    if inner is not None and not callable(inner) and _refusals.is_resource_variable(inner):
        return inner.read_value()  # a Keras variable
    return value


def is_graph_function(fn: Any) -> bool:
    """Whether a callable is a `tf.function` or one that is traced already."""
    return hasattr(fn, "get_concrete_function") or hasattr(fn, "structured_input_signature")


# Operations that TensorFlow calls stateful, but whose second run gives the same result.
_HARMLESS = {"ReadVariableOp", "VarHandleOp", "StatefulPartitionedCall", "Assert", "ResourceGather",
             "ResourceGatherNd", "VarIsInitializedOp", "VariableShape", "NoOp", "PartitionedCall",
             "Print", "PrintV2", "While", "If"}  # fmt: skip


def check_rerun(fn: Any, args: Any, kwargs: Any) -> None:
    """Checks that a second run of a `tf.function` would do and return what the first did.

    Raises:
      GradientError: it has random operations, or others with a state.
    """
    # Private; TensorFlow 2.12 to 2.21.
    from tensorflow.python.framework import op_def_registry

    concrete = fn if hasattr(fn, "graph") else fn.get_concrete_function(*args, **kwargs)
    graph = concrete.graph.as_graph_def()
    names = {node.op for node in graph.node}
    names |= {node.op for function in graph.library.function for node in function.node_def}
    for name in sorted(names - _HARMLESS):
        found = op_def_registry.get(name)
        if found is not None and found.is_stateful:
            raise GradientError(
                "a second gradient (retain_graph, create_graph, or backward twice) of a "
                f"tf.function needs a second run, which would not be the same: it has a {name} "
                "operation. Ask for such gradients in advance: higher_order=True"
            )


def _taped(inputs: Sequence[Any]) -> list[int] | None:
    """Numbers of the inputs whose gradients are wanted; None if no node is needed."""
    import torch

    if _nodes.transforming():
        # The level of torch.func that wants gradients is not visible here.
        return [i for i, x in enumerate(inputs) if x.is_floating_point() or x.is_complex()]
    if not torch.is_grad_enabled():
        return None
    # torch lets only floating-point and complex tensors require grad.
    return [i for i, x in enumerate(inputs) if x.requires_grad] or None


# The first overload is for Any, which is also a Never.
@overload
def tf_to_torch(
    fn: Callable[..., Never],
    *,
    variables: Iterable[Any] | None = None,
    sparse: bool = False,
    higher_order: bool | None = None,
) -> TfFunction[Any]: ...
@overload
def tf_to_torch(
    fn: Callable[..., TfTensor],
    *,
    variables: Iterable[Any] | None = None,
    sparse: bool = False,
    higher_order: bool | None = None,
) -> TfFunction[torch.Tensor]: ...
@overload
def tf_to_torch(
    fn: Callable[..., Any],
    *,
    variables: Iterable[Any] | None = None,
    sparse: bool = False,
    higher_order: bool | None = None,
) -> TfFunction[Any]: ...
@checks_keywords
def tf_to_torch(
    fn: Callable[..., Any],
    *,
    variables: Iterable[Any] | None = None,
    sparse: bool = False,
    higher_order: bool | None = None,
) -> TfFunction[Any]:
    """Makes a TensorFlow callable a function of torch tensors that torch.autograd differentiates.

    Values and gradients share memory where possible, and are copied otherwise. Gradients of any
    order are exact: the tape of the call records its own gradients, so the function is not run
    again, and random operations keep their numbers.

    Args:
      fn: A function, `tf.function`, Keras layer or model, signature of a SavedModel: anything that
        takes and returns TensorFlow values, or structures of them. Tensors of any shape and dtype
        that `to_tf` takes are converted; Python and TensorFlow values are passed on. Gradients flow
        to floating-point and complex tensors.
      variables: Variables (tf.Variable or Keras's) whose gradients are wanted. They become the
        result's ``parameters``. Other variables are constants; `TfModule` takes all trainable ones.
      sparse: Whether a `tf.IndexedSlices` gradient (of tf.gather, of an embedding) becomes a sparse
        torch gradient instead of a dense one.
      higher_order: Whether to record so that gradients can be taken again (``retain_graph``) and
        differentiated (``create_graph``). None means True, except for a `tf.function`, which would
        get slower. A `tf.function` is run again when such a gradient is asked for; if it has random
        or other stateful operations, `GradientError` is raised instead.

    Returns:
      A callable. Its outputs require grad where they depend on an input that does.

    Raises:
      UnsupportedTypeError: ``fn`` is not callable or a torch.nn.Module, or something in
        ``variables`` is no variable.

    Example:
      >>> import tensorflow as tf, torch
      >>> from tensor_bridge.autograd import tf_to_torch
      >>> square = tf_to_torch(lambda x: x * x)
      >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
      >>> square(x).sum().backward()
      >>> x.grad
      tensor([2., 4.])
    """
    if not callable(fn):
        raise UnsupportedTypeError(
            f"expected a TensorFlow callable, got {_refusals.a_class(fn)}; for a SavedModel "
            "give one of its signatures: loaded.signatures['serving_default']"
        )
    if _refusals.TORCH_MODULE in _refusals.class_names(fn):
        raise UnsupportedTypeError(
            f"expected a TensorFlow callable, got {_refusals.a_class(fn)}, which is a "
            "torch.nn.Module already, as are Keras' models and layers on the torch backend; use it "
            "as it is"
        )
    ensure_tensorflow()
    given = () if variables is None else variables
    mirrors = [_mirror.Mirror(variable, trainable=True) for variable in given]
    return TfFunction(fn, mirrors, sparse, higher_order)
