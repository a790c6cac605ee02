"""Sonnet's modules in torch's modules: the same output for the same input."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import torch
from torch import nn
from tree import ROOT

import tensor_bridge
from tensor_bridge import MismatchError, checkpoint

snt = pytest.importorskip("sonnet")

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")
DATA = ROOT / "tests/data/checkpoints"

# Sonnet's module, torch's module, the shape of the input, and a function that runs torch's module.
Drawn = tuple[Any, nn.Module, tuple[int, ...], Callable[[nn.Module, torch.Tensor], torch.Tensor]]


def picture(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return module(x.movedim(-1, 1)).movedim(1, -1)


def plain(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return module(x)


def linear(draw: random.Random) -> Drawn:
    # If there are as many inputs as outputs, the shape does not show a transposed kernel.
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
    """Builds a module, and sets every floating-point variable to random values."""
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
    # A transposed convolution without padding has more rows, which only have the bias.
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


def unrolled(core: Any, x: Any) -> Any:
    """The outputs of a core, batch first."""
    state, outputs = core.initial_state(x.shape[0]), []
    for step in tf.unstack(x, axis=1):
        output, state = core(step, state)
        outputs.append(output)
    return tf.stack(outputs, 1)


def core_of(draw: random.Random) -> tuple[Any, nn.Module, int]:
    """A core, its layer in torch, and the size of its input."""
    kind, layers = draw.choice(["LSTM", "projected", "VanillaRNN"]), draw.choice([1, 2])
    units = draw.choice([3, 4])
    size = draw.choice([units, units + 1])
    if kind == "VanillaRNN":
        # Torch has two biases instead of Sonnet's one.
        core = lambda: snt.VanillaRNN(units)  # noqa: E731
        target: nn.Module = nn.RNN(size, units, layers, batch_first=True)
    else:
        projection = 2 if kind == "projected" else None
        core = lambda: snt.LSTM(units, projection, forget_bias=0.5)  # noqa: E731
        target = nn.LSTM(size, units, layers, batch_first=True, proj_size=projection or 0)
    deep = snt.DeepRNN([core() for _ in range(layers)]) if layers > 1 else core()
    return deep, target, size


@pytest.mark.parametrize("seed", range(10))
def test_a_recurrent_core_gives_the_same_output(tmp_path: Path, seed: int) -> None:
    core, target, size = core_of(random.Random(seed))
    x = tf.random.stateless_normal((2, 4, size), (seed, 1))
    with_random_weights(core, lambda: unrolled(core, x))
    prefix = tf.train.Checkpoint(part=core).write(str(tmp_path / "ck"))
    assert checkpoint.load_into(nn.ModuleDict({"part": target}), prefix).complete
    with torch.no_grad():
        found = target(tensor_bridge.to_torch(x))[0]
    expected = tensor_bridge.to_torch(unrolled(core, x))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def same_padding() -> nn.Module:
    return nn.Conv2d(2, 3, 3, padding="same")


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5))


@pytest.mark.parametrize(
    ("folder", "core", "module", "shape"),
    [
        ("sonnet_conv2d_3x3_2x2", lambda: snt.Conv2D(3, 3), same_padding, (1, 2, 2, 2)),
        ("sonnet_mlp_3x4x5_1x3", lambda: snt.nets.MLP([3, 4, 5]), perceptron, (1, 3)),
        ("sonnet_lstm_1", lambda: snt.LSTM(1), lambda: nn.LSTMCell(128, 1), (1, 128)),
    ],
    ids=["conv2d", "mlp", "lstm"],
)
def test_checkpoints_that_sonnet_published(
    folder: str, core: Any, module: Any, shape: tuple[int, ...]
) -> None:
    source, target = core(), module()
    x = tf.random.stateless_normal(shape, (3, 1))
    state = [source.initial_state(1)] if "lstm" in folder else []
    source(x, *state)
    reader = tf.train.load_checkpoint(str(DATA / folder))
    for variable in source.variables:
        kind = variable.name.split("/")[-1].split(":")[0]
        kind = {"w_i": "_w_i", "w_h": "_w_h"}.get(kind, kind)
        if "linear" in variable.name:
            kind = f"_layers/{variable.name.split('linear_')[1][0]}/{kind}"
        variable.assign(reader.get_tensor(f"module/{kind}/.ATTRIBUTES/VARIABLE_VALUE"))
    numbers = [(f"_layers/{i}/", f"{2 * i}/") for i in (2, 1, 0)]
    report = checkpoint.load_into(target, DATA / folder, rules=[("^module/", ""), *numbers])
    assert report.complete
    run = picture if len(shape) == 4 else plain
    with torch.no_grad():
        found = run(target, tensor_bridge.to_torch(x))
    expected = source(x, *state)
    if state:
        found, expected = found[0], expected[0]
    torch.testing.assert_close(found, tensor_bridge.to_torch(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("core", "module", "message"),
    [
        (lambda: snt.GRU(3), nn.GRU(3, 3), "the reset gate before its recurrent kernel"),
        (lambda: snt.Conv1DLSTM((5, 3), 3, 2), nn.LSTM(3, 3), "no convolutional recurrent layer"),
    ],
    ids=["GRU", "Conv1DLSTM"],
)
def test_a_core_that_torch_has_not_is_refused(
    tmp_path: Path, core: Any, module: nn.Module, message: str
) -> None:
    source = core()
    x = tf.zeros((2, 5, 3) if "Conv" in type(source).__name__ else (2, 3))
    source(x, source.initial_state(2))
    prefix = tf.train.Checkpoint(part=source).write(str(tmp_path / "ck"))
    with pytest.raises(MismatchError, match=message):
        checkpoint.load_into(nn.ModuleDict({"part": module}), prefix)


def test_a_core_of_sonnet_1_with_two_biases() -> None:
    # sonnet/python/modules/basic_rnn.py of v1: two Linear modules, each with a bias.
    shapes = {"in_to_hidden": (4, 3), "hidden_to_hidden": (3, 3)}
    weights = {f"rnn/{of}/w": torch.rand(shape) for of, shape in shapes.items()}
    weights |= {f"rnn/{of}/b": torch.rand(3) for of in shapes}
    module = nn.RNNCell(4, 3)
    assert checkpoint.load_into(nn.ModuleDict({"rnn": module}), weights).complete
    x, h = torch.rand(2, 4), torch.rand(2, 3)
    parts = [weights[f"rnn/{of}/w"] for of in shapes], [weights[f"rnn/{of}/b"] for of in shapes]
    expected = torch.tanh(x @ parts[0][0] + parts[1][0] + h @ parts[0][1] + parts[1][1])
    torch.testing.assert_close(module(x, h).detach(), expected, rtol=1e-5, atol=1e-5)
