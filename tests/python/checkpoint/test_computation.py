"""Differences between the computations of torch's modules and of the layers in a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import needs
import pytest
import torch
from torch import nn

from tensor_bridge import MismatchError, checkpoint
from tensor_bridge.checkpoint import Layer
from tensor_bridge.checkpoint.into_module._computation import compared

if not needs.KERAS_3:
    pytest.skip("layers of Keras 3", allow_module_level=True)
pytestmark = [
    needs.module("tf_keras"),
    pytest.mark.filterwarnings("ignore"),  # of Keras, about its own files and NumPy
]

L = keras.layers


def old(class_name: str, **config: Any) -> Layer:
    return Layer(class_name, config)


def described(layer: Any) -> Layer:
    return layer if isinstance(layer, Layer) else Layer(type(layer).__name__, layer.get_config())


def found(module: nn.Module, layers: Mapping[str, Any], **flattened: tuple[int, ...]) -> list[str]:
    """The differences of a model whose module "part" takes the weights of the layer "part"."""
    modules = dict(nn.ModuleDict({"part": module}).named_modules())
    given = {name: described(layer) for name, layer in layers.items()}
    return compared(modules, {"part": ["part"]}, given, flattened)


def norm(kind: Any, *sizes: Any, **options: Any) -> nn.Module:
    return kind(*sizes, **options).eval()


# A layer, a module, and the difference that is reported.
DIFFERENT = {
    "conv_that_is_depthwise": (L.Conv2D(4, 3, use_bias=False),
        nn.Conv2d(4, 16, 3, groups=4, bias=False),
        "the layer's groups is 1, torch.nn.Conv2d has 4"),
    "lstm_hard_sigmoid": (L.LSTM(3, recurrent_activation="hard_sigmoid"), nn.LSTM(2, 3),
        "the layer's recurrent_activation is hard_sigmoid, torch.nn.LSTM computes sigmoid"),
    "lstm_of_keras_1": (
        old("LSTM", output_dim=3, activation="tanh", inner_activation="hard_sigmoid"),
        nn.LSTM(2, 3),
        "the layer's recurrent_activation is hard_sigmoid, torch.nn.LSTM computes sigmoid"),
    "lstm_activation": (L.LSTM(3, activation="relu"), nn.LSTMCell(2, 3),
        "the layer's activation is relu, torch.nn.LSTMCell computes tanh"),
    "own_activation": (
        old("LSTM", activation={"class_name": "function", "config": "f",
                                "registered_name": "Mine>f"}),
        nn.LSTM(2, 3),
        "the layer's activation is Mine>f, torch.nn.LSTM computes tanh"),
    "gru_reset_after": (L.GRU(3, reset_after=False, use_bias=False), nn.GRU(2, 3, bias=False),
        "the layer's reset_after is False, torch.nn.GRU computes what Keras does with True"),
    "gru_before_reset_after": (old("GRU", units=3), nn.GRU(2, 3),
        "the layer's reset_after is False, torch.nn.GRU computes what Keras does with True"),
    "rnn_nonlinearity": (L.SimpleRNN(3, activation="relu"), nn.RNN(2, 3),
        "the layer's activation is relu, torch.nn.RNN computes tanh"),
    "go_backwards": (L.LSTM(3, go_backwards=True), nn.LSTM(2, 3),
        "the layer's go_backwards is True, torch.nn.LSTM computes it as False"),
    "stateful": (L.LSTM(3, stateful=True), nn.LSTM(2, 3),
        "the layer's stateful is True: it goes on from its last state, torch.nn.LSTM begins "
        "with zeros"),
    "merge_mode": (L.Bidirectional(L.LSTM(3), merge_mode="sum"), nn.LSTM(2, 3, bidirectional=True),
        "the layer's merge_mode is sum, torch.nn.LSTM has concat"),
    "within_bidirectional": (L.Bidirectional(L.GRU(3, recurrent_activation="relu")),
        nn.GRU(2, 3, bidirectional=True),
        "the layer's recurrent_activation is relu, torch.nn.GRU computes sigmoid"),
    "within_stacked_cells": (
        L.RNN([L.LSTMCell(3), L.LSTMCell(3, recurrent_activation="hard_sigmoid")]),
        nn.LSTM(2, 3, num_layers=2),
        "the layer's recurrent_activation is hard_sigmoid, torch.nn.LSTM computes sigmoid"),
    "another_cell": (L.RNN(L.GRUCell(3)), nn.LSTM(2, 3),
        "the layer is of the kind GRUCell, the module is a torch.nn.LSTM"),
    "strides": (L.Conv2D(3, 3, strides=2), nn.Conv2d(2, 3, 3),
        "the layer's strides is 2, torch.nn.Conv2d has stride=1"),
    "strides_of_keras_1": (old("Convolution2D", nb_filter=3, subsample=[2, 1], border_mode="valid"),
        nn.Conv2d(2, 3, 3),
        "the layer's strides is (2, 1), torch.nn.Conv2d has stride=1"),
    "dilation": (L.DepthwiseConv1D(3, dilation_rate=2), nn.Conv1d(2, 2, 3, groups=2),
        "the layer's dilation_rate is 2, torch.nn.Conv1d has dilation=1"),
    "groups": (L.Conv1D(4, 3, groups=2), nn.Conv1d(2, 4, 3),
        "the layer's groups is 2, torch.nn.Conv1d has 1"),
    "padding": (L.Conv2D(3, 3, padding="same"), nn.Conv2d(2, 3, 3),
        "the layer's padding is same: (1, 1) zeros around an input of 3, torch.nn.Conv2d has "
        "(0, 0)"),
    "padding_by_size": (L.Conv2D(3, 3, strides=2, padding="same"),
        nn.Conv2d(2, 3, 3, stride=2, padding=1),
        "the layer's padding is same: (0, 1) zeros around an input of 4, torch.nn.Conv2d has "
        "(1, 1)"),
    "padding_of_an_even_kernel": (old("Convolution1D", border_mode="same"),
        nn.Conv1d(2, 3, 4, padding=2),
        "the layer's padding is same: (1, 2) zeros around an input of 4, torch.nn.Conv1d has "
        "(2, 2)"),
    "causal": (L.Conv1D(3, 2, dilation_rate=3, padding="causal"), nn.Conv1d(2, 3, 2, dilation=3),
        "the layer's padding is causal: (3, 0) zeros around an input of 4, torch.nn.Conv1d has "
        "(0, 0)"),
    "padding_mode": (L.Conv1D(3, 3, padding="same"),
        nn.Conv1d(2, 3, 3, padding=1, padding_mode="reflect"),
        "the layer pads with zeros, torch.nn.Conv1d has 'reflect'"),
    "separable_padding": (L.SeparableConv2D(3, 3, padding="same"),
        nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.Conv2d(2, 3, 1)),
        "the layer's padding is same: (1, 1) zeros around an input of 3, torch.nn.Sequential "
        "has (0, 0)"),
    "separable_second": (L.SeparableConv2D(3, 3),
        nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.Conv2d(2, 3, 1, padding=1)),
        "the layer's second convolution has no padding, the module's has (1, 1)"),
    "transposed_strides": (L.Conv1DTranspose(3, 3, strides=2), nn.ConvTranspose1d(2, 3, 3),
        "the layer's strides is 2, torch.nn.ConvTranspose1d has stride=1"),
    "transposed_same": (L.Conv2DTranspose(3, 3, strides=2, padding="same"),
        nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1),
        "the layer's padding is same: 6 outputs of 3 inputs, the first 0 cut off; "
        "torch.nn.ConvTranspose2d has 6, the first 1 cut off"),
    "not_transposed": (L.Conv2DTranspose(2, 3), nn.Conv2d(2, 2, 3),
        "the layer is of the kind Conv2DTranspose, the module is a torch.nn.Conv2d"),
    "epsilon": (L.BatchNormalization(), norm(nn.BatchNorm2d, 3),
        "the layer's epsilon is 0.001, torch.nn.BatchNorm2d has eps=1e-05"),
    "epsilon_of_rms": (L.RMSNormalization(epsilon=1e-6), norm(nn.RMSNorm, 3),
        f"the layer's epsilon is 1e-06, torch.nn.RMSNorm has eps={torch.finfo().eps}"),
    "momentum": (L.BatchNormalization(), nn.BatchNorm1d(3, eps=1e-3),
        "the layer's momentum is 0.99 (torch: 0.01), torch.nn.BatchNorm1d has 0.1; a module in "
        "eval() mode does not use it"),
    "mode_of_keras_1": (old("BatchNormalization", epsilon=1e-5, mode=2), norm(nn.BatchNorm1d, 3),
        "the layer's mode is 2, torch.nn.BatchNorm1d has what Keras 1 calls 0"),
    "layer_norm_axes_alike": (L.LayerNormalization(axis=[1, 2, 3], epsilon=1e-5),
        nn.LayerNorm((4, 4, 4)),
        "the layer normalizes axes [1, 2, 3] with the channels last; with sizes (4, 4, 4) "
        "nothing says that torch.nn.LayerNorm has them in that order"),
    "layer_norm_axis": (L.LayerNormalization(axis=-2, epsilon=1e-5), nn.LayerNorm(3),
        "the layer's axis is -2, torch.nn.LayerNorm has the last axes"),
    "groups_of_a_norm": (L.GroupNormalization(3, epsilon=1e-5), nn.GroupNorm(2, 6),
        "the layer's groups is 3, torch.nn.GroupNorm has 2"),
    "another_norm": (L.LayerNormalization(epsilon=1e-5), nn.GroupNorm(1, 6),
        "the layer is of the kind LayerNormalization, the module is a torch.nn.GroupNorm"),
    "heads": (L.MultiHeadAttention(2, 4), nn.MultiheadAttention(8, 4),
        "the layer's num_heads is 2, torch.nn.MultiheadAttention has 4"),
    "zero_attention": (L.MultiHeadAttention(2, 4), nn.MultiheadAttention(8, 2, add_zero_attn=True),
        "the layer attends to its input, torch.nn.MultiheadAttention has add_zero_attn=True"),
    "equation": (L.EinsumDense("ab,cb->ac", 3), nn.Linear(3, 3),
        "the layer's equation is ab,cb->ac, torch.nn.Linear computes ...i,io->...o"),
    "max_norm": (L.Embedding(3, 2), nn.Embedding(3, 2, max_norm=1.0),
        "the layer keeps its vectors, torch.nn.Embedding has max_norm=1.0"),
    "time_distributed": (L.TimeDistributed(L.Conv2D(3, 3, strides=2)), nn.Conv2d(2, 3, 3),
        "the layer's strides is 2, torch.nn.Conv2d has stride=1"),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_difference_is_told_with_both_values(name: str) -> None:
    layer, module, text = DIFFERENT[name]
    assert found(module, {"part": layer}) == [f"part: {text}"]


class Same(nn.Conv2d):
    """A subclass that pads like TensorFlow, which its attributes do not show."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


