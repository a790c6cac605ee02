"""TensorFlow functions in torch's autograd: gradients are exact, to any order, and shared."""

from __future__ import annotations

import gc
import itertools
import math
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from memory import growth_over
from sharing import in_threads, owners
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint

import tensor_bridge
from tensor_bridge.autograd import GradientError, tf_to_torch

# torch's forward mode and torch.func import modules that use it.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "elementwise": lambda x: tf.tanh(x) * x + tf.exp(-x * x),
    "reduction": lambda x: tf.reduce_sum(x**3, -1) / tf.reduce_sum(x * x),
    "linear": lambda x: 3 * x,
    "matmul": lambda x: tf.linalg.matmul(x, x, transpose_b=True),
    "softmax": lambda x: tf.nn.log_softmax(x),
    "indexing": lambda x: tf.gather(x, [0, 1, 1]),
    "identity": lambda x: x,
    "control flow": tf.function(lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: x * x, lambda: -x)),
    "function": tf.function(lambda x: tf.sin(x) * x),
}


def value(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(shape, dtype=dtype, generator=generator).requires_grad_()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_of_first_and_second_order_and_forward_mode(name: str) -> None:
    f = tf_to_torch(FUNCTIONS[name])
    assert gradcheck(f, value(2, 3), check_forward_ad=True)
    assert gradgradcheck(f, value(2, 3))


def test_several_inputs_and_outputs() -> None:
    f = tf_to_torch(lambda x, y: (x * tf.reduce_sum(y * y), tf.sin(y) + tf.reduce_mean(x), x))
    inputs = (value(2, 3), value(4))
    assert gradcheck(f, inputs)
    assert gradgradcheck(f, inputs)


@pytest.mark.parametrize("graph", [False, True])
def test_orders_one_to_five_have_their_closed_forms(graph: bool) -> None:
    f = tf_to_torch(tf.function(tf.sin) if graph else tf.sin)
    x = torch.tensor([0.7, 1.1], dtype=torch.float64, requires_grad=True)
    y = f(x)
    for order in range(1, 6):
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        torch.testing.assert_close(y, torch.sin(x + order * math.pi / 2), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("function", "derivative"),
    [
        (lambda z: z * z, lambda z: 2 * z),
        (lambda z: tf.exp(z), lambda z: torch.exp(z)),
        (lambda z: tf.sin(z) / z, lambda z: (torch.cos(z) * z - torch.sin(z)) / z**2),
    ],
)
def test_holomorphic_functions_have_the_conjugate_of_their_derivative(
    function: Callable[..., Any], derivative: Callable[..., Any]
) -> None:
    z = value(3, dtype=torch.complex128)
    upstream = torch.tensor([1 + 2j, -1j, 3.0 + 0j], dtype=torch.complex128)
    f = tf_to_torch(function)
    (found,) = torch.autograd.grad(f(z), z, upstream)
    torch.testing.assert_close(found, upstream * derivative(z.detach()).conj())
    assert gradcheck(f, z)
    assert gradgradcheck(f, z)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda z: tf.math.real(z * tf.math.conj(z)), lambda z: 2 * z),
        (lambda z: tf.abs(z), lambda z: z / z.abs()),
        (lambda z: tf.math.imag(z), lambda z: torch.full_like(z, 1j)),
        (lambda z: tf.math.real(z) ** 2, lambda z: 2 * z.real + 0j),
    ],
)
def test_real_functions_of_complex_numbers(
    function: Callable[..., Any], expected: Callable[..., Any]
) -> None:
    """torch's gradient is dL/dx + i dL/dy."""
    z = value(3, dtype=torch.complex128)
    tf_to_torch(function)(z).sum().backward()
    torch.testing.assert_close(z.grad, expected(z.detach()).to(torch.complex128))


def test_a_lazily_conjugated_upstream() -> None:
    z = value(3, dtype=torch.complex128)
    f = tf_to_torch(lambda z: z * z)
    (found,) = torch.autograd.grad(f(z), z, torch.tensor([1j, 2j, 3j]).to(z.dtype).conj())
    torch.testing.assert_close(found, torch.tensor([-1j, -2j, -3j]) * 2 * z.detach().conj())


