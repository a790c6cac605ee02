"""Nodes of torch's graph whose gradients TensorFlow computes: subclasses of autograd.Function.

Each node exists in two kinds, made at first use because torch is not imported before. The kind for
``torch.func`` keeps the state in ``setup_context`` and has rules for vmap and jvp, which cost
several microseconds per call in torch; ordinary calls use the other kind.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C
from tensor_bridge.autograd import _tape
from tensor_bridge.errors import GradientError

if TYPE_CHECKING:
    import torch

    from tensor_bridge.autograd._tape import Segment


class Step:
    """One use of a node: what its forward is to do, and what it leaves for the backward.

    Attributes:
      run: Called with the torch inputs; returns the torch outputs, and sets the other attributes.
        Under vmap, where only vmap runs the step, a list with one for each slice.
      taped: Numbers of the inputs that are sources of the segment.
      segment: What was recorded; under vmap a list with one for each slice.
      depends: For each output whether it depends on a source.
      sparse: Whether IndexedSlices become sparse gradients.
      persistent: Whether the segment has to give more than one gradient, and recorded ones.
      check_rerun: Raises if a second run would not be the same as the first.
      kept: What else the caller keeps from the run.
    """

    __slots__ = (
        "check_rerun",
        "depends",
        "kept",
        "persistent",
        "run",
        "segment",
        "sparse",
        "taped",
    )

    def __init__(
        self,
        run: Any,
        taped: Sequence[int] | None,
        sparse: bool = False,
        persistent: bool = True,
    ) -> None:
        self.persistent = persistent
        self.check_rerun: Callable[[], None] | None = None
        self.run = run
        self.taped = taped
        self.sparse = sparse
        self.segment: Segment | list[Any] | None = None
        self.depends: tuple[bool, ...] = ()
        self.kept: Any = None

    def again(self, run: Any = None) -> Step:
        """The same step, not yet used."""
        return Step(self.run if run is None else run, self.taped, self.sparse)

    def make_persistent(self, inputs: Sequence[Any]) -> None:
        """Runs once more, so that the segment gives more than one gradient.

        Raises:
          GradientError: the second run would not be the same.
        """
        if self.check_rerun is not None:
            self.check_rerun()
        again = self.again()
        again.run(again, inputs)
        self.segment = again.segment


def to_torch_gradient(gradient: Any, sparse: bool) -> Any:
    """A TensorFlow gradient for torch, sharing its memory where possible."""
    if gradient is None:
        return None
    if not _C.is_eager_tensor(gradient):
        if sparse and gradient.dense_shape is not None:
            return _C.convert_tf_to_pytorch(gradient)
        gradient = _tape.dense(gradient)
    return _C.convert_tf_to_pytorch(gradient)


def _gradient_run(
    segment: Segment, which: Sequence[int], count: int
) -> Callable[[Step, Sequence[Any]], tuple[Any, ...]]:
    """How the node of a recorded gradient runs.

    Its inputs are the ``count`` inputs of the original node, then the upstream gradients of the
    outputs numbered ``which``.
    """

    def run(step: Step, inputs: Sequence[Any]) -> tuple[Any, ...]:
        upstream = [_C.convert_pytorch_to_tf(g) for g in inputs[count:]]
        found, step.segment, step.depends = segment.recorded_gradient(which, upstream, _tape.dense)
        step.kept = [g is not None for g in found]
        return tuple([_C.convert_tf_to_pytorch(g) for g in found if g is not None])

    return run


@cache
def _keep_graph() -> Callable[[], bool]:
    """Whether the backward that is running keeps the graph; True where torch cannot tell."""
    import torch

    # Private; torch 2.6 to 2.15.
    native: Any = getattr(torch._C, "_autograd", None)
    found = getattr(native, "_get_current_graph_task_keep_graph", None)
    return found if found is not None else lambda: True


def _strided(gradient: torch.Tensor) -> torch.Tensor:
    import torch

    return gradient if gradient.layout is torch.strided else gradient.to_dense()


def _put_beside(inputs: Sequence[torch.Tensor], gradients: list[Any]) -> None:
    """Moves gradients to the devices of their inputs, where torch expects them.

    TensorFlow chooses the device of a computation itself, or by a device scope.
    """
    for i, gradient in enumerate(gradients):
        if gradient is not None and gradient.device != inputs[i].device:
            gradients[i] = gradient.to(inputs[i].device)


def _backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
    import torch

    step: Step | None = ctx.step
    if step is None:
        raise RuntimeError(
            "backward through a TensorFlow function a second time, after its intermediate values "
            "were freed. Specify retain_graph=True at the first backward or autograd.grad"
        )
    results: list[Any] = [None] * ctx.count
    which = [i for i, g in enumerate(gradients) if g is not None and step.depends[i]]
    upstream = [_strided(gradients[i]) for i in which]
    if which:
        segment: Any = step.segment
        once = not isinstance(segment, list) and not segment.persistent
        if once and (segment.used_up or torch.is_grad_enabled()):
            step.make_persistent(ctx.saved_tensors)
            segment = step.segment
        if torch.is_grad_enabled():
            found = _differentiable(ctx.saved_tensors, step, segment, which, upstream)
        else:
            converted = [_C.convert_pytorch_to_tf(g) for g in upstream]
            sparse = step.sparse
            found = [to_torch_gradient(g, sparse) for g in segment.gradient(which, converted)]
        for i, gradient in zip(step.taped or (), found, strict=True):
            results[i] = gradient
        if torch.cuda.is_initialized():
            _put_beside(ctx.saved_tensors, results)
    if not _keep_graph()():
        ctx.step = None
    return (None, *results)


def _differentiable(
    inputs: Sequence[Any], step: Step, segment: Any, which: Sequence[int], upstream: list[Any]
) -> list[Any]:
    """The gradients to the taped inputs, which can be differentiated again."""
    count = len(inputs)
    taped = [*(step.taped or ()), *range(count, count + len(upstream))]
    if isinstance(segment, list):
        parts = [_gradient_run(part, which, count) for part in segment]
        again = Step(parts, taped)
    else:
        again = Step(_gradient_run(segment, which, count), taped)
    present = iter(apply("gradient", again, (*inputs, *upstream)))
    return [next(present) if is_there else None for is_there in again.kept]


def _forward(step: Step, *inputs: Any) -> Any:
    return step.run(step, inputs)


def _keep(ctx: Any, step: Step, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    ctx.step = step
    ctx.count = len(inputs)
    ctx.save_for_backward(*inputs)
    ctx.set_materialize_grads(False)
    constant = [x for x, depends in zip(outputs, step.depends, strict=True) if not depends]
    if constant:
        ctx.mark_non_differentiable(*constant)


def _ordinary_forward(ctx: Any, step: Step, *inputs: Any) -> Any:
    outputs = step.run(step, inputs)
    _keep(ctx, step, inputs, outputs)
    return outputs


def _setup_context(ctx: Any, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
    _keep(ctx, inputs[0], inputs[1:], outputs)
    ctx.save_for_forward(*inputs[1:])


def _jvp(ctx: Any, _: None, *tangents: Any) -> tuple[Any, ...]:
    """Forward mode: the gradient of the gradient to its upstream, which is linear in it."""
    import torch

    step, inputs = ctx.step, ctx.saved_tensors
    segment = step.segment
    if isinstance(segment, list):
        raise GradientError(
            "expected reverse mode inside vmap, got forward mode over a vmap of a TensorFlow "
            "function; use torch.func.jacrev, or put the vmap outside"
        )
    which = [i for i, depends in enumerate(step.depends) if depends]
    zeros = [torch.zeros_like(_C.convert_tf_to_pytorch(segment.outputs[i])) for i in which]
    count = len(inputs)
    taped = [*step.taped, *range(count, count + len(zeros))]
    first = Step(_gradient_run(segment, which, count), taped)
    apply("gradient", first, (*inputs, *zeros))
    given = [i for i, is_there in zip(step.taped, first.kept, strict=True) if is_there]
    chosen = [k for k, i in enumerate(given) if tangents[i] is not None and first.depends[k]]
    results: list[Any] = [None] * len(step.depends)
    if not chosen:
        return tuple(results)
    directions = [tangents[given[k]] for k in chosen]
    found = _differentiable((*inputs, *zeros), first, first.segment, chosen, directions)
    for i, tangent in zip(which, found[len(step.taped) :], strict=True):
        results[i] = tangent
    return tuple(results)


@cache
def _warn_of_loop() -> None:
    warnings.warn(
        "tensor_bridge.autograd: TensorFlow has no batching rule of torch's, so that vmap runs "
        "a wrapped function, or its gradient, once for each element of the batch",
        UserWarning,
        stacklevel=2,
    )


def _vmap(kind: str) -> Callable[..., tuple[Any, Any]]:
    def rule(info: Any, in_dims: Any, step: Step, *inputs: Any) -> tuple[Any, Any]:
        import torch

        _warn_of_loop()
        parts, rows = [], []
        for i in range(info.batch_size):
            run: Any = step.run[i] if isinstance(step.run, list) else step.run
            part = step.again(run)
            slices = [
                x if dim is None else x.select(dim, i)
                for x, dim in zip(inputs, in_dims[1:], strict=True)
            ]
            rows.append(apply(kind, part, slices))
            parts.append(part)
        if not parts:
            raise GradientError("expected a batch of at least one element for vmap, got none")
        step.segment = [part.segment for part in parts]
        step.depends = tuple(map(any, zip(*(part.depends for part in parts), strict=True)))
        step.kept = parts[0].kept
        columns = zip(*rows, strict=True)
        outputs = tuple([torch.stack(column) for column in columns])
        return outputs, (0,) * len(outputs)

    return rule


@cache
def nodes() -> SimpleNamespace:
    """The node classes."""
    import torch

    names: dict[str, Any] = {}
    for kind, title in (("call", "TensorFlowCall"), ("gradient", "TensorFlowGradient")):
        names[kind] = type(
            title,
            (torch.autograd.Function,),
            {
                "forward": staticmethod(_ordinary_forward),
                "backward": staticmethod(_backward),
            },
        )
        names[f"{kind}_functional"] = type(
            f"{title}Functional",
            (torch.autograd.Function,),
            {
                "forward": staticmethod(_forward),
                "setup_context": staticmethod(_setup_context),
                "backward": staticmethod(_backward),
                "jvp": staticmethod(_jvp),
                "vmap": staticmethod(_vmap(kind)),
            },
        )
    return SimpleNamespace(
        **names,
        transforms_active=torch._C._are_functorch_transforms_active,
        forward_ad=torch.autograd.forward_ad,
    )


def transforming() -> bool:
    """Whether a transform of torch.func, or forward mode, is active."""
    classes = nodes()
    return bool(classes.transforms_active() or classes.forward_ad._current_level >= 0)


def apply(kind: str, step: Step, inputs: Sequence[Any]) -> tuple[Any, ...]:
    """Runs a step as a node of torch's graph."""
    if transforming():
        kind = f"{kind}_functional"
    outputs: tuple[Any, ...] = getattr(nodes(), kind).apply(step, *inputs)
    return outputs
