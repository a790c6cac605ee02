"""Sonnet's modules into torch's: same input, same output. The judge is Sonnet."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import torch
from torch import nn

import tensor_bridge
from tensor_bridge import checkpoint

snt = pytest.importorskip("sonnet")

# Of a module: Sonnet's, torch's, the shape of the input, and how torch's is run.
Drawn = tuple[Any, nn.Module, tuple[int, ...], Callable[[nn.Module, torch.Tensor], torch.Tensor]]


def picture(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return module(x.movedim(-1, 1)).movedim(1, -1)


def plain(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return module(x)


def linear(draw: random.Random) -> Drawn:
    # As many inputs as outputs: no shape tells a kernel that is turned from one that is not.
    size, out, bias = draw.choice([3, 4]), draw.choice([3, 4]), draw.random() < 0.7
    return snt.Linear(out, with_bias=bias), nn.Linear(size, out, bias=bias), (2, size), plain


def conv(draw: random.Random) -> Drawn:
    ndim, size, out = draw.choice([1, 2, 3]), draw.choice([3, 4]), draw.choice([3, 4])
    kernel, bias = [draw.choice([1, 2, 3]) for _ in range(ndim)], draw.random() < 0.7
    rate = draw.choice([1, 2])
    source = getattr(snt, f"Conv{ndim}D")(out, kernel, rate=rate, padding="VALID", with_bias=bias)
    target = getattr(nn, f"Conv{ndim}d")(size, out, tuple(kernel), dilation=rate, bias=bias)
    return source, target, (2, *[6] * ndim, size), picture


def conv_transpose(draw: random.Random) -> Drawn:
    ndim, size, out = draw.choice([1, 2, 3]), draw.choice([3, 4]), draw.choice([3, 4])
    kernel, bias = [draw.choice([2, 3]) for _ in range(ndim)], draw.random() < 0.7
    source = getattr(snt, f"Conv{ndim}DTranspose")(
        out, kernel, stride=2, padding="VALID", with_bias=bias
    )
    target = getattr(nn, f"ConvTranspose{ndim}d")(size, out, tuple(kernel), stride=2, bias=bias)
    return source, target, (2, *[4] * ndim, size), picture


def depthwise(draw: random.Random) -> Drawn:
    size, times, bias = draw.choice([1, 3, 4]), draw.choice([1, 2, 3]), draw.random() < 0.7
    source = snt.DepthwiseConv2D(3, times, padding="VALID", with_bias=bias)
    target = nn.Conv2d(size, size * times, 3, groups=size, bias=bias)
    return source, target, (2, 5, 6, size), picture


def batch_norm(draw: random.Random) -> Drawn:
    size, scale, offset = draw.choice([1, 3]), draw.random() < 0.7, draw.random() < 0.7
    source = snt.BatchNorm(scale, offset, eps=1e-3)
    return source, nn.BatchNorm2d(size, eps=1e-3), (2, 4, 5, size), picture


def norm(draw: random.Random) -> Drawn:
    kind = draw.choice(["layer", "group", "instance"])
    scale, offset = draw.random() < 0.7, draw.random() < 0.7
    if kind == "layer":
        return snt.LayerNorm(-1, scale, offset), nn.LayerNorm(6), (2, 4, 6), plain
    if kind == "group":
        return snt.GroupNorm(2, -1, scale, offset), nn.GroupNorm(2, 4), (2, 5, 4), picture
    target = nn.InstanceNorm2d(4, affine=True)
    return snt.InstanceNorm(scale, offset), target, (2, 5, 6, 4), picture


DRAWN = {f.__name__: f for f in (linear, conv, conv_transpose, depthwise, batch_norm, norm)}


def with_random_weights(module: Any, call: Callable[[], Any]) -> None:
    """Builds a module, and gives every floating variable values."""
    call()
    for i, variable in enumerate(module.variables):
        if variable.dtype.is_floating:
            variable.assign(tf.random.stateless_uniform(variable.shape, (i, 7), 0.1, 0.9))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", DRAWN)
def test_a_module_gives_the_same_output(tmp_path: Path, name: str, seed: int) -> None:
    source, target, shape, run = DRAWN[name](random.Random(f"{name} {seed}"))
    training = {"is_training": False} if name == "batch_norm" else {}
    x = tf.random.stateless_normal(shape, (seed, 1))
    with_random_weights(source, lambda: source(x, **training))
    prefix = tf.train.Checkpoint(part=source).write(str(tmp_path / "ck"))
    module = nn.ModuleDict({"part": target})
    assert checkpoint.load_into(module, prefix).complete
    with torch.no_grad():
        found = run(target.eval(), tensor_bridge.to_torch(x))
    expected = tensor_bridge.to_torch(source(x, **training))
    # A transposed convolution without padding has further rows, of the bias alone.
    expected = expected[tuple(slice(size) for size in found.shape)]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_what_a_moving_average_keeps_for_training_is_ignored(tmp_path: Path) -> None:
    source = snt.BatchNorm(True, True)
    source(tf.ones((2, 4, 5, 3)), is_training=True)
    prefix = tf.train.Checkpoint(part=source).write(str(tmp_path / "ck"))
    report = checkpoint.load_into(nn.ModuleDict({"part": nn.BatchNorm2d(3)}), prefix)
    assert sorted(report.ignored) == [
        f"part/moving_{of}/_{kept}" for of in ("mean", "variance") for kept in ("counter", "hidden")
    ]
    assert report.complete


def test_the_layers_of_an_mlp(tmp_path: Path) -> None:
    source = snt.nets.MLP([4, 3, 4])
    x = tf.random.stateless_normal((2, 4), (1, 2))
    with_random_weights(source, lambda: source(x))
    prefix = tf.train.Checkpoint(mlp=source).write(str(tmp_path / "ck"))
    target = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 4))
    rules = [(f"^mlp/_layers/{i}/", f"{2 * i}/") for i in (2, 1, 0)]
    assert checkpoint.load_into(target, prefix, rules=rules).complete
    with torch.no_grad():
        found = target(tensor_bridge.to_torch(x))
    torch.testing.assert_close(found, tensor_bridge.to_torch(source(x)), rtol=1e-5, atol=1e-5)
