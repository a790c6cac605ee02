"""TensorFlow functions as torch operators: for torch.compile and torch.export.

``tensor_bridge::tf_call`` runs a function, ``tensor_bridge::tf_gradient`` its gradient. A number
names the function, because an operator takes no Python objects; the number is valid only in this
process. The shapes that torch asks for come from TensorFlow's own shape inference.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary

from tensor_bridge import _C, _dense, _dtypes
from tensor_bridge.autograd import _tokens
from tensor_bridge.autograd.tf_in_torch import _nodes
from tensor_bridge.errors import GradientError

if TYPE_CHECKING:
    import torch

    from tensor_bridge.autograd.tf_in_torch._mirror import Mirror


class Function(Protocol):
    """What an operator calls: a `TfFunction`."""

    fn: Any
    number: int
    mirrors: tuple[Mirror, ...]

    def prepare(
        self, tensors: Sequence[Any], args: Any, kwargs: Any, taped: list[int] | None = None
    ) -> tuple[_nodes.Step, list[Any]]: ...


_functions: WeakValueDictionary[int, Function] = WeakValueDictionary()
_numbers = itertools.count()


def numbered(function: Function) -> int:
    """A number for the function, by which operators find it as long as it lives."""
    number = next(_numbers)
    _functions[number] = function
    return number


_plans: list[_Plan] = []
_keys: dict[Any, int] = {}

# Structures as constants that torch.compile can hold: ("tensor",), ("value", x),
# ("tuple" or "list", *children), ("dict", keys, *children).
Shape = tuple[Any, ...]


# ---- traced by torch.compile ---------------------------------------------------------------------


def _take(value: Any, tensors: list[Any]) -> Shape:
    import torch

    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return ("tensor",)
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        name = "tuple" if isinstance(value, tuple) else "list"
        return (name, *[_take(child, tensors) for child in value])
    if isinstance(value, dict):
        children = [_take(child, tensors) for child in value.values()]
        return ("dict", tuple(value.keys()), *children)
    return ("value", value)


def _make(shape: Shape, tensors: list[Any], at: int) -> tuple[Any, int]:
    """The structure, and the number of tensors used so far."""
    kind = shape[0]
    if kind == "tensor":
        return tensors[at], at + 1
    if kind == "value":
        return shape[1], at
    children = []
    for child in shape[2 if kind == "dict" else 1 :]:
        made, at = _make(child, tensors, at)
        children.append(made)
    if kind == "dict":
        return dict(zip(shape[1], children, strict=True)), at
    return (tuple(children) if kind == "tuple" else children), at


def call(function: Function, tensors: Sequence[Any], args: Any, kwargs: Any) -> Any:
    """What `TfFunction.call_with` does, made of operators only."""
    import torch

    inputs: list[Any] = []
    shape = _take((args, kwargs), inputs)
    inputs.extend(tensors)
    taped = []
    if torch.is_grad_enabled():
        for i, x in enumerate(inputs):
            if x.requires_grad:
                taped.append(i)
    key = _register(function.number, shape)
    outputs = torch.ops.tensor_bridge.tf_call(inputs, key, taped)
    made, _ = _make(_result(key), outputs, 0)
    return made


# ---- run while torch.compile traces --------------------------------------------------------------


def _register(function: int, shape: Shape) -> int:
    _operators()
    key = _keys.get((function, shape))
    if key is None:
        key = _keys[function, shape] = len(_plans)
        _plans.append(_Plan(_functions[function], shape))
    return key


def _result(key: int) -> Shape:
    return _plan(key).result


# What torch.compiler.assume_constant_result does; torch is not imported yet.
_register.__dict__["_dynamo_marked_constant"] = True
_result.__dict__["_dynamo_marked_constant"] = True


class _Plan:
    """One way to call a function: everything but the tensors.

    Attributes:
      function: The function.
      result: The structure of the result at the latest shape inference.
    """

    def __init__(self, function: Function, shape: Shape) -> None:
        self.function = function
        self.result: Shape = ()
        self._shape = shape
        self._inferred: dict[Any, Any] = {}

    def step(self, inputs: Sequence[Any], taped: Sequence[int]) -> tuple[_nodes.Step, list[Any]]:
        """Runs the function."""
        given: list[Any] = []
        arguments = list(inputs[: len(inputs) - len(self.function.mirrors)])
        (args, kwargs), _ = _make(self._shape, arguments, 0)
        step, given = self.function.prepare(inputs[len(arguments) :], args, kwargs, list(taped))
        return step, list(step.run(step, given))

    def infer(self, inputs: Sequence[torch.Tensor]) -> list[tuple[list[Any], Any]]:
        """Sizes and dtype of each output, by TensorFlow's shape inference.

        If torch leaves a size of an input open, the same size of an output stays open too.
        """
        open_sizes: dict[int, Any] = {}
        count = len(inputs) - len(self.function.mirrors)
        probes = itertools.count(101, 2)
        sizes = []
        for x in inputs[:count]:
            row = []
            for size in x.shape:
                if isinstance(size, int):
                    row.append(size)
                    continue
                known = next((n for n, s in open_sizes.items() if s is size), None)
                if known is None:
                    known = next((n for n, s in open_sizes.items() if str(s) == str(size)), None)
                if known is None:
                    known = next(probes)
                    open_sizes[known] = size
                row.append(known)
            sizes.append(row)
        found = self._shapes(sizes, [x.dtype for x in inputs[:count]])
        if not open_sizes:
            return found
        fixed = {n for row, x in zip(sizes, inputs, strict=False) for n, s in zip(row, x.shape,
                 strict=True) if isinstance(s, int)}  # fmt: skip
        results = []
        for shape, dtype in found:
            if any(n is None for n in shape):
                results.append((shape, dtype))
                continue
            results.append(([n if n in fixed else open_sizes.get(n, n) for n in shape], dtype))
        if any(
            n not in open_sizes and n > 100 and n not in fixed for shape, _ in found for n in shape
        ):
            # A size that is computed from an open one: make the open sizes fixed.
            exact = [[int(s) for s in x.shape] for x in inputs[:count]]
            return self._shapes(exact, [x.dtype for x in inputs[:count]])
        return results

    def _shapes(self, sizes: list[list[int]], dtypes: list[Any]) -> list[tuple[list[Any], Any]]:
        key = (tuple(map(tuple, sizes)), tuple(dtypes))
        if key not in self._inferred:
            self._inferred[key] = self._trace(sizes, dtypes)
        found: list[tuple[list[Any], Any]]
        self.result, found = self._inferred[key]
        return found

    def _trace(
        self, sizes: list[list[int]], dtypes: list[Any]
    ) -> tuple[Shape, list[tuple[list[Any], Any]]]:
        import tensorflow as tf

        specs = [
            tf.TensorSpec(shape, _dtypes.tf_dtype(dtype))
            for shape, dtype in zip(sizes, dtypes, strict=True)
        ]
        results: list[Shape] = []

        def traced(*values: Any) -> Any:
            (args, kwargs), _ = _make(self._shape, list(values), 0)
            tensors: list[Any] = []
            results.append(_result_shape(self.function.fn(*args, **kwargs), tensors))
            return tensors

        outputs = tf.function(traced, autograph=False).get_concrete_function(*specs).outputs
        found = []
        for t in outputs:
            if t.shape.rank is None or None in t.shape.as_list():
                raise GradientError(
                    f"expected a TensorFlow function whose output shapes follow from its input "
                    f"shapes, got one of shape {t.shape}, which torch.compile cannot take; call it "
                    "outside the compiled function (torch.compiler.disable)"
                )
            found.append((t.shape.as_list(), _dtypes.torch_dtype(t.dtype)))
        return results[0], found


def _result_shape(result: Any, tensors: list[Any]) -> Shape:
    """The structure of a symbolic result."""
    import tensorflow as tf

    if isinstance(result, (tuple, list)) and not hasattr(result, "_fields"):
        name = "tuple" if isinstance(result, tuple) else "list"
        return (name, *[_result_shape(child, tensors) for child in result])
    if isinstance(result, dict):
        children = [_result_shape(child, tensors) for child in result.values()]
        return ("dict", tuple(result), *children)
    if isinstance(result, tf.Tensor) or hasattr(result, "assign"):
        tensors.append(tf.convert_to_tensor(result))
        return ("tensor",)
    if result is None or isinstance(result, (bool, int, float, str)):
        return ("value", result)
    raise GradientError(
        f"expected tensors in dict, list and tuple as a result inside torch.compile, got a "
        f"{type(result).__qualname__}; call the function outside (torch.compiler.disable)"
    )


def _plan(key: int) -> _Plan:
    try:
        return _plans[key]
    except IndexError:
        raise GradientError(
            "this exported or compiled program calls a TensorFlow function of the process that "
            "made it, which does not exist here; TensorFlow functions are not part of a saved "
            "program: export again in this process"
        ) from None


# ---- the operators -------------------------------------------------------------------------------


def _fresh(tensors: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors, none sharing memory with an input or another output, as operators promise."""
    seen = {_dense.torch_address(x) for x in inputs if x.numel()}
    results = []
    for x in tensors:
        address = _dense.torch_address(x) if x.numel() else None
        if address in seen:
            x = x.clone()
        seen.add(_dense.torch_address(x) if x.numel() else -1)
        results.append(x)
    return results