# ---- values and structures -----------------------------------------------------------------------


class Probe:
    """A TensorFlow identity that keeps the gradient it gets and the gradient it returns."""

    def __init__(self) -> None:
        self.upstream: Any = None
        self.gradient: Any = None
        self.value: Any = None

    def __call__(self, x: Any) -> Any:
        @tf.custom_gradient
        def identity(x: Any) -> Any:
            self.value = x

            def gradient(upstream: Any) -> Any:
                self.upstream = upstream
                self.gradient = upstream * 2
                return self.gradient

            return x * 1, gradient

        return identity(x)


@needs.shares_to_tf
def test_values_and_gradients_are_shared_both_ways() -> None:
    probe = Probe()
    x = torch.randn(16, 16, requires_grad=True)
    y = tf_to_torch(probe)(x)
    assert tensor_bridge.testing.shares_memory(probe.value, x)
    upstream = torch.randn(16, 16)
    y.backward(upstream)
    assert tensor_bridge.testing.shares_memory(probe.upstream, upstream)
    assert tensor_bridge.testing.shares_memory(probe.gradient, x.grad)
    kept = probe.gradient.numpy().copy()
    x.grad.zero_()
    assert (probe.gradient.numpy() == kept).all()


def test_structures_strings_integers_and_plain_values() -> None:
    seen: list[Any] = []

    def fn(batch: Any, *, scale: float, flag: bool) -> Any:
        seen.append((batch["words"], batch["i"].dtype, batch["b"].dtype, scale, flag))
        return {
            "y": batch["x"] * scale,
            "i": (batch["i"] + 1, None),
            "words": batch["words"],
            "s": 3,
        }

    words = tensor_bridge.to_torch(tf.constant(["a", "b"]))
    x = torch.ones(2, requires_grad=True)
    batch = {"x": x, "i": torch.tensor([1, 2]), "b": torch.tensor(True), "words": words}
    result = tf_to_torch(fn)(batch, scale=2.0, flag=True)
    assert seen[0][1:] == (tf.int64, tf.bool, 2.0, True)
    assert seen[0][0].numpy().tolist() == [b"a", b"b"]
    assert result["words"].to_str() == ["a", "b"]
    assert result["i"][0].tolist() == [2, 3]
    assert not result["i"][0].requires_grad
    assert result["i"][1] is None
    assert result["s"] == 3
    result["y"].sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_a_signature_of_a_saved_model(tmp_path: Any) -> None:
    class Scale(tf.Module):
        def __init__(self) -> None:
            self.v = tf.Variable(3.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            return {"y": x * x * self.v}

    module = Scale()
    tf.saved_model.save(module, str(tmp_path), signatures=module.__call__)
    loaded = tf.saved_model.load(str(tmp_path))
    signature = loaded.signatures["serving_default"]
    x = torch.tensor([2.0], requires_grad=True)
    tf_to_torch(signature)(x=x)["y"].sum().backward()
    assert x.grad.tolist() == [12.0]


def test_outputs_that_do_not_depend_on_an_input() -> None:
    f = tf_to_torch(
        lambda x, y: (x * 2, tf.constant(1.0), tf.stop_gradient(y), tf.cast(x, tf.int32))
    )
    x, y = value(2, dtype=torch.float32), value(2, dtype=torch.float32)
    first, constant, stopped, integers = f(x, y)
    assert first.requires_grad
    assert not any(t.requires_grad for t in (constant, stopped, integers))
    found = torch.autograd.grad(first.sum(), [x, y], allow_unused=True, retain_graph=True)
    assert found[1] is None
    with pytest.raises(RuntimeError, match="allow_unused"):
        torch.autograd.grad(f(x, y)[0].sum(), [x, y])
    (first.sum()).backward()
    assert y.grad is None


def test_only_what_requires_grad_is_taped() -> None:
    f = tf_to_torch(lambda x, y: x * y)
    x, y = value(2), value(2).detach()
    assert f(x, y).requires_grad
    assert not f(x.detach(), y).requires_grad
    with torch.no_grad():
        assert not f(x, y).requires_grad
    with torch.inference_mode():
        assert f(x, y).is_inference()


def test_an_output_that_is_an_input_is_a_tensor_of_its_own() -> None:
    x = value(3, dtype=torch.float32)
    y, z = tf_to_torch(lambda x: (x, x))(x)
    kept = x.detach().clone()
    with torch.no_grad():
        y.add_(1)
    assert torch.equal(x.detach(), kept)
    assert torch.equal(z.detach(), kept)


def test_sparse_gradients_where_wanted() -> None:
    table = tf.Variable(tf.ones([10, 3]))
    for sparse in (False, True):
        f = tf_to_torch(lambda i: tf.gather(table, i), variables=[table], sparse=sparse)
        (parameter,) = f.parameters
        f(torch.tensor([1, 1, 3])).sum().backward()
        assert parameter.grad.is_sparse == sparse
        dense = parameter.grad.to_dense() if sparse else parameter.grad
        assert dense.sum(1).tolist() == [0, 6, 0, 3, 0, 0, 0, 0, 0, 0]
        optimizer = torch.optim.SparseAdam if sparse else torch.optim.Adam
        optimizer(f.parameters, lr=0.1).step()
        f(torch.tensor([1]))
        assert table.numpy()[1, 0] < 1 == table.numpy()[0, 0]
        table.assign(tf.ones([10, 3]))


def test_a_sparse_input_that_requires_grad_is_refused() -> None:
    x = torch.eye(2).to_sparse().requires_grad_()
    with pytest.raises(GradientError, match="to_dense"):
        tf_to_torch(lambda s: tf.sparse.to_dense(s))(x)
    assert tf_to_torch(tf.sparse.to_dense)(x.detach()).tolist() == [[1, 0], [0, 1]]


def test_what_is_no_callable_is_refused() -> None:
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="signatures"):
        tf_to_torch(3)  # type: ignore[arg-type]
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="Variable"):
        tf_to_torch(tf.sin, variables=[3])


