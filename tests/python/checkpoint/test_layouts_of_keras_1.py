"""Files of Keras 1 in torch, compared with Keras 2, which converts them for its own layers."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import h5py
import needs
import numpy as np
import pytest
import tensorflow as tf
import torch
from torch import nn

import tensor_bridge
from tensor_bridge import MismatchError, checkpoint

tf_keras = pytest.importorskip("tf_keras")
pytestmark = needs.module("tf_keras")
L = tf_keras.layers


def written(path: Path, weights: dict[str, Any], **attributes: str) -> Path:
    """A file of Keras 1 with one layer, "part", and the names of its variables."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"part"]
        for name, value in attributes.items():
            file.attrs[name] = value.encode()
        group = file.create_group("part")
        group.attrs["weight_names"] = [name.encode() for name in weights]
        for name, value in weights.items():
            group.create_dataset(name, data=value)
    return path


def converted(layer: Any, shape: tuple[int, ...], weights: dict[str, Any]) -> Any:
    """A layer of Keras 2 with the weights, converted by Keras."""
    from tf_keras.src.saving.legacy.hdf5_format import preprocess_weights_for_loading

    layer.build((None, *shape))
    values = [np.array(value) for value in weights.values()]
    layer.set_weights(preprocess_weights_for_loading(layer, values, "1", "tensorflow"))
    return layer


def drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(0.1, 0.9, shape).astype("float32") for name, shape in shapes.items()}


def same(path: Path, module: Any, layer: Any, shape: tuple[int, ...], **options: Any) -> None:
    report = checkpoint.load_into(nn.ModuleDict({"part": module}), path, **options)
    assert report.complete
    data = tf.random.stateless_normal((2, *shape), (1, 1))
    x = tensor_bridge.to_torch(data)
    with torch.no_grad():
        if isinstance(module, nn.RNNBase):
            found = module(x)[0]
        elif len(shape) > 1:
            found = module.eval()(x.movedim(-1, 1)).movedim(1, -1)
        else:
            found = module.eval()(x)
    expected = tensor_bridge.to_torch(layer(data))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_lstm_of_twelve_tensors(tmp_path: Path, seed: int) -> None:
    units = random.Random(seed).choice([3, 4])
    shapes: dict[str, tuple[int, ...]] = {}
    for gate in "icfo":  # https://github.com/keras-team/keras/blob/1.2.2/keras/layers/recurrent.py
        shapes[f"part_W_{gate}:0"] = (3, units)
        shapes[f"part_U_{gate}:0"] = (units, units)
        shapes[f"part_b_{gate}:0"] = (units,)
    weights = drawn(shapes, seed)
    layer = converted(L.LSTM(units, return_sequences=True), (4, 3), weights)
    path = written(tmp_path / "m.h5", weights)
    same(path, nn.LSTM(3, units, batch_first=True), layer, (4, 3))


@pytest.mark.parametrize("kind", ["LSTM", "SimpleRNN"])
def test_recurrent_layers_of_three_tensors(tmp_path: Path, kind: str) -> None:
    gates = 4 if kind == "LSTM" else 1
    shapes = {"part_W:0": (3, 3 * gates), "part_U:0": (3, 3 * gates), "part_b:0": (3 * gates,)}
    weights = drawn(shapes, 1)
    layer = converted(getattr(L, kind)(3, return_sequences=True), (4, 3), weights)
    module = {"LSTM": nn.LSTM, "SimpleRNN": nn.RNN}[kind](3, 3, batch_first=True)
    same(written(tmp_path / "m.h5", weights), module, layer, (4, 3))


def test_dense_embedding_and_prelu(tmp_path: Path) -> None:
    weights = drawn({"part_W:0": (3, 3), "part_b:0": (3,)}, 1)
    path = written(tmp_path / "m.h5", weights)
    same(path, nn.Linear(3, 3), converted(L.Dense(3), (3,), weights), (3,))
    table = drawn({"part_W:0": (3, 3)}, 2)
    module = nn.ModuleDict({"part": nn.Embedding(3, 3)})
    checkpoint.load_into(module, written(tmp_path / "e.h5", table))
    assert torch.equal(module["part"].weight, torch.tensor(table["part_W:0"]))
    alphas = drawn({"part_alphas:0": (1, 1, 3)}, 3)
    layer = converted(L.PReLU(shared_axes=[1, 2]), (4, 5, 3), alphas)
    same(written(tmp_path / "p.h5", alphas), nn.PReLU(3), layer, (4, 5, 3))


