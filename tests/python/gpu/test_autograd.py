"""Gradients between the frameworks with models and tensors on a GPU."""

from __future__ import annotations

from typing import Any

import keras
import needs
import pytest
import tensorflow as tf
import torch

import tensor_bridge
from tensor_bridge.autograd import TfModule, tf_to_torch, torch_to_tf


def values() -> torch.Tensor:
    return torch.randn(8, 5, generator=torch.Generator().manual_seed(1)).cuda()


@pytest.mark.parametrize("graph", [False, True])
def test_tensorflow_inside_torch(graph: bool) -> None:
    def f(x: Any) -> Any:
        return tf.reduce_sum(tf.sin(x) * x, axis=1)

    function = tf_to_torch(tf.function(f) if graph else f)
    x = values().requires_grad_()
    y = function(x)
    y.sum().backward()
    expected = torch.cos(x) * x + torch.sin(x)
    torch.testing.assert_close(y.cpu(), (torch.sin(x) * x).sum(1).cpu())
    assert x.grad is not None
    assert x.grad.device == x.device
    torch.testing.assert_close(x.grad, expected.detach())


@pytest.mark.parametrize("again", [False, True])
def test_gradients_are_where_their_inputs_are(again: bool) -> None:
    """On whichever device TensorFlow computes them."""
    function = tf_to_torch(lambda x, y: tf.sin(x) * y, higher_order=again)
    expected = values().cpu()
    gpus = range(torch.cuda.device_count())
    places = [torch.device("cpu"), *(torch.device("cuda", i) for i in gpus)]
    for where in ("CPU:0", *(f"GPU:{i}" for i in gpus)):
        for first, second in zip(places, reversed(places), strict=True):
            x = expected.to(first, copy=True).requires_grad_()
            y = expected.to(second, copy=True).requires_grad_()
            with tf.device(where):
                result = function(x, y)
                ones = torch.ones_like(result)
                found = torch.autograd.grad(result, (x, y), ones, create_graph=again)
                if again:
                    (twice,) = torch.autograd.grad(found[0], y, torch.ones_like(x))
                    assert twice.device == second
                    torch.testing.assert_close(twice.cpu(), torch.cos(expected))
            assert [g.device for g in found] == [first, second]
            torch.testing.assert_close(found[0].cpu(), torch.cos(expected) * expected)
            torch.testing.assert_close(found[1].cpu(), torch.sin(expected))


@pytest.mark.parametrize("graph", [False, True])
def test_torch_inside_tensorflow(graph: bool) -> None:
    module = torch.nn.Linear(5, 3)
    function = torch_to_tf(lambda x: torch.nn.functional.linear(x, module.weight.to(x.device)))
    if graph:
        function = tf.function(function, autograph=False)
    t = tensor_bridge.to_tf(values(), device="GPU:0")
    with tf.GradientTape() as tape:
        tape.watch(t)
        y = tf.reduce_sum(function(t) ** 2)
    gradient = tape.gradient(y, t)
    x = values().cpu().requires_grad_()
    (torch.nn.functional.linear(x, module.weight) ** 2).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(
        tensor_bridge.to_torch(gradient, device="cpu"), x.grad, rtol=1e-3, atol=1e-4
    )


@needs.keras_3
def test_a_keras_model_trains_under_torch() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    module = TfModule(model)
    assert all(parameter.is_cuda for parameter in module.parameters())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    x = values()
    target = x.sum(1, keepdim=True)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = ((module(x).to(x.device) - target) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    module.push() if hasattr(module, "push") else None
    prediction = model(tensor_bridge.to_tf(x, device="GPU:0"))
    torch.testing.assert_close(
        tensor_bridge.to_torch(prediction, device="cpu"),
        module(x).detach().cpu(),
        rtol=1e-3,
        atol=1e-4,
    )


def trained(module: torch.nn.Module, way: str) -> list[float]:
    """The losses of a training whose updates neither move a tensor nor count a version."""
    x = values()
    target = x.sum(1, keepdim=True)
    if way == "data":
        optimizer = None
    else:
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05, fused=way == "fused")
    losses = []
    for _ in range(6):
        module.zero_grad()
        loss = ((module(x) - target) ** 2).mean()
        loss.backward()
        if optimizer is not None:
            optimizer.step()
        else:
            for p in module.parameters():
                assert p.grad is not None
                p.data.sub_(p.grad, alpha=0.05)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("way", ["loop", "fused", "data"])
def test_a_keras_model_trains_with_every_kind_of_update(way: str, loaded: bool) -> None:
    keras.utils.set_random_seed(0)
    module = TfModule(keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)]))
    if loaded:
        # From here on torch has its own memory, and TensorFlow has copies of it.
        module.load_state_dict({k: v.clone() for k, v in module.state_dict().items()})
    own = torch.nn.Linear(5, 1).cuda()
    kernel, bias = (v.clone() for v in module.state_dict().values())
    own.load_state_dict({"weight": kernel.T, "bias": bias})
    losses = trained(module, way)
    torch.testing.assert_close(losses, trained(own, way), rtol=1e-4, atol=1e-5)
    assert losses[-1] < losses[0] / 2