# ---- torch's autograd ----------------------------------------------------------------------------


def test_accumulation_and_hooks() -> None:
    f = tf_to_torch(lambda x: x * x)
    x = value(3)
    seen: list[torch.Tensor] = []
    x.register_hook(lambda g: seen.append(g) or 10 * g)
    y = f(x)
    y.register_hook(lambda g: seen.append(g))
    y.sum().backward()
    f(x).sum().backward()
    torch.testing.assert_close(x.grad, 40 * x.detach())
    torch.testing.assert_close(seen[1], 2 * x.detach())


@pytest.mark.parametrize("graph", [False, True])
def test_retain_graph(graph: bool) -> None:
    f = tf_to_torch(tf.function(tf.square) if graph else tf.square)
    x = value(3)
    y = f(x).sum()
    for _ in range(3):
        y.backward(retain_graph=True)
    torch.testing.assert_close(x.grad, 6 * x.detach())
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_a_random_function_has_the_same_numbers_in_every_order() -> None:
    drawn: list[Any] = []

    def fn(x: Any) -> Any:
        drawn.append(tf.random.normal(x.shape, dtype=x.dtype))
        return drawn[-1] * x**3

    x = value(3)
    (first,) = torch.autograd.grad(tf_to_torch(fn)(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    noise = torch.tensor(drawn[0].numpy())
    torch.testing.assert_close(second, 6 * noise * x.detach())
    assert len(drawn) == 1


def test_a_random_tf_function_is_not_run_twice_unasked() -> None:
    fn = tf.function(lambda x: tf.random.normal([3], dtype=x.dtype) * x**3)
    x = value(3)
    y = tf_to_torch(fn)(x).sum()
    with pytest.raises(GradientError, match=r"RandomStandardNormal.*higher_order=True"):
        torch.autograd.grad(y, x, create_graph=True)
    y = tf_to_torch(fn)(x).sum()
    (first,) = torch.autograd.grad(y, x, retain_graph=True)
    with pytest.raises(GradientError, match="higher_order=True"):
        torch.autograd.grad(y, x)
    y = tf_to_torch(fn, higher_order=True)(x).sum()
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second, 2 * first / x)


@pytest.mark.parametrize("make", [lambda g: g.t(), lambda g: g[:1].expand(3, 3), lambda g: g[::2]])
def test_upstream_gradients_that_are_not_contiguous(make: Callable[..., Any]) -> None:
    full = torch.randn(6, 3, dtype=torch.float64)
    upstream = make(full[:3] if make(full[:3]).shape == (3, 3) else full)
    x = value(3, 3)
    (found,) = torch.autograd.grad(tf_to_torch(tf.exp)(x), x, upstream)
    torch.testing.assert_close(found, upstream * x.detach().exp())


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(reentrant: bool) -> None:
    calls: list[int] = []

    def fn(x: Any) -> Any:
        calls.append(1)
        return tf.sin(x) * x

    f = tf_to_torch(fn)
    x = value(4)
    y = checkpoint(lambda x: f(f(x) * 2), x, use_reentrant=reentrant)
    y.sum().backward()
    kept, x.grad = x.grad, None
    f(f(x) * 2).sum().backward()
    torch.testing.assert_close(kept, x.grad)
    assert len(calls) >= 4


def test_a_change_of_an_input_between_forward_and_backward_does_not_matter() -> None:
    """TensorFlow keeps the bytes, because torch's tensor moves at the write."""
    x = value(3)
    leaf = x * 1
    kept = leaf.detach().clone()
    y = tf_to_torch(tf.square)(leaf)
    with torch.no_grad():
        leaf.zero_()
    (found,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(found, 2 * kept)


def test_a_second_order_after_a_change_is_refused_by_torch() -> None:
    x = value(3)
    leaf = x * 1
    y = tf_to_torch(tf.square)(leaf)
    with torch.no_grad():
        leaf.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    weight = torch.nn.Parameter(torch.randn(4, 4))
    x = torch.randn(2, 4)
    f = tf_to_torch(lambda t: tf.nn.gelu(t) * 2)
    with torch.autocast("cpu", dtype=dtype):
        y = f(torch.nn.functional.linear(x, weight))
        assert y.dtype == dtype
        loss = y.float().pow(2).mean()
    loss.backward()
    kept, weight.grad = weight.grad, None
    with torch.autocast("cpu", dtype=dtype):
        y = torch.nn.functional.gelu(torch.nn.functional.linear(x, weight)) * 2
        y.float().pow(2).mean().backward()
    assert weight.grad.dtype == kept.dtype == torch.float32
    torch.testing.assert_close(kept, weight.grad, rtol=0.05, atol=0.02)


def test_two_threads() -> None:
    f = tf_to_torch(lambda x: tf.sin(x) * x)

    def work(seed: int) -> None:
        for i in range(100):
            x = torch.full((8,), 0.1 * seed + 0.01 * i, dtype=torch.float64, requires_grad=True)
            (first,) = torch.autograd.grad(f(x).sum(), x, create_graph=True)
            torch.testing.assert_close(first, torch.cos(x) * x + torch.sin(x))
            (second,) = torch.autograd.grad(first.sum(), x)
            torch.testing.assert_close(second, 2 * torch.cos(x) - x * torch.sin(x))

    in_threads(lambda: work(0), lambda: work(1), timeout=240)


# ---- errors --------------------------------------------------------------------------------------


class OddError(Exception):
    """An exception of neither framework."""


def frames(e: BaseException) -> str:
    return "".join(traceback.format_exception(e))


def test_an_exception_in_the_forward_arrives_as_it_is() -> None:
    def raises_odd(x: Any) -> Any:
        raise OddError("forward")

    with owners():
        with pytest.raises(OddError, match="forward") as caught:
            tf_to_torch(raises_odd)(value(2))
        assert "raises_odd" in frames(caught.value)
        with pytest.raises(tf.errors.InvalidArgumentError, match="Incompatible shapes") as failed:
            tf_to_torch(lambda x: x + tf.ones([3], tf.float64))(value(2))
        assert "in <lambda>" in frames(failed.value)
        del caught, failed
        gc.collect()


def test_an_exception_in_the_backward_arrives_with_both_tracebacks() -> None:
    @tf.custom_gradient
    def fn(x: Any) -> Any:
        def raises_odd(upstream: Any) -> Any:
            raise OddError("backward")

        return x * 1, raises_odd

    with owners():
        x = value(2)
        y = tf_to_torch(fn)(x)
        with pytest.raises(OddError, match="backward") as caught:
            y.sum().backward()
        text = frames(caught.value)
        assert "raises_odd" in text  # TensorFlow's side
        assert "y.sum().backward()" in text  # torch's
        assert x.grad is None
        y = tf_to_torch(tf.square)(x)
        y.sum().backward()
        torch.testing.assert_close(x.grad, 2 * x.detach())
        del caught, y, x
        gc.collect()


# ---- torch.func ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:tensor_bridge.autograd. TensorFlow has no batching rule")
def test_transforms_of_torch_func() -> None:
    f = tf_to_torch(lambda x: tf.sin(x) * tf.reduce_sum(x))

    def reference(x: torch.Tensor) -> torch.Tensor:
        return torch.sin(x) * x.sum()

    x = value(3).detach()
    func = torch.func
    for transform in (
        lambda f: func.grad(lambda x: f(x).sum()),
        lambda f: func.jacrev(f),
        lambda f: func.jacfwd(f),
        lambda f: func.hessian(lambda x: f(x).sum()),
        lambda f: func.jacrev(func.jacrev(f)),
        lambda f: func.grad(lambda x: func.grad(lambda x: f(x).sum())(x).sum()),
        lambda f: lambda x: func.vjp(f, x)[1](torch.ones_like(x))[0],
        lambda f: lambda x: func.jvp(f, (x,), (x,))[1],
    ):
        torch.testing.assert_close(transform(f)(x), transform(reference)(x))
    batch = value(4, 3).detach()
    for transform in (func.vmap, lambda f: func.vmap(func.grad(lambda x: f(x).sum()))):
        torch.testing.assert_close(transform(f)(batch), transform(reference)(batch))
    torch.testing.assert_close(
        func.vmap(f, in_dims=1, out_dims=1)(batch.t().contiguous()).t(), func.vmap(reference)(batch)
    )


def test_vmap_says_once_that_it_loops() -> None:
    from tensor_bridge.autograd.tf_in_torch import _nodes

    _nodes._warn_of_loop.cache_clear()
    with pytest.warns(UserWarning, match="once for each element"):
        torch.func.vmap(tf_to_torch(tf.sin))(torch.ones(2, 3))
    torch.func.vmap(tf_to_torch(tf.sin))(torch.ones(2, 3))


def test_dual_numbers() -> None:
    f = tf_to_torch(tf.sin)
    x = value(3).detach()
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(x, torch.full_like(x, 2)))).tangent
    torch.testing.assert_close(tangent, 2 * torch.cos(x))