CONVOLUTIONS = [  # Keras 2's class, torch's class, sizes of the kernel, shape of the input
    ("Conv1D", nn.Conv1d, (3,), (7, 3)),
    ("Conv2D", nn.Conv2d, (3, 3), (6, 7, 3)),
    ("Conv2D", nn.Conv2d, (2, 3), (6, 7, 3)),
    ("Conv2D", nn.Conv2d, (1, 1), (6, 7, 3)),
    ("Conv3D", nn.Conv3d, (1, 2, 3), (4, 5, 6, 3)),
    ("Conv2DTranspose", nn.ConvTranspose2d, (2, 3), (4, 5, 3)),
]


@pytest.mark.parametrize("out", [3, 4])
@pytest.mark.parametrize(("kind", "target", "sizes", "shape"), CONVOLUTIONS)
def test_convolutions(
    tmp_path: Path, kind: str, target: Any, sizes: tuple[int, ...], shape: tuple[int, ...], out: int
) -> None:
    kernel = (*sizes, 1, 3, out) if kind == "Conv1D" else (*sizes, 3, out)
    weights = drawn({"part_W:0": kernel, "part_b:0": (out,)}, 1)
    layer = converted(getattr(L, kind)(out, sizes), shape, weights)
    path = written(tmp_path / "m.h5", weights)
    same(path, target(3, out, sizes), layer, shape, made_with={"dim_ordering": "tf"})