EQUAL = {
    "lstm": (L.LSTM(3), nn.LSTM(2, 3)),
    "gru": (L.GRU(3), nn.GRU(2, 3)),
    "cudnn": (old("CuDNNGRU", units=3), nn.GRU(2, 3)),
    "rnn_relu": (L.SimpleRNN(3, activation="relu"), nn.RNN(2, 3, nonlinearity="relu")),
    "bidirectional": (L.Bidirectional(L.GRU(3)), nn.GRU(2, 3, bidirectional=True)),
    "cell": (L.RNN(L.LSTMCell(3), go_backwards=True), nn.LSTMCell(2, 3)),
    "function": (
        old("LSTM", activation={"class_name": "function", "config": "tanh",
                                "registered_name": "function"}),
        nn.LSTM(2, 3),
    ),
    "dense_activation": (L.Dense(3, activation="relu"), nn.Linear(2, 3)),
    "conv_same": (L.Conv2D(3, 3, padding="same"), nn.Conv2d(2, 3, 3, padding=1)),
    "conv_same_even": (L.Conv2D(3, 4, padding="same"), nn.Conv2d(2, 3, 4, padding="same")),
    "conv_one_tap": (
        L.Conv2D(3, 1, strides=2, padding="same"), nn.Conv2d(2, 3, 1, stride=2),
    ),
    "conv_of_its_own": (L.Conv2D(3, 3, strides=2, padding="same"), Same(2, 3, 3, stride=2)),
    "conv_as_linear": (L.Conv1D(3, 1), nn.Linear(2, 3)),
    "transposed": (
        L.Conv2DTranspose(3, 4, strides=2, padding="same"),
        nn.ConvTranspose2d(2, 3, 4, stride=2, padding=1),
    ),
    "transposed_wide": (
        L.Conv1DTranspose(3, 2, strides=3), nn.ConvTranspose1d(2, 3, 2, stride=3, output_padding=1),
    ),
    "rounded_epsilon": (
        old("BatchNormalization", epsilon=0.0010000000474974513, momentum=0.99),
        nn.BatchNorm1d(3, eps=1e-3, momentum=0.01),
    ),
    "instance_norm": (L.GroupNormalization(-1, epsilon=1e-5), nn.InstanceNorm1d(4, affine=True)),
    "einsum": (L.EinsumDense("...a,abc->...bc", (None, 2, 3)), nn.Linear(4, 6)),
    "unknown_layer": (old("Mine>Dense", activation="cube"), nn.Linear(2, 3)),
    "module_of_its_own": (L.LSTM(3, go_backwards=True), nn.ParameterDict()),
}  # fmt: skip