# ---- nothing is left -----------------------------------------------------------------------------


def test_a_backward_frees_what_the_forward_kept() -> None:
    kept: list[Any] = []

    def fn(x: Any) -> Any:
        hidden = tf.exp(x)
        kept.append(weakref.ref(hidden))
        return hidden * hidden

    x = value(3)
    y = tf_to_torch(fn)(x)
    y.sum().backward()
    gc.collect()
    assert kept[0]() is None  # although y lives
    assert y.requires_grad


@pytest.mark.parametrize(
    "count",
    [1_000, pytest.param(100_000, marks=[pytest.mark.exhaustive, pytest.mark.timeout(3600)])],
)
def test_steps_leave_nothing(count: int) -> None:
    f = tf_to_torch(lambda x: tf.sin(x) * x)
    x = torch.ones(4, requires_grad=True)
    numbers = itertools.count()

    def step() -> None:
        again = next(numbers) % 8 == 0
        (g,) = torch.autograd.grad(f(x).sum(), x, create_graph=again)
        if again:
            torch.autograd.grad(g.sum(), x)

    def plain_step() -> None:
        one = tf.ones([4])
        with tf.GradientTape() as tape:
            tape.watch(one)
            y = tf.sin(one) * one
        tape.gradient(y, one)

    for _ in range(1000):
        step()
    with owners():
        growth_over(step, plain_step, count).assert_flat()