@pytest.mark.parametrize(("kind", "target", "sizes", "shape"), CONVOLUTIONS)
def test_convolutions_of_the_order_th(
    tmp_path: Path, kind: str, target: Any, sizes: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    kernel = (4, 3, *sizes, 1) if kind == "Conv1D" else (4, 3, *sizes)
    weights = drawn({"part_W:0": kernel, "part_b:0": (4,)}, 1)
    options = {} if kind == "Conv1D" else {"data_format": "channels_first"}
    first = (shape[-1], *shape[:-1])
    source = converted(
        getattr(L, kind)(4, sizes, **options), shape if not options else first, weights
    )
    layer = getattr(L, kind)(4, sizes)  # TensorFlow does not compute channels first on a CPU.
    layer.build((None, *shape))
    layer.set_weights(source.get_weights())
    same(written(tmp_path / "m.h5", weights), target(3, 4, sizes), layer, shape)


@pytest.mark.parametrize("order", ["tf", "th"])
def test_the_configuration_says_the_order_where_the_shape_does_not(
    tmp_path: Path, order: str
) -> None:
    weights = drawn({"part_W:0": (3, 3, 3, 3), "part_b:0": (3,)}, 1)
    config = {"name": "part", "nb_filter": 3, "nb_row": 3, "nb_col": 3, "dim_ordering": order}
    config |= {"border_mode": "valid", "subsample": [1, 1], "activation": "linear", "bias": True}
    config["batch_input_shape"] = [None, 5, 6, 3] if order == "tf" else [None, 3, 5, 6]
    layers = [{"class_name": "Convolution2D", "config": config}]
    model = json.dumps({"class_name": "Sequential", "config": layers})
    path = written(tmp_path / "m.h5", weights, model_config=model, keras_version="1.2.2")
    module = nn.Conv2d(3, 3, 3)
    assert checkpoint.load_into(nn.ModuleDict({"part": module}), path).complete
    kernel = torch.tensor(weights["part_W:0"])
    kernel = kernel.permute(3, 2, 0, 1) if order == "tf" else kernel
    assert torch.equal(module.weight, kernel)


@pytest.mark.parametrize("said", ["by the file", "by the caller", "by Keras 2"])
def test_theano_convolves_where_torch_correlates(tmp_path: Path, said: str) -> None:
    x, w = np.random.default_rng(1).random((2, 9), dtype="float32")
    w = w[:4]
    kernel = w.reshape(4, 1, 1) if said == "by Keras 2" else w.reshape(1, 1, 4, 1)
    name = "part/kernel:0" if said == "by Keras 2" else "part_W"
    attributes = {} if said == "by the caller" else {"backend": "theano"}
    path = written(tmp_path / "m.h5", {name: kernel}, **attributes)
    options = {"made_with": {"backend": "theano"}} if said == "by the caller" else {}
    module = nn.ModuleDict({"part": nn.Conv1d(1, 1, 4, bias=False)})
    checkpoint.load_into(module, path, **options)
    found = module["part"](torch.tensor(x).reshape(1, 1, -1)).detach().flatten()
    np.testing.assert_allclose(found, np.convolve(x, w, "valid"), rtol=1e-5)
    assert checkpoint.load(path).backend == attributes.get("backend")


def test_what_the_statistics_of_a_norm_are_depends_on_the_version(tmp_path: Path) -> None:
    names = ("gamma", "beta", "running_mean", "running_std")
    weights = drawn({f"part_{name}:0": (3,) for name in names}, 1)
    layer = converted(L.BatchNormalization(epsilon=1e-3), (4, 5, 3), weights)
    module = nn.BatchNorm2d(3, eps=1e-3)
    path = written(tmp_path / "m.h5", weights, keras_version="1.1.0")
    assert checkpoint.load(path).keras_version == "1.1.0"
    same(path, module, layer, (4, 5, 3))
    old = written(tmp_path / "old.h5", weights)
    same(old, module, layer, (4, 5, 3), made_with={"keras_version": "1.0.6"})
    for options, message in (
        ({}, r"say made_with=\{'keras_version': '1.2.2'\}"),
        ({"keras_version": "1.0.5"}, "with Keras 1.0.5 epsilon is added to the deviation"),
    ):
        with pytest.raises(MismatchError, match=message):
            checkpoint.load_into(nn.ModuleDict({"part": module}), old, made_with=options)


GRU = {f"part_{x}_{gate}": (3, 3) if x != "b" else (3,) for gate in "zrh" for x in "WUb"}


@pytest.mark.parametrize(
    ("module", "shapes", "message"),
    [
        (nn.GRU(3, 3), GRU, "the reset gate before its recurrent kernel"),
        (nn.GRU(3, 3), {"part_W": (3, 9), "part_U": (3, 9), "part_b": (9,)}, "the reset gate befo"),
        (
            nn.LSTM(3, 3),
            {"part_W_i": (3, 3), "part_U_i": (3, 3)},
            "expected W_i, W_f, W_c, W_o, U_",
        ),
        (nn.Linear(3, 3), {"part_W": (3, 3), "part_W_carry": (3, 3)}, "bias, got 'part_W_carry'"),
        (
            nn.Linear(3, 2),
            {"part_W": (4, 3, 2), "part_b": (4, 2)},
            "a kernel of 2 dimensions, or of",
        ),
        (nn.Conv2d(3, 3, 3), {"part_W": (3, 3, 3, 3)}, "may be of both orders.*dim_ordering"),
        (nn.Conv2d(3, 4, 2), {"part_W": (2, 2, 3, 4)}, "which of them Keras 1 ran on"),
        (nn.Conv2d(3, 4, 2), {"part_W": (2, 2, 4, 3)}, r"\(2, 2, 3, 4\) or \(4, 3, 2, 2\), got"),
    ],
    ids=str,
)
def test_what_the_file_does_not_say_or_torch_lacks_is_refused(
    tmp_path: Path, module: nn.Module, shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    path = written(tmp_path / "m.h5", drawn(shapes, 1))
    with pytest.raises(MismatchError, match=message):
        checkpoint.load_into(nn.ModuleDict({"part": module}), path, strict=False)


@pytest.mark.parametrize("value", [3, np.float32(1.5), h5py.Empty("f")])
def test_a_backend_that_is_no_text_says_nothing(tmp_path: Path, value: Any) -> None:
    path = written(tmp_path / "m.h5", drawn({"part_W": (3, 3)}, 1))
    with h5py.File(path, "a") as file:
        file.attrs["backend"] = value
    assert checkpoint.load(path).backend is None
