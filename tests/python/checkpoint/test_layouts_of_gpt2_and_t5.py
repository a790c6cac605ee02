"""The names of weights in GPT-2 and T5, compared by the equations of their code.

https://github.com/openai/gpt-2/blob/master/src/model.py: ``conv1d`` multiplies by w of
(1, in, out), ``norm`` by g and adds b. The layer_norm of https://github.com/tensorflow/mesh
multiplies by scale.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bundles
import needs
import pytest
import tensorflow as tf
import torch
from torch import nn

import tensor_bridge
from tensor_bridge import checkpoint


def saved(directory: Path, values: dict[str, tuple[int, ...]]) -> tuple[Path, dict[str, Any]]:
    """A checkpoint of TensorFlow 1 with random values for these names."""
    made = {
        name: tf.random.stateless_uniform(shape, (i, 5), -1.0, 1.0)
        for i, (name, shape) in enumerate(values.items())
    }
    prefix = directory / "model.ckpt"
    bundles.save(prefix, made)
    return prefix, made


def linear(size: int, out: int) -> nn.Module:
    return nn.Linear(size, out)


def conv1d(size: int, out: int) -> nn.Module:
    from transformers.pytorch_utils import Conv1D

    return Conv1D(out, size)


@needs.module("transformers")
@pytest.mark.parametrize("make", [linear, conv1d])
@pytest.mark.parametrize(("size", "out"), [(4, 4), (4, 6), (1, 3), (3, 1), (1, 1)])
@pytest.mark.parametrize("shape", ["(1, in, out)", "(in, out)"])
def test_conv1d_of_gpt2(tmp_path: Path, make: Any, size: int, out: int, shape: str) -> None:
    w = (1, size, out) if shape == "(1, in, out)" else (size, out)
    prefix, made = saved(tmp_path, {"h0/attn/c_attn/w": w, "h0/attn/c_attn/b": (out,)})
    module = nn.ModuleDict({"c_attn": make(size, out)})
    rules = [("^h0/attn/", "")]
    report = checkpoint.load_into(module, prefix, rules=rules)
    assert report.complete
    x = tf.random.stateless_normal((2, 3, size), (1, 1))
    kernel = tf.reshape(made["h0/attn/c_attn/w"], (size, out))
    expected = tf.matmul(tf.reshape(x, (-1, size)), kernel) + made["h0/attn/c_attn/b"]
    with torch.no_grad():
        found = module["c_attn"](tensor_bridge.to_torch(x)).reshape(-1, out)
    torch.testing.assert_close(found, tensor_bridge.to_torch(expected), rtol=1e-5, atol=1e-5)


def test_a_class_of_the_same_name_that_is_laid_out_otherwise_is_no_conv1d_of_gpt2() -> None:
    class Conv1D(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nf = 3
            self.weight = nn.Parameter(torch.zeros(3, 4))

    module = nn.ModuleDict({"m": Conv1D()})
    with pytest.raises(tensor_bridge.MismatchError, match=r"unused: m/w"):
        checkpoint.load_into(module, {"m/w": torch.ones(4, 3)})


def test_the_norm_of_gpt2(tmp_path: Path) -> None:
    prefix, made = saved(tmp_path, {"ln_1/b": (5,), "ln_1/g": (5,)})
    module = nn.ModuleDict({"ln_1": nn.LayerNorm(5, eps=1e-5)})
    assert checkpoint.load_into(module, prefix).complete
    x = tf.random.stateless_normal((2, 5), (1, 1))
    centred = x - tf.reduce_mean(x, -1, keepdims=True)
    scaled = centred * tf.math.rsqrt(tf.reduce_mean(centred**2, -1, keepdims=True) + 1e-5)
    expected = tensor_bridge.to_torch(scaled * made["ln_1/g"] + made["ln_1/b"])
    found = module["ln_1"](tensor_bridge.to_torch(x)).detach()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_norm_of_t5(tmp_path: Path) -> None:
    name = "encoder/block_000/layer_000/layer_norm/scale"
    prefix, made = saved(tmp_path, {name: (5,)})
    module = nn.ModuleDict({"norm": nn.RMSNorm(5, eps=1e-6)})
    report = checkpoint.load_into(module, prefix, rules=[("^encoder/.*layer_norm/", "norm/")])
    assert report.complete
    x = tf.random.stateless_normal((2, 5), (1, 1))
    scaled = x * tf.math.rsqrt(tf.reduce_mean(x**2, -1, keepdims=True) + 1e-6)
    found = module["norm"](tensor_bridge.to_torch(x)).detach()
    expected = tensor_bridge.to_torch(scaled * made[name])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "weights", "message"),
    [
        # Both libraries use this name, so it does not tell the kernel's orientation.
        (nn.Linear(3, 3), {"weight": (3, 3)}, r"expected kernel, bias, got 'weight'"),
        (nn.Linear(3, 3), {"w": (3, 3), "kernel": (3, 3)}, r"expected one 'kernel', got two: w, k"),
        (
            nn.Linear(3, 2),
            {"w": (2, 3)},
            r"of \(3, 2\), got \(2, 3\), which is torch's layout; a rule",
        ),
        # Outputs before and after the inputs, which EinsumDense may have.
        (nn.Linear(3, 8), {"kernel": (2, 3, 4)}, r"of inputs before outputs, \(3, 8\), got \(2, 3"),
        # A digit and a number that Python's int() refuses.
        (nn.Linear(3, 3), {"\u00b2": (3, 3)}, r"expected kernel, bias, got '\u00b2'"),
        (nn.Linear(3, 3), {"9" * 5000: (3, 3)}, r"expected kernel, bias, got '9999"),
        (nn.LSTM(3, 3), {f"l{'9' * 5000}/kernel": (3, 12)}, r"of one recurrent layer, got 'l9999"),
        (nn.LSTM(3, 3), {"a_W_i": (3, 3), "b_W_i": (3, 3)}, "one cell, got a_W_i, b_W_i"),
        (nn.LayerNorm((2, 3)), {"g": (3, 2)}, r"expected 'gamma' of \(2, 3\), got \(3, 2\)"),
        (nn.BatchNorm1d(4), {"moving_mean": (2, 2), "moving_variance": (4,)}, r"'moving_mean' of"),
        (nn.Conv2d(2, 3, 1), {"w": (1, 1, 2, 3), "b": (5, 5, 3)}, r"a bias of 3, got \(5, 5, 3\)"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_names_and_shapes_do_not_say_is_refused(
    module: nn.Module, weights: dict[str, tuple[int, ...]], message: str
) -> None:
    source = {f"m/{name}": torch.rand(shape) for name, shape in weights.items()}
    with pytest.raises(tensor_bridge.MismatchError, match=message):
        checkpoint.load_into(nn.ModuleDict({"m": module}), source, strict=False)
