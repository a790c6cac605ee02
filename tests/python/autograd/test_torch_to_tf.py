"""torch functions under TensorFlow's tapes, eager and in graphs: exact and shared."""

from __future__ import annotations

import gc
import math
import traceback
from collections.abc import Callable
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from memory import growth_over
from sharing import in_threads, owners

import tensor_bridge
from tensor_bridge.autograd import GradientError, _tokens, torch_to_tf
from tensor_bridge.testing import shares_memory

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "elementwise": lambda x: torch.tanh(x) * x + torch.exp(-x * x),
    "reduction": lambda x: (x**3).sum(-1) / (x * x).sum(),
    "linear": lambda x: 3 * x,
    "matmul": lambda x: x @ x.t(),
    "indexing": lambda x: x[[0, 1, 1]],
    "view": lambda x: x.t(),
    "identity": lambda x: x,
}


def value(*shape: int, dtype: tf.DType = tf.float64) -> tf.Tensor:
    return tf.cast(tf.random.stateless_normal(shape, (1, 2), dtype=tf.float64), dtype)


def close(a: Any, b: Any) -> None:
    torch.testing.assert_close(tensor_bridge.to_torch(a), tensor_bridge.to_torch(b))


def taped(f: Callable[..., Any], x: tf.Tensor, **options: bool) -> tuple[tf.GradientTape, Any]:
    """A tape that recorded `f(x)`, and the result of `f(x)`."""
    with tf.GradientTape(**options) as tape:
        tape.watch(x)
        y = f(x)
    return tape, y


def gradients(f: Callable[..., Any], x: tf.Tensor, orders: int) -> list[Any]:
    """The first derivatives of the sum of f, in order."""
    tapes = [tf.GradientTape() for _ in range(orders)]
    for tape in tapes:
        tape.__enter__()
        tape.watch(x)
    y = f(x)
    results = []
    for tape in reversed(tapes):
        tape.__exit__(None, None, None)
        y = tape.gradient(y, x)
        results.append(y)
    return results


def as_graph(f: Callable[..., Any]) -> Callable[..., Any]:
    return tf.function(lambda x: f(x), autograph=False)


