"""Rules for Sonnet's modules: saved by Sonnet, loaded into torch twins with the same outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import torch
from torch import nn
from torch.nn import functional as F
from tree import ROOT

import tensor_bridge
from tensor_bridge import MismatchError, checkpoint
from tensor_bridge.checkpoint import rules

DATA = ROOT / "tests/data/checkpoints"

snt = pytest.importorskip("sonnet", reason="dm-sonnet is not installed")


def written(module: Any, run: Callable[..., Any], folder: Path, *inputs: tf.Tensor) -> torch.Tensor:
    """Makes the variables, sets and saves them, and returns the output."""
    run(*inputs)
    for seed, variable in enumerate(module.variables):
        if variable.dtype.is_floating:
            drawn = tf.random.stateless_uniform(variable.shape, (seed, 1), 0.1, 0.6)
            signs = tf.random.stateless_uniform(variable.shape, (seed, 2)) > 0.5
            positive = "moving_variance" in variable.name
            variable.assign(tf.where(signs, drawn, drawn if positive else -drawn))
    tf.train.Checkpoint(module=module).save(str(folder / "checkpoint"))
    return tensor_bridge.to_torch(run(*inputs))


def load(twin: nn.Module, folder: Path, used: Any = rules.SONNET) -> nn.Module:
    assert checkpoint.load_into(twin, folder, rules=used).complete
    return twin.eval()


def assert_equal(given: torch.Tensor, right: torch.Tensor) -> None:
    """Asserts equality up to a part of the largest value: float32 sums in another order differ."""
    assert given.shape == right.shape
    assert torch.isfinite(right).all()
    assert (given - right).abs().max() <= 1e-5 * max(1.0, float(right.detach().abs().max()))


def unrolled(core: Any, x: tf.Tensor) -> tf.Tensor:
    """The outputs of all steps. Sonnet's functions need dm-tree, which tests/lint/tree.py hides."""
    state, outputs = core.initial_state(x.shape[1]), []
    for step in tf.unstack(x):
        y, state = core(step, state)
        outputs.append(y)
    return tf.stack(outputs)


def picture(x: tf.Tensor) -> torch.Tensor:
    return tensor_bridge.to_torch(x).movedim(-1, 1)


class Mlp(nn.Module):
    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


def test_mlp(tmp_path: Path) -> None:
    source = snt.nets.MLP([4, 4, 3])
    x = tf.random.stateless_normal((5, 4), (1, 2))
    right = written(source, source, tmp_path, x)
    assert_equal(load(Mlp(4, 4, 4, 3), tmp_path)(tensor_bridge.to_torch(x)), right)


def restored(module: Any, folder: Path) -> None:
    """Sets the variables of a Sonnet module that was called to the values that TensorFlow reads."""
    reader = tf.train.load_checkpoint(str(folder))
    for key in reader.get_variable_to_shape_map():
        if key.startswith("module/"):
            found = module
            for part in key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE").split("/")[1:]:
                found = found[int(part)] if part.isdigit() else getattr(found, part)
            found.assign(reader.get_tensor(key))


def test_an_mlp_of_sonnets_own_tests() -> None:
    source, x = snt.nets.MLP([3, 4, 5]), tf.random.stateless_normal((2, 3), (1, 2))
    source(x)
    restored(source, DATA / "sonnet_mlp_3x4x5_1x3")
    twin = load(Mlp(3, 3, 4, 5), DATA / "sonnet_mlp_3x4x5_1x3")
    assert_equal(twin(tensor_bridge.to_torch(x)), tensor_bridge.to_torch(source(x)))


def test_a_convolution_of_sonnets_own_tests() -> None:
    source, x = snt.Conv2D(3, 3), tf.random.stateless_normal((2, 5, 5, 2), (1, 2))
    source(x)
    restored(source, DATA / "sonnet_conv2d_3x3_2x2")
    twin = load(nn.Conv2d(2, 3, 3, padding=1), DATA / "sonnet_conv2d_3x3_2x2")
    assert_equal(twin(picture(x)), picture(source(x)))


def test_an_lstm_of_sonnets_own_tests() -> None:
    source, x = snt.LSTM(1), tf.random.stateless_normal((3, 2, 128), (1, 2))
    unrolled(source, x)
    restored(source, DATA / "sonnet_lstm_1")
    twin = load(nn.LSTM(128, 1), DATA / "sonnet_lstm_1")
    y, _ = twin(tensor_bridge.to_torch(x))
    assert_equal(y, tensor_bridge.to_torch(unrolled(source, x)))


def test_sequential(tmp_path: Path) -> None:
    """Functions between layers have numbers too, as in torch."""
    source = snt.Sequential(
        [snt.Embed(9, 4), snt.Linear(4), tf.nn.relu, snt.LayerNorm(-1, True, True), snt.Linear(2)]
    )
    ids = tf.constant([[1, 5, 8], [0, 2, 8]])
    right = written(source, source, tmp_path, ids)
    twin = nn.Sequential(
        nn.Embedding(9, 4), nn.Linear(4, 4), nn.ReLU(), nn.LayerNorm(4), nn.Linear(4, 2)
    )
    assert_equal(load(twin, tmp_path, rules.SONNET_SEQUENTIAL)(tensor_bridge.to_torch(ids)), right)