@pytest.mark.parametrize("name", EQUAL)
def test_nothing_is_told_of_what_is_the_same_or_unknown(name: str) -> None:
    layer, module = EQUAL[name]
    assert found(module, {"part": layer}) == []


def chain(*layers: Any) -> dict[str, Layer]:
    """Consecutive layers; the last one is "part"."""
    names = [f"layer_{i}" for i in range(len(layers) - 1)] + ["part"]
    given = {}
    for i, (name, layer) in enumerate(zip(names, map(described, layers), strict=True)):
        given[name] = Layer(layer.class_name, layer.config, tuple(names[i - 1 : i]) if i else ())
    return given


def test_a_convolution_in_front_says_which_axis_has_the_channels() -> None:
    for data_format, channels, other in (("channels_last", -1, 1), ("channels_first", 1, -1)):
        conv = L.Conv2D(4, 1, data_format=data_format)
        for kind, module in (
            (L.BatchNormalization, norm(nn.BatchNorm2d, 4)),
            (lambda **options: L.GroupNormalization(2, **options), norm(nn.GroupNorm, 2, 4)),
        ):
            made = (kind(axis=axis, epsilon=1e-5) for axis in (channels, other))
            right, wrong = (chain(L.InputLayer((4, 4, 4)), conv, L.ReLU(), one) for one in made)
            assert found(module, right) == []
            [told] = found(module, wrong)
            assert told.startswith(f"part: the layer's axis is {other}, ")


