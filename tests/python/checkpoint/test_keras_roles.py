"""The roles of the numbered variables of Keras' layers, compared with the layers themselves."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import needs
import numpy as np
import pytest
import torch
from torch import nn

from tensor_bridge import MismatchError, checkpoint
from tensor_bridge.checkpoint.into_module._keras_roles import role_of, roles_of

Maker = Callable[[Any, str], Any]


def of(class_name: str, *args: Any, inner: Any = None, **options: Any) -> Maker:
    def make(keras: Any, name: str) -> Any:
        held = [] if inner is None else [inner(keras, "inside")]
        return getattr(keras.layers, class_name)(*held, *args, name=name, **options)

    return make


def switched(*options: str) -> Iterator[dict[str, bool]]:
    for values in itertools.product((True, False), repeat=len(options)):
        yield dict(zip(options, values, strict=True))


CASES: list[tuple[Maker, tuple[int, ...]]] = [
    *((of("Dense", 2, **o), (3,)) for o in switched("use_bias", "trainable")),
    *(
        (of(f"Conv{n}D", 2, 1, **o), (4,) * n + (3,))
        for n in (1, 2, 3)
        for o in switched("use_bias")
    ),
    *(
        (of(f"Conv{n}DTranspose", 2, 1, **o), (4,) * n + (3,))
        for n in (1, 2, 3)
        for o in switched("use_bias")
    ),
    *(
        (of(f"{kind}{n}D", *args, **o), (4,) * n + (3,))
        for kind, args in (("DepthwiseConv", (1,)), ("SeparableConv", (2, 1)))
        for n in (1, 2)
        for o in switched("use_bias")
    ),
    (of("EinsumDense", "ab,bc->ac", (2,)), (3,)),
    (of("EinsumDense", "ab,bc->ac", (2,), bias_axes="c"), (3,)),
    (of("Embedding", 5, 2), (3,)),
    (of("PReLU"), (3,)),
    *((of("BatchNormalization", **o), (3,)) for o in switched("scale", "center", "trainable")),
    *((of("LayerNormalization", **o), (3,)) for o in switched("scale", "center")),
    *((of("GroupNormalization", 1, **o), (3,)) for o in switched("scale", "center")),
    *(
        (of(kind, 2, **o), (4, 3))
        for kind in ("LSTM", "GRU", "SimpleRNN")
        for o in switched("use_bias")
    ),
    (of("GRU", 2, reset_after=False), (4, 3)),
    (of("RNN", inner=of("LSTMCell", 2)), (4, 3)),
    *((of("ConvLSTM1D", 2, 1, **o), (4, 5, 3)) for o in switched("use_bias")),
    (of("Bidirectional", inner=of("GRU", 2, use_bias=False)), (4, 3)),
    (of("TimeDistributed", inner=of("BatchNormalization", scale=False)), (4, 3)),
]
ONLY_KERAS_3: list[tuple[Maker, tuple[int, ...]]] = [
    (of("RMSNormalization"), (3,)),
    (of("LayerNormalization", rms_scaling=True), (3,)),
    (of("BatchNormalization", renorm=True, scale=False), (3,)),
    (of("ReversibleEmbedding", 5, 2, tie_weights=False), (3,)),
]


def model_of(keras: Any, cases: list[tuple[Maker, tuple[int, ...]]]) -> Any:
    """A model with all layers in parallel."""
    inputs = [keras.Input(shape) for _, shape in cases]
    layers = [make(keras, f"layer_{number}") for number, (make, _) in enumerate(cases)]
    outputs = [layer(x) for layer, x in zip(layers, inputs, strict=True)]
    for use_bias in (True, False):
        x = keras.Input((4, 6))
        attention = keras.layers.MultiHeadAttention(2, 3, use_bias=use_bias)
        inputs.append(x)
        outputs.append(attention(x, x))
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("generation", [pytest.param("keras", marks=needs.keras_3), "tf_keras"])
def test_each_number_is_the_variable_of_that_role(tmp_path: Path, generation: str) -> None:
    of_keras = keras if generation == "keras" else pytest.importorskip("tf_keras")
    cases = CASES + [case for case in ONLY_KERAS_3 if _is_there(case[0], of_keras)]
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = model_of(of_keras, cases)
        for value, variable in enumerate(model.weights, 1):
            variable.assign(np.full(variable.shape, value, "float32"))
            names[float(value)] = variable.name.removesuffix(":0").rpartition("/")[2]
        model.save(tmp_path / "model.keras")
    loaded = checkpoint.load(tmp_path / "model.keras")
    assert len(loaded) == len(names)
    layers = loaded.layers
    found = {name: role_of(name, layers) for name in loaded}
    # Keras 3 calls the depthwise kernel "kernel".
    kernel = "kernel" if generation == "keras" else "depthwise_kernel"
    separable = {n for n, layer in layers.items() if layer.class_name.startswith("Separable")}
    real = {name: names[float(x.flatten()[0])] for name, x in loaded.items()}
    for name, role in found.items():
        if role == "depthwise_kernel" and name.rpartition("/")[0] not in separable:
            found[name] = kernel
    assert found == real


def _is_there(make: Maker, of_keras: Any) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make(of_keras, "layer")
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def test_what_is_not_known_has_no_role() -> None:
    quantized = {"dtype": {"class_name": "QuantizedDTypePolicy", "config": {}}}
    assert roles_of("Dense", quantized) is None
    assert roles_of("Dense", {"quantization_config": {"mode": "int8"}}) is None
    assert roles_of("somebody>Dense", {}) is None
    layers = {
        "a": checkpoint.Layer("Dense", {"use_bias": False}),
        "b": checkpoint.Layer("TimeDistributed", {"layer": {"class_name": 3, "config": {}}}),
    }
    assert role_of("a/0", layers) == "kernel"
    for name in ("a/1", "a/kernel", "a/x/0", "c/0", "0", "a/" + "9" * 5000, "b/layer/0", "a/²"):
        assert role_of(name, layers) is None, name


NORMS = {
    "BatchNormalization": lambda affine: nn.BatchNorm1d(3, eps=1e-3, affine=affine),
    "LayerNormalization": lambda affine: nn.LayerNorm(3, eps=1e-3, elementwise_affine=affine),
}


@pytest.mark.parametrize("generation", [pytest.param("keras", marks=needs.keras_3), "tf_keras"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("options", list(switched("scale", "center")), ids=str)
def test_a_norm_without_scale_or_center_is_loaded(
    tmp_path: Path, generation: str, norm: str, options: dict[str, bool]
) -> None:
    of_keras = keras if generation == "keras" else pytest.importorskip("tf_keras")
    layer = getattr(of_keras.layers, norm)(name="norm", **options)
    model = of_keras.Sequential([of_keras.Input((3,)), layer])
    rng = np.random.default_rng(0)
    layer.set_weights([rng.random(w.shape, "float32") + 1 for w in layer.get_weights()])
    x = rng.random((5, 3), "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "m.keras")
        expected = np.asarray(model(x))
    twin = nn.ModuleDict({"norm": NORMS[norm](any(options.values()))}).eval()
    report = checkpoint.load_into(twin, tmp_path / "m.keras", strict=False)
    assert not report.unused
    found = twin["norm"](torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@needs.keras_3
def test_a_norm_whose_weights_have_no_names_is_refused_where_it_is_not_clear(
    tmp_path: Path,
) -> None:
    for scale in (True, False):
        layer = keras.layers.BatchNormalization(name="norm", scale=scale, center=False)
        model = keras.Sequential([keras.Input((3,)), layer])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save_weights(tmp_path / "m.weights.h5")
        twin = nn.ModuleDict({"norm": nn.BatchNorm1d(3)})
        if scale:
            with pytest.raises(MismatchError, match=r"got 3 without names; a \.keras or \.h5"):
                checkpoint.load_into(twin, tmp_path / "m.weights.h5")
        else:
            assert checkpoint.load_into(twin, tmp_path / "m.weights.h5").complete
