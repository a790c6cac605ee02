"""Weight normalization in torch, by the equations of TensorFlow Addons and of the paper's code.

https://github.com/tensorflow/addons/blob/v0.23.0/tensorflow_addons/layers/wrappers.py and
https://github.com/openai/weightnorm/blob/master/tensorflow/nn.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import tensor_bridge
from tensor_bridge import MismatchError, checkpoint


def plain(module: nn.Module) -> nn.Module:
    return module


def by_hook(module: nn.Module) -> nn.Module:
    return torch.nn.utils.weight_norm(module)


def tensors(**shapes: tuple[int, ...]) -> dict[str, Any]:
    return {
        name: tf.Variable(tf.random.stateless_uniform(shape, (i, 3), -0.9, 0.9))
        for i, (name, shape) in enumerate(shapes.items())
    }


def saved(path: Path, source: dict[str, Any]) -> str:
    names = [f"part/{name}" for name in source]
    values = [tf.convert_to_tensor(x) for x in source.values()]
    prefix = str(path / "ck")
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=values
    )
    return prefix


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("stored", [plain, weight_norm, by_hook])
@pytest.mark.parametrize("out", [3, 4])
@pytest.mark.parametrize("kind", ["linear", "conv", "transpose"])
def test_the_kernel_is_that_which_the_layer_computes(
    tmp_path: Path, kind: str, out: int, stored: Callable[[Any], nn.Module]
) -> None:
    if kind == "linear":
        source = tensors(V=(3, out), g=(out,), b=(out,))
        x = tf.random.stateless_normal((2, 3), (5, 5))
        kernel = source["g"] * tf.nn.l2_normalize(source["V"], [0])
        y = x @ kernel + source["b"]
        module: Any = nn.Linear(3, out)
    elif kind == "conv":
        source = {"layer/bias": tensors(b=(out,))["b"], **tensors(v=(2, 3, 3, out), g=(out,))}
        x = tf.random.stateless_normal((2, 5, 6, 3), (5, 5))
        kernel = tf.nn.l2_normalize(source["v"], [0, 1, 2]) * source["g"]
        y = tf.nn.conv2d(x, kernel, 1, "VALID") + source["layer/bias"]
        source["_initialized"] = tf.constant(True)
        module = nn.Conv2d(3, out, (2, 3))
    else:
        # More inputs than outputs, so that the size of g is unambiguous.
        source = tensors(V=(2, 3, out, 5), g=(out,), b=(out,))
        x = tf.random.stateless_normal((2, 4, 3, 5), (5, 5))
        kernel = tf.reshape(source["g"], (1, 1, -1, 1)) * tf.nn.l2_normalize(source["V"], [0, 1, 3])
        y = tf.nn.conv2d_transpose(x, kernel, (2, 5, 5, out), 1, "VALID") + source["b"]
        module = nn.ConvTranspose2d(5, out, (2, 3))
    module = stored(module)
    report = checkpoint.load_into(nn.ModuleDict({"part": module}), saved(tmp_path, source))
    assert report.complete
    data = tensor_bridge.to_torch(x)
    with torch.no_grad():
        found = module(data) if kind == "linear" else module(data.movedim(-1, 1)).movedim(1, -1)
    torch.testing.assert_close(found, tensor_bridge.to_torch(y), rtol=1e-5, atol=1e-5)


def test_a_layer_that_was_never_called_has_the_kernel_itself() -> None:
    weights = {
        "part/v": torch.rand(3, 3),
        "part/g": torch.ones(3),
        "part/layer/bias": torch.rand(3),
    }
    weights["part/_initialized"] = torch.tensor(False)
    module = nn.ModuleDict({"part": nn.Linear(3, 3)})
    assert checkpoint.load_into(module, weights).complete
    assert torch.equal(module["part"].weight, weights["part/v"].t())


@pytest.mark.parametrize(
    ("module", "weights", "message"),
    [
        (nn.ConvTranspose1d(3, 3, 2), {"v": (2, 3, 3), "g": (3,)}, "the size of either of two ax"),
        (nn.Linear(3, 4), {"v": (3, 4), "g": (3,)}, "one of 3 for .3, 4., .* the size of no axis"),
        (nn.Linear(3, 3), {"kernel": (3, 3), "u": (1, 3)}, "spectral normalization.*drop u"),
        (nn.Linear(3, 3), {"v": (3, 3), "bias": (3,)}, "expected kernel, bias, got 'v'"),
    ],
    ids=str,
)
def test_what_does_not_say_how_it_is_normalized_is_refused(
    module: nn.Module, weights: dict[str, tuple[int, ...]], message: str
) -> None:
    source = {f"m/{name}": torch.rand(shape) for name, shape in weights.items()}
    with pytest.raises(MismatchError, match=message):
        checkpoint.load_into(nn.ModuleDict({"m": module}), source, strict=False)


def test_what_spectral_normalization_keeps_for_training_is_ignored() -> None:
    weights = {"m/layer/kernel": torch.rand(3, 3), "m/layer/bias": torch.rand(3)}
    for kept in ("vector_u", "sn_u"):
        module = nn.ModuleDict({"m": nn.Linear(3, 3)})
        report = checkpoint.load_into(module, {**weights, f"m/{kept}": torch.rand(1, 3)})
        assert (report.complete, report.ignored) == (True, [f"m/{kept}"])
        assert torch.equal(module["m"].weight, weights["m/layer/kernel"].t())