def test_the_size_of_the_input_decides_on_same_padding() -> None:
    module = nn.Conv1d(2, 3, 3, stride=2, padding=1)
    conv = L.Conv1D(3, 3, strides=2, padding="same")
    assert found(module, chain(L.InputLayer((9, 2)), conv)) == []
    assert found(module, chain(L.InputLayer((8, 2)), conv)) == [
        "part: the layer's padding is same: (0, 1) zeros around an input of 8, torch.nn.Conv1d has "
        "(1, 1)"
    ]


def test_zeros_may_be_put_in_front_on_either_side() -> None:
    conv = L.Conv2D(3, 7, strides=2)
    layers = chain(L.InputLayer((32, 32, 2)), L.ZeroPadding2D(3), conv)
    assert found(nn.Conv2d(2, 3, 7, stride=2, padding=3), layers) == []
    assert found(nn.Conv2d(2, 3, 7, stride=2), layers) == []
    assert len(found(nn.Conv2d(2, 3, 7, stride=2, padding=2), layers)) == 1


def in_sequential(modules: list[nn.Module], layers: Mapping[str, Layer], at: int) -> list[str]:
    """The differences of a module in an nn.Sequential."""
    named = dict(nn.Sequential(*modules).named_modules())
    return compared(named, {str(at): ["part"]}, layers, {})