@cache
def _operators() -> SimpleNamespace:
    """Defines the operators, once."""
    import torch

    def tf_call(inputs: list[torch.Tensor], key: int, taped: list[int]) -> list[torch.Tensor]:
        step, outputs = _plan(key).step(inputs, taped)
        token = _tokens.issue(step) if taped else torch.zeros(1, dtype=torch.int32)
        return [*_fresh(outputs, inputs), token]

    def fake_call(inputs: list[torch.Tensor], key: int, taped: list[int]) -> list[torch.Tensor]:
        device = inputs[0].device if inputs else torch.device("cpu")
        made = [
            torch.empty(sizes, dtype=dtype, device=device)
            for sizes, dtype in _plan(key).infer(inputs)
        ]
        return [*made, torch.empty(1, dtype=torch.int32, device="cpu")]

    def tf_gradient(
        inputs: list[torch.Tensor],
        key: int,
        taped: list[int],
        token: torch.Tensor,
        which: list[int],
        upstream: list[torch.Tensor],
    ) -> list[torch.Tensor]:
        step: Any = _tokens.find(token)
        if step is None:  # torch copied the token: run the function again
            step, _ = _plan(key).step(inputs, taped)
        chosen = [(i, g) for i, g in zip(which, upstream, strict=True) if step.depends[i]]
        found: list[Any] = [None] * len(taped)
        if chosen:
            values = [_C.convert_pytorch_to_tf(g) for _, g in chosen]
            found = step.segment.gradient([i for i, _ in chosen], values)
        results = [
            torch.zeros_like(inputs[i], memory_format=torch.contiguous_format)
            if g is None
            else _nodes.to_torch_gradient(g, False)
            for i, g in zip(taped, found, strict=True)
        ]
        return _fresh(results, [*inputs, *upstream])

    def fake_gradient(
        inputs: list[torch.Tensor], key: int, taped: list[int], *_: Any
    ) -> list[torch.Tensor]:
        return [torch.empty_like(inputs[i], memory_format=torch.contiguous_format) for i in taped]

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[torch.Tensor]) -> None:
        tensors, ctx.key, ctx.taped = inputs
        ctx.save_for_backward(*tensors, output[-1])

    def backward(ctx: Any, gradients: list[torch.Tensor | None]) -> tuple[Any, None, None]:
        *inputs, token = ctx.saved_tensors
        results: list[Any] = [None] * len(inputs)
        which = [i for i, g in enumerate(gradients[:-1]) if g is not None]
        upstream = [gradients[i] for i in which]
        found = torch.ops.tensor_bridge.tf_gradient(
            inputs, ctx.key, ctx.taped, token, which, upstream
        )
        for i, g in zip(ctx.taped, found, strict=True):
            results[i] = g
        return results, None, None

    define: Any = torch.library.custom_op
    # torch cannot infer the schema from postponed annotations, which are text.
    forward = define(
        "tensor_bridge::tf_call",
        tf_call,
        mutates_args=(),
        schema="(Tensor[] inputs, int key, int[] taped) -> Tensor[]",
    )
    forward.register_fake(fake_call)
    forward.register_autograd(backward, setup_context=setup_context)
    gradient = define(
        "tensor_bridge::tf_gradient",
        tf_gradient,
        mutates_args=(),
        schema="(Tensor[] inputs, int key, int[] taped, Tensor token, int[] which, "
        "Tensor[] upstream) -> Tensor[]",
    )
    gradient.register_fake(fake_gradient)
    return SimpleNamespace(tf_call=forward, tf_gradient=gradient)
