"""Runs a torch function on TensorFlow's values, and keeps the piece of torch's graph it made.

Not for: the calls themselves, eager (_torch_function) or in a graph (_symbolic).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C
from tensor_bridge._structures import Rebuild, build, flatten
from tensor_bridge.autograd import _tape
from tensor_bridge.composite import TO_TF, TO_TORCH

if TYPE_CHECKING:
    import torch


class Result:
    """A torch function's result: leaves, which of them are dense tensors, and the structure."""

    __slots__ = ("leaves", "places", "spec")

    def __init__(self, value: Any) -> None:
        import torch

        self.leaves: list[Any] = []
        self.spec: Rebuild = flatten(value, _C.is_torch_tensor, TO_TF.takes, self.leaves)
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
    """torch.autograd.grad without its checks, which always pass here: saves 20 of 80 us."""
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

        torch's graph is kept, because a persistent tape asks again and TensorFlow does not tell
        whether a tape is persistent. The graph is released with the tape.
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
      spec: How (args, kwargs) are built from the leaves; None if the leaves are the arguments.
      leaves: TensorFlow's values and others.
      wanted: Numbers of the leaves whose gradients are wanted.

    Returns:
      The function's result, and the torch tensors of the wanted leaves.
    """
    import torch

    arguments = [
        _C.convert_tf_to_pytorch(leaf) if TO_TORCH.takes(leaf) else leaf for leaf in leaves
    ]
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
    """(args, kwargs), built from the leaves."""
    return (leaves, {}) if spec is None else build(spec, iter(leaves))