def test_zeros_that_a_module_in_front_puts_there_count() -> None:
    layers = chain(L.InputLayer((8, 8, 2)), L.Conv2D(3, 3, strides=2, padding="same"))
    conv = nn.Conv2d(2, 3, 3, stride=2)
    assert in_sequential([nn.ZeroPad2d((0, 1, 0, 1)), conv], layers, 1) == []
    assert len(in_sequential([nn.ZeroPad2d((1, 0, 0, 1)), conv], layers, 1)) == 1


ACTIVATIONS = [
    (L.Dense(3, activation="relu"), nn.Tanh(), "relu", "tanh"),
    (L.Dense(3, activation="relu"), nn.Linear(3, 3), "relu", "none"),
    (L.Dense(3, activation="leaky_relu"), nn.LeakyReLU(), "leaky_relu of 0.2",
     "leaky_relu of 0.01"),
    (L.Dense(3, activation="relu"), nn.ReLU(), None, None),
    (L.Dense(3, activation="gelu"), nn.GELU(), None, None),
    (L.Dense(3, activation="softmax"), nn.Flatten(), None, None),
    (L.Dense(3), nn.ReLU(), None, None),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "module", "one", "other"), ACTIVATIONS)
def test_an_activation_is_compared_where_it_can_be_seen(
    layer: Any, module: nn.Module, one: str | None, other: str | None
) -> None:
    told = in_sequential([nn.Linear(3, 3), nn.Dropout(), module], chain(layer), 0)
    assert told == (
        []
        if one is None
        else [
            f"0 <- part: the layer's activation is {one}, in the torch.nn.Sequential follows "
            f"{other} (torch.nn.{type(module).__name__})"
        ]
    )


def test_an_activation_of_its_own_layer_is_compared_too() -> None:
    layers = {
        "part": Layer("Dense", L.Dense(3).get_config()),
        "drop": Layer("Dropout", {}, ("part",)),
        "act": Layer("LeakyReLU", {"alpha": 0.30000001192092896}, ("drop",)),
    }
    assert in_sequential([nn.Linear(3, 3), nn.LeakyReLU(0.3)], layers, 0) == []
    assert in_sequential([nn.Linear(3, 3), nn.ReLU()], layers, 0) == [
        "0 <- part: the layer's activation is leaky_relu of 0.3, in the torch.nn.Sequential "
        "follows relu (torch.nn.ReLU)"
    ]


FLATTENED = (
    "part: layer_2 in front of the layer counts channels last, torch's pictures have them first; "
    "flattened={'part': (5, 2, 3)} turns the weights, {'part': (30,)} keeps them for a picture "
    "whose channels are moved last"
)


@pytest.mark.parametrize("between", [[], [L.Dropout(0.5)], [L.Activation("relu")]])
@pytest.mark.parametrize("flat", [L.Flatten(), L.Reshape((30,))])
def test_a_flattened_picture_is_told_of(flat: Any, between: list[Any]) -> None:
    layers = chain(L.InputLayer((4, 5, 2)), L.Conv2D(5, 3), flat, *between, L.Dense(3))
    assert found(nn.Linear(30, 3), layers) == [FLATTENED]
    assert found(nn.Linear(30, 3), layers, part=(5, 2, 3)) == []
    assert found(nn.Linear(30, 3), layers, part=(30,)) == []


@pytest.mark.parametrize(
    "layers",
    [
        [L.InputLayer((4, 5, 2)), L.Conv2D(1, 3), L.Flatten()],  # one channel
        [L.InputLayer((3, 3, 2)), L.Conv2D(30, 3), L.Flatten()],  # one place
        [L.InputLayer((5, 6)), L.Flatten()],  # a sequence, but not from a convolution
        [L.InputLayer((4, 5, 2)), L.Conv2D(30, 3), L.GlobalAveragePooling2D(), L.Flatten()],
        [L.InputLayer((2, 4, 5)), L.Conv2D(5, 3, data_format="channels_first"), L.Flatten()],
    ],
)
def test_nothing_is_told_of_a_flattened_picture_whose_order_is_the_same(layers: list[Any]) -> None:
    assert found(nn.Linear(30, 3), chain(*layers, L.Dense(3))) == []