@pytest.mark.parametrize("where", [lambda f: f, as_graph], ids=["eager", "graph"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_first_and_second_order_against_finite_differences(
    name: str, where: Callable[..., Any]
) -> None:
    f = where(torch_to_tf(FUNCTIONS[name]))

    def gradient(x: tf.Tensor) -> tf.Tensor:
        tape, y = taped(lambda x: tf.reduce_sum(f(x) ** 2), x)
        return tape.gradient(y, x)

    for function in (f, gradient):
        (analytic,), (numeric,) = tf.test.compute_gradient(function, [value(2, 2)], delta=1e-5)
        assert abs(analytic - numeric).max() < 1e-6


@pytest.mark.parametrize("where", [lambda f: f, as_graph], ids=["eager", "graph"])
def test_orders_one_to_four_have_their_closed_forms(where: Callable[..., Any]) -> None:
    x = tf.constant([0.7, 1.1], tf.float64)
    f = where(torch_to_tf(torch.sin))
    for order, found in enumerate(gradients(f, x, 4 if f.__name__ == "sin" else 3), 1):
        close(found, tf.sin(x + order * math.pi / 2))


def test_higher_orders_inside_one_function() -> None:
    x = tf.constant([0.7, 1.1], tf.float64)
    f = torch_to_tf(torch.sin)
    found = tf.function(lambda: gradients(f, x, 3), autograph=False)()
    for order, derivative in enumerate(found, 1):
        close(derivative, tf.sin(x + order * math.pi / 2))


def test_complex_gradients_have_the_conjugate_of_the_derivative() -> None:
    z = tf.complex(value(3), value(3) + 1)
    upstream = tf.constant([1 + 2j, -1j, 3.0], tf.complex128)
    for where in (lambda f: f, as_graph):
        tape, y = taped(where(torch_to_tf(lambda z: z * z)), z)
        close(tape.gradient(y, z, upstream), upstream * tf.math.conj(2 * z))
    tape, y = taped(torch_to_tf(lambda z: (z * z.conj()).real), z)
    close(tape.gradient(y, z), 2 * z)


def test_forward_mode() -> None:
    x = value(3)
    with tf.autodiff.ForwardAccumulator(x, 2 * tf.ones_like(x)) as accumulator:
        y = torch_to_tf(torch.sin)(x)
    close(accumulator.jvp(y), 2 * tf.cos(x))


@needs.shares_to_tf
def test_values_and_gradients_are_shared_both_ways() -> None:
    seen: dict[str, Any] = {}

    class Probe(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            seen["x"] = x.detach()
            seen["y"] = x.detach() * 1
            return seen["y"]

        @staticmethod
        def backward(ctx: Any, upstream: torch.Tensor) -> torch.Tensor:
            seen["upstream"] = upstream
            seen["gradient"] = upstream * 2
            return seen["gradient"]

    x = value(16, 16)
    upstream = value(16, 16) * 1
    tape, y = taped(torch_to_tf(Probe.apply), x)
    found = tape.gradient(y, x, upstream)
    assert shares_memory(x, seen["x"])
    assert shares_memory(y, seen["y"])
    assert shares_memory(upstream, seen["upstream"])
    assert shares_memory(found, seen["gradient"])
    kept = found.numpy().copy()
    seen["gradient"].zero_()
    assert (found.numpy() == kept).all()


@pytest.mark.parametrize("graph", [False, True])
def test_structures_integers_variables_and_outputs_that_depend_on_nothing(graph: bool) -> None:
    variable = tf.Variable([1.0, 2.0])

    def fn(batch: Any, scale: float) -> Any:
        return {
            "y": batch["v"] * batch["x"] * scale,
            "n": (batch["i"] + 1, None),
            "c": torch.ones(2),
        }

    wrapped = torch_to_tf(fn)

    def step(x: Any, i: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            result = wrapped({"v": variable, "x": x, "i": i}, scale=3.0)
            assert result["n"][1] is None
            loss = tf.reduce_sum(result["y"]) + tf.reduce_sum(result["c"])
        return result["n"][0], tape.gradient(loss, [x, variable, i])

    run = tf.function(step, autograph=False) if graph else step
    number, found = run(tf.constant([5.0, 6.0]), tf.constant([1, 2], tf.int64))
    assert number.numpy().tolist() == [2, 3]
    assert found[0].numpy().tolist() == [3.0, 6.0]
    assert found[1].numpy().tolist() == [15.0, 18.0]
    assert found[2] is None


def test_an_unused_input_has_no_gradient() -> None:
    x, y = value(2), value(2)
    with tf.GradientTape() as tape:
        tape.watch([x, y])
        z = torch_to_tf(lambda x, y: x * 2 + y.detach())(x, y)
    assert tape.gradient(z, [x, y])[1] is None
    tape, z = taped(lambda x: torch_to_tf(torch.sin)(tf.stop_gradient(x)), x)
    assert tape.gradient(z, x) is None


def test_a_persistent_tape_asks_twice() -> None:
    x = value(3)
    tape, y = taped(torch_to_tf(torch.exp), x, persistent=True)
    for _ in range(3):
        close(tape.gradient(y, x), tf.exp(x))


def test_indexed_slices_upstream() -> None:
    x = value(4, 2)
    tape, y = taped(lambda x: tf.gather(torch_to_tf(lambda x: x * 3)(x), [1, 1]), x)
    assert tape.gradient(y, x).numpy().sum(1).tolist() == [0, 12, 0, 0]


def test_torch_modes_do_not_matter() -> None:
    x = value(3)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            tape, y = taped(torch_to_tf(torch.exp), x)
        close(tape.gradient(y, x), tf.exp(x))


def test_a_module_as_a_constant_function() -> None:
    module = torch.nn.Linear(3, 2).double()
    x = value(4, 3)
    tape, y = taped(torch_to_tf(module), x)
    found = tape.gradient(y, x)
    torch.testing.assert_close(
        tensor_bridge.to_torch(found), module.weight.detach().sum(0).expand(4, 3)
    )
    assert module.weight.grad is None


# ---- graphs --------------------------------------------------------------------------------------


def test_shapes_are_set_and_unknown_sizes_stay_unknown() -> None:
    f = torch_to_tf(lambda x: (x @ torch.ones(3, 5), x.sum(0), x.flatten()))
    specs = [tf.TensorSpec([None, 3], tf.float32)]
    concrete = tf.function(f, autograph=False).get_concrete_function(*specs)
    assert [shape.as_list() for shape in concrete.output_shapes] == [[None, 5], [3], [None]]
    assert [t.shape.as_list() for t in concrete(tf.ones([2, 3]))] == [[2, 5], [3], [6]]


def test_inferring_shapes_changes_nothing_in_the_module() -> None:
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5))
    state = torch.get_rng_state()
    before = {name: x.clone() for name, x in module.state_dict().items()}
    tf.function(torch_to_tf(module)).get_concrete_function(tf.TensorSpec([None, 3], tf.float32))
    assert all(torch.equal(x, before[name]) for name, x in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_shapes_that_depend_on_values_are_given() -> None:
    def positive(x: torch.Tensor) -> torch.Tensor:
        return x[x > 0]

    x = tf.constant([1.0, -1.0, 2.0])
    with pytest.raises(GradientError, match=r"'positive'.*output_signature"):
        tf.function(torch_to_tf(positive), autograph=False)(x)
    with pytest.raises(GradientError, match="unknown rank"):
        tf.function(torch_to_tf(positive), autograph=False).get_concrete_function(
            tf.TensorSpec(None, tf.float32)
        )
    f = torch_to_tf(positive, output_signature=tf.TensorSpec([None], tf.float32))
    assert tf.function(f, autograph=False)(x).numpy().tolist() == [1.0, 2.0]
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="TensorSpec"):
        tf.function(torch_to_tf(positive, output_signature=3), autograph=False)(x)


def test_a_dropout_has_the_same_mask_on_the_way_back() -> None:
    f = torch_to_tf(lambda x: torch.nn.functional.dropout(x, 0.5))

    @tf.function(autograph=False)
    def step(x: tf.Tensor) -> Any:
        tape, y = taped(f, x)
        return y, tape.gradient(y, x)

    y, gradient = step(tf.ones([64]))
    assert y.numpy().tolist() == gradient.numpy().tolist()
    assert 0 < y.numpy().sum() < 128


def test_in_a_dataset_and_a_loop() -> None:
    f = torch_to_tf(lambda x: x * 2)
    ds = tf.data.Dataset.range(3).map(lambda i: f(tf.cast(i, tf.float32)))
    assert [float(x) for x in ds] == [0.0, 2.0, 4.0]

    @tf.function
    def loop(x: tf.Tensor) -> tf.Tensor:
        for _ in tf.range(3):
            x = f(x)
        return x

    x = tf.constant(1.0)
    tape, y = taped(loop, x)
    assert float(y) == float(tape.gradient(y, x)) == 8.0


def test_states_go_with_the_graph_whether_a_backward_comes_or_not() -> None:
    f = tf.function(torch_to_tf(torch.sin), autograph=False)
    x = value(3)
    f(x)
    tape, y = taped(f, x, persistent=True)
    assert _tokens.living() == 1
    tape.gradient(y, x)
    tape.gradient(y, x)
    del tape, y
    gc.collect()
    assert _tokens.living() == 0


def test_a_keras_symbolic_tensor_is_sent_to_the_layer() -> None:
    with pytest.raises(tensor_bridge.SymbolicTensorError, match="TorchLayer"):
        torch_to_tf(torch.sin)(tf.keras.Input((2,)))


# ---- errors, threads, leaks ----------------------------------------------------------------------


class OddError(Exception):
    """An exception of neither framework."""


class Raising(torch.autograd.Function):
    """Raises in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        raise OddError("backward")


def test_exceptions_arrive_as_they_are_with_both_tracebacks() -> None:
    def raises_odd(x: torch.Tensor) -> Any:
        raise OddError("forward")

    with owners():
        x = value(3)
        with pytest.raises(OddError, match="forward"):
            torch_to_tf(raises_odd)(x)
        tape, y = taped(torch_to_tf(Raising.apply), x)
        with pytest.raises(OddError, match="backward") as caught:
            tape.gradient(y, x)
        text = "".join(traceback.format_exception(caught.value))
        assert "tape.gradient(y, x)" in text
        assert 'raise OddError("backward")' in text
        del caught, tape, y
        gc.collect()


def test_an_exception_in_a_graph_is_in_the_message_of_tensorflows() -> None:
    def raises_odd(x: torch.Tensor) -> Any:
        if not isinstance(x, torch._subclasses.FakeTensor):
            raise OddError("in the graph")
        return x

    with pytest.raises(tf.errors.OpError, match=r"(?s)OddError: in the graph.*raises_odd"):
        tf.function(torch_to_tf(raises_odd), autograph=False)(value(3))


def test_two_threads() -> None:
    eager = torch_to_tf(lambda x: torch.sin(x) * x)
    graph = tf.function(eager, autograph=False)
    graph(value(3))

    def work(seed: float) -> None:
        for i in range(50):
            x = tf.constant([0.1 * seed + 0.01 * i], tf.float64)
            for f in (eager, graph):
                (found,) = gradients(f, x, 1)
                close(found, tf.cos(x) * x + tf.sin(x))

    in_threads(lambda: work(1.0), lambda: work(2.0), timeout=240)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize(
    "count", [500, pytest.param(100_000, marks=[pytest.mark.exhaustive, pytest.mark.timeout(3600)])]
)
def test_steps_leave_nothing(count: int, graph: bool) -> None:
    f: Any = torch_to_tf(lambda x: torch.sin(x) * x)
    f = tf.function(f, autograph=False) if graph else f
    x = tf.ones([4])

    def step(f: Any = f) -> None:
        tape, y = taped(f, x)
        tape.gradient(y, x)

    for _ in range(500):
        step()
    with owners():
        growth_over(step, lambda: step(tf.sin), count).assert_flat()