@pytest.mark.parametrize(
    ("core", "twin"),
    [
        (lambda: snt.LSTM(4), lambda: nn.LSTM(3, 4)),
        (lambda: snt.VanillaRNN(4), lambda: nn.RNN(3, 4)),
    ],
    ids=["LSTM", "VanillaRNN"],
)
def test_recurrent(core: Callable[[], Any], twin: Callable[[], nn.Module], tmp_path: Path) -> None:
    source = snt.Module()
    source.core, source.head = core(), snt.Linear(2)

    def run(x: tf.Tensor) -> tf.Tensor:
        return tf.stack([source.head(y) for y in tf.unstack(unrolled(source.core, x))])

    x = tf.random.stateless_normal((6, 2, 3), (1, 2))
    right = written(source, run, tmp_path, x)
    modules: Any = load(nn.ModuleDict({"core": twin(), "head": nn.Linear(4, 2)}), tmp_path)
    y, _ = modules["core"](tensor_bridge.to_torch(x))
    assert_equal(modules["head"](y), right)


def test_a_gru_is_refused(tmp_path: Path) -> None:
    """torch's GRU computes another function, and the file does not name which of Sonnet's two."""
    source = snt.GRU(4)
    x = tf.zeros((2, 3))
    written(source, lambda x: source(x, source.initial_state(2))[0], tmp_path, x)
    twin = nn.ModuleDict({"core": nn.GRU(3, 4)})
    used = [("^module/", "core/"), *rules.SONNET]
    with pytest.raises(MismatchError, match="torch has no GRU with reset_after=False"):
        checkpoint.load_into(twin, tmp_path, rules=used)


class ConvNet(nn.Module):
    """snt.nets.Cifar10ConvNet."""

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...], classes: int) -> None:
        super().__init__()
        pairs = list(zip((3, *channels), channels, strict=False))
        self.strides = strides
        self.conv_modules = nn.ModuleList(
            nn.Conv2d(a, b, 3, s) for (a, b), s in zip(pairs, strides, strict=True)
        )
        self.bn_modules = nn.ModuleList(nn.BatchNorm2d(size) for size in channels)
        self.logits_module = nn.Linear(channels[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, norm, stride in zip(
            self.conv_modules, self.bn_modules, self.strides, strict=True
        ):
            # "SAME" of an even size: one of three places before, or none with a stride of 2.
            x = norm(conv(F.pad(x, (2 - stride, 1, 2 - stride, 1)))).relu()
        return self.logits_module(x.mean((2, 3)))


def test_convolutions(tmp_path: Path) -> None:
    shape = ((4, 6, 6), (1, 2, 1))
    source = snt.nets.Cifar10ConvNet(3, output_channels=shape[0], strides=shape[1])

    def run(x: tf.Tensor) -> tf.Tensor:
        return source(x, is_training=False, test_local_stats=False)["logits"]

    x = tf.random.stateless_normal((2, 8, 8, 3), (1, 2))
    right = written(source, run, tmp_path, x)
    assert_equal(load(ConvNet(*shape, classes=3), tmp_path)(picture(x)), right)


class Block(nn.Module):
    """snt.nets.resnet.BottleNeckBlockV1"""

    def __init__(self, inputs: int, channels: int, stride: int, projects: bool) -> None:
        super().__init__()
        if projects:
            self.proj_conv = nn.Conv2d(inputs, channels, 1, stride, bias=False)
            self.proj_batchnorm = nn.BatchNorm2d(channels)
        inner = channels // 4
        sizes = ((inputs, inner, 1, 1), (inner, inner, 3, stride), (inner, channels, 1, 1))
        self.layers = nn.ModuleList(
            nn.ModuleList([nn.Conv2d(a, b, k, s, k // 2, bias=False), nn.BatchNorm2d(b)])
            for a, b, k, s in sizes
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = self.proj_batchnorm(self.proj_conv(x)) if hasattr(self, "proj_conv") else x
        for i, (conv, norm) in enumerate(self.layers):
            x = norm(conv(x))
            x = x.relu() if i < 2 else x
        return (x + shortcut).relu()


class ResNet(nn.Module):
    """snt.nets.ResNet"""

    def __init__(self, blocks: list[int], channels: list[int], classes: int) -> None:
        super().__init__()
        self.initial_conv = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.initial_batchnorm = nn.BatchNorm2d(64)
        self.block_groups = nn.ModuleList()
        inputs = 64
        for count, size, stride in zip(blocks, channels, (1, 2, 2, 2), strict=True):
            group = nn.Module()
            group.blocks = nn.ModuleList(
                Block(size if i else inputs, size, 1 if i else stride, i == 0) for i in range(count)
            )
            self.block_groups.append(group)
            inputs = size
        self.logits = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.initial_batchnorm(self.initial_conv(x)).relu()
        # "SAME" of an even size adds nothing before.
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)
        for group in self.block_groups:
            for block in group.blocks:
                x = block(x)
        return self.logits(x.mean((2, 3)))


def test_resnet(tmp_path: Path) -> None:
    blocks, channels = [2, 1, 1, 1], [8, 8, 12, 16]
    source = snt.nets.ResNet(blocks, 3, channels_per_group_list=channels)
    x = tf.random.stateless_normal((2, 32, 32, 3), (1, 2))
    right = written(source, lambda x: source(x, is_training=False), tmp_path, x)
    assert_equal(load(ResNet(blocks, channels, 3), tmp_path)(picture(x)), right)