@pytest.mark.parametrize(
    ("layer", "sizes"),
    [
        (L.ZeroPadding2D(((0, 1), (2, 0))), (2, 5, 7)),
        (L.ZeroPadding2D(1), (2, 6, 7)),
        (L.Cropping2D((1, 2)), (2, 2, 1)),
        (L.UpSampling2D((2, 3)), (2, 8, 15)),
    ],
)
def test_the_sizes_of_a_picture_are_followed(layer: Any, sizes: tuple[int, ...]) -> None:
    layers = chain(L.InputLayer((4, 5, 2)), layer, L.Flatten(), L.Dense(1))
    (told,) = found(nn.Linear(70, 1), layers)
    assert f"flattened={{'part': {sizes}}} turns" in told


def test_what_has_no_weights_has_no_order_behind_a_flattened_picture() -> None:
    norm = L.LayerNormalization(center=False, scale=False, epsilon=1e-5)
    layers = chain(L.InputLayer((4, 5, 2)), L.Conv2D(5, 3), L.Flatten(), norm)
    assert found(nn.LayerNorm(30, elementwise_affine=False), layers) == []
    assert found(nn.LayerNorm(30), layers) == [FLATTENED.replace("(30,)", "(inputs,)")]


class Scaling(L.Layer):  # type: ignore[misc]
    """A custom layer."""


COUNTED = "counts channels last, torch's pictures have them first"
JOINED = {
    "behind an operation": ([L.Conv2D(5, 3), old("Tanh"), L.Flatten()], L.Dense(3)),
    "behind a layer of somebody's own": ([L.Conv2D(5, 3), Scaling(), L.Flatten()], L.Dense(3)),
    "an operation": ([L.Conv2D(5, 3), old("Reshape", newshape=[-1, 30])], L.Dense(3)),
    "before an operation": ([L.Conv2D(5, 3), L.Flatten(), old("Tanh")], L.Dense(3)),
    "height and width exchanged": ([L.Conv2D(5, 3), L.Permute((2, 1, 3)), L.Flatten()], L.Dense(3)),
    "rows": ([L.Conv2D(5, 3), L.Reshape((2, 15))], L.Dense(3)),
    "rows of a recurrent layer": ([L.Conv2D(5, 3), L.Reshape((2, 15))], L.LSTM(3)),
    "one place": ([L.Conv2D(5, 3), L.Reshape((1, 1, 30))], L.Conv2D(3, 1)),
    "one step": ([L.Conv2D(5, 3), L.Flatten(), L.Reshape((1, 30))], L.LSTM(3)),
    "repeated": ([L.Conv2D(5, 3), L.Flatten(), L.RepeatVector(2)], L.GRU(3)),
}


@pytest.mark.parametrize("name", JOINED)
def test_a_picture_is_told_of_however_it_becomes_a_vector(name: str) -> None:
    between, layer = JOINED[name]
    size = 15 if "rows" in name else 30
    modules = {"Dense": nn.Linear, "LSTM": nn.LSTM, "GRU": nn.GRU}
    module: nn.Module = nn.Conv2d(size, 3, 1)
    if type(layer).__name__ in modules:
        module = modules[type(layer).__name__](size, 3)
    [told] = found(module, chain(L.InputLayer((4, 5, 2)), *between, layer))
    assert COUNTED in told
    assert ("flattened={" in told) == isinstance(module, nn.Linear)
    assert ("compare=False" in told) != isinstance(module, nn.Linear)


@pytest.mark.parametrize(
    ("between", "layer", "module"),
    [
        ([L.Conv2D(5, 3), L.Permute((3, 1, 2)), L.Flatten()], L.Dense(3), nn.Linear(30, 3)),
        ([L.Conv2D(5, 3), L.Reshape((6, 5))], L.Dense(3), nn.Linear(5, 3)),
        ([L.Conv2D(5, 3), L.Reshape((6, 5))], L.LSTM(3), nn.LSTM(5, 3)),
        ([L.Conv2D(5, 3), L.Flatten(), L.Reshape((2, 3, 5))], L.Conv2D(3, 1), nn.Conv2d(5, 3, 1)),
        ([L.Conv2D(5, 3), L.Flatten(), L.Dense(5)], L.Dense(3), nn.Linear(5, 3)),
    ],
)
def test_nothing_is_told_where_the_channels_are_an_axis_of_their_own(
    between: list[Any], layer: Any, module: nn.Module
) -> None:
    assert found(module, chain(L.InputLayer((4, 5, 2)), *between, layer)) == []


def test_a_picture_that_each_step_flattens_is_told_of(tmp_path: Path) -> None:
    steps = L.InputLayer((3, 4, 5, 2))
    flat = L.TimeDistributed(L.Flatten())
    convolved = L.TimeDistributed(L.Conv2D(5, 3))
    for layer, module in ((L.Dense(3), nn.Linear(30, 3)), (L.LSTM(3), nn.LSTM(30, 3))):
        [told] = found(module, chain(steps, convolved, flat, layer))
        assert COUNTED in told
    picture = keras.Sequential([keras.Input((4, 5, 2)), L.Conv2D(5, 3), L.Flatten()])
    [told] = found(nn.Linear(30, 3), chain(steps, L.TimeDistributed(picture), L.Dense(3)))
    assert COUNTED in told
    picture.add(L.Dense(3, name="head"))
    model = keras.Sequential([keras.Input((3, 4, 5, 2)), L.TimeDistributed(picture, name="each")])
    conv = picture.layers[0].name
    for name in ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        twin = nn.ModuleDict({conv: nn.Conv2d(2, 5, 3), "head": nn.Linear(30, 3)})
        with pytest.raises(MismatchError, match=COUNTED):
            checkpoint.load_into(twin, tmp_path / name, rules=[("^each/[^/]+/", "")])


def behind(module: nn.Module, *layers: Any, **flattened: tuple[int, ...]) -> list[str]:
    """The differences of the first of consecutive layers, after an input of size 4."""
    given = {"input": described(L.InputLayer((4,)))}
    last = "input"
    for i, layer in enumerate(map(described, layers)):
        name = "part" if i == 0 else f"layer_{i}"
        given[name], last = Layer(layer.class_name, layer.config, (last,)), name
    return found(module, given, **flattened)


@pytest.mark.parametrize(
    "between", [[], [L.ReLU()], [L.BatchNormalization()], [Scaling()], [old("Tanh")]]
)
def test_a_picture_that_is_made_of_a_vector_is_told_of(between: list[Any]) -> None:
    reshape = L.Reshape((2, 3, 5))
    if not between or type(between[0]) in (L.ReLU, L.BatchNormalization):
        for reader in ([L.Conv2D(3, 2)], [L.UpSampling2D(), L.Conv2DTranspose(3, 2)], []):
            [told] = behind(nn.Linear(4, 30), L.Dense(30), *between, reshape, *reader)
            assert told == (
                f"part: layer_{len(between) + 1} behind the layer makes a picture of 2x3x5 with "
                "the channels last, torch's pictures have them first; flattened={'part': (4,)} "
                "says that the module's own code makes one with the channels last and moves them"
            )
    assert behind(nn.Linear(4, 30), L.Dense(30), reshape, L.Conv2D(3, 2), part=(4,)) == []
    for harmless in (
        [L.Reshape((5, 6, 1)), L.Conv2D(3, 2)],  # one channel
        [L.Reshape((1, 1, 30)), L.Conv2D(3, 1)],  # one place
        [L.Reshape((6, 5)), L.LSTM(3)],  # a sequence
        [L.Dense(30), reshape, L.Conv2D(3, 2)],  # another layer's outputs
        [L.Reshape((5, 2, 3)), L.Conv2D(3, 2, data_format="channels_first")],
    ):
        assert behind(nn.Linear(4, 30), L.Dense(30), *harmless) == []


def test_a_picture_of_a_model_within_the_model_is_told_of(tmp_path: Path) -> None:
    trunk = keras.Sequential([keras.Input((4, 5, 2)), L.Conv2D(5, 3, name="conv")], name="trunk")
    model = keras.Sequential(
        [keras.Input((4, 5, 2)), trunk, L.Flatten(name="flat"), L.Dense(3, name="head")]
    )
    model.save(tmp_path / "model.keras")
    twin = nn.ModuleDict(
        {"trunk": nn.ModuleDict({"conv": nn.Conv2d(2, 5, 3)}), "head": nn.Linear(30, 3)}
    )
    with pytest.raises(MismatchError, match=r"head: flat in front .*\{'head': \(5, 2, 3\)\} turns"):
        checkpoint.load_into(twin, tmp_path / "model.keras")
    assert checkpoint.load_into(
        twin, tmp_path / "model.keras", flattened={"head": (5, 2, 3)}
    ).complete


@pytest.mark.parametrize("source", [L.Embedding(9, 2, mask_zero=True), L.Masking()])
def test_steps_that_are_masked_are_told_of(source: Any) -> None:
    kind = type(source).__name__
    text = f"Keras leaves out the steps that layer_1 masks ({kind}), torch computes every step"
    layers = chain(L.InputLayer((5,)), source, L.Dropout(0.5), L.LSTM(3))
    assert found(nn.LSTM(2, 3), layers) == [f"part: {text}"]
    layers = chain(L.InputLayer((5,)), source, L.GlobalAveragePooling1D(), L.Dense(3))
    assert found(nn.Linear(2, 3), layers) == [f"layer_2: {text}"]
    layers = chain(L.InputLayer((5,)), source, L.Flatten(), L.Dense(3))
    assert found(nn.Linear(2, 3), layers) == []


def test_a_layer_that_feeds_itself_is_no_trap() -> None:
    layers = {
        "part": Layer("Dense", {}, ("a",)),
        "a": Layer("Flatten", {}, ("b",)),
        "b": Layer("Conv2D", {"filters": 3, "kernel_size": [1, 1], "strides": [0, 0]}, ("a", "b")),
        "m": Layer("Model", {"layers": [], "output_layers": [["m", 0, 0]]}, ("m",)),
    }
    assert len(found(nn.Linear(30, 3), layers)) == 1


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = keras.Sequential(
        [keras.Input((4, 2)), L.LSTM(3, recurrent_activation="hard_sigmoid", name="part")]
    )
    model.save(tmp_path / "model.h5")
    return tmp_path / "model.h5"


def test_a_difference_is_an_error_if_strict(saved: Path) -> None:
    module = nn.ModuleDict({"part": nn.LSTM(2, 3)})
    before = {name: x.clone() for name, x in module.state_dict().items()}
    with pytest.raises(MismatchError) as caught:
        checkpoint.load_into(module, saved)
    assert f"part: {DIFFERENT['lstm_hard_sigmoid'][2]}" in str(caught.value)
    assert "compare=False: the module's own code makes up for what differs" in str(caught.value)
    for name, x in module.state_dict().items():
        torch.testing.assert_close(x, before[name], rtol=0, atol=0)


def test_a_difference_is_reported_if_not_strict_and_not_looked_for_on_demand(saved: Path) -> None:
    module = nn.ModuleDict({"part": nn.LSTM(2, 3)})
    report = checkpoint.load_into(module, saved, strict=False)
    assert report.differences == [f"part: {DIFFERENT['lstm_hard_sigmoid'][2]}"]
    assert not report.complete
    assert not report.problems
    report = checkpoint.load_into(module, saved, compare=False)
    assert report.complete
    assert report.differences == []


def test_a_layer_without_weights_is_compared_by_its_name(tmp_path: Path) -> None:
    plain = L.LayerNormalization(center=False, scale=False, name="norm")
    keras.Sequential([keras.Input((3,)), plain, L.Dense(2, name="head")]).save(tmp_path / "m.keras")
    parts = {"norm": nn.LayerNorm(3, elementwise_affine=False), "out": nn.Linear(3, 2)}
    text = "the layer's epsilon is 0.001, torch.nn.LayerNorm has eps=1e-05"
    rules: list[Any] = [("^head/", "out/")]
    report = checkpoint.load_into(
        nn.ModuleDict(parts), tmp_path / "m.keras", rules=rules, strict=False
    )
    assert report.differences == [f"norm: {text}"]
    parts["first"] = parts.pop("norm")
    rules.append(("^norm/", "first/"))
    report = checkpoint.load_into(
        nn.ModuleDict(parts), tmp_path / "m.keras", rules=rules, strict=False
    )
    assert report.differences == [f"first <- norm: {text}"]
