"""Published models: torch modules with their weights have the same outputs."""

from __future__ import annotations

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


class Guesslang(nn.Module):
    """tf.estimator's DNNLinearCombinedClassifier over hashed n-grams."""

    def __init__(self, sizes: list[int], buckets: int, classes: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(buckets, width, mode="mean")
        self.linear = nn.EmbeddingBag(buckets, classes, mode="sum")
        self.bias = nn.Parameter(torch.zeros(classes))
        layers = zip([width, *sizes], [*sizes, classes], strict=True)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in layers)

    def forward(self, ids: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids, offsets)
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        return self.layers[-1](x) + self.linear(ids, offsets) + self.bias


TEXTS = [
    '#include <stdio.h>\nint main(void) { printf("%d", 3); return 0; }\n' * 3,
    "import os\n\ndef f(x):\n    return [y for y in x if y]\n" * 4,
    "SELECT a, b FROM t WHERE a > 3 ORDER BY b;\n" * 5,
]


@needs.module("guesslang")
def test_guesslang_gives_the_same_scores() -> None:
    folder = installed("guesslang", "data", "model")
    loaded = checkpoint.load(folder, verify=True)
    assert "global_step" in loaded.counters
    hidden = sorted(n for n in loaded if "hiddenlayer" in n and n.endswith("kernel"))
    table = next(n for n in loaded if n.endswith("embedding_weights"))
    weights = next(n for n in loaded if "linear" in n and n.endswith("/weights"))
    buckets, width = loaded.entries[table].shape
    classes = loaded.entries[weights].shape[1]
    sizes = [loaded.entries[n].shape[1] for n in hidden]
    module = Guesslang(sizes, buckets, classes, width)
    report = checkpoint.load_into(
        module,
        loaded,
        rules=[
            (r"^.*embedding_weights$", "embedding/embeddings"),
            (r"^linear/linear_model/bias_weights$", "bias"),
            (r"^linear/.*/weights$", "linear/embeddings"),
            (r"^dnn/hiddenlayer_(\d+)/", r"layers/\1/"),
            (r"^dnn/logits/", f"layers/{len(hidden)}/"),
        ],
    )
    assert report.complete
    assert sum(x.numel() for x in module.parameters()) == sum(x.numel() for x in loaded.values())

    model = tf.saved_model.load(str(folder))
    scores = model.signatures["predict"](tf.constant(TEXTS))["logits"]

    # Like in the graph: the text's bytes are joined in pairs and hashed.
    ids, offsets = [], [0]
    for text in TEXTS:
        grams = tf.strings.ngrams(tf.strings.bytes_split(tf.constant(text)), 2)
        ids.append(tensor_bridge.to_torch(tf.strings.to_hash_bucket_fast(grams, buckets)))
        offsets.append(offsets[-1] + len(ids[-1]))
    with torch.no_grad():
        found = module(torch.cat(ids), torch.tensor(offsets[:-1]))
    torch.testing.assert_close(found, tensor_bridge.to_torch(scores), rtol=1e-4, atol=1e-4)


class Deepcut(nn.Module):
    """The word segmenter: twelve convolutions of different widths over characters."""

    def __init__(self) -> None:
        super().__init__()
        self.characters = nn.Embedding(178, 32)
        self.norm_1 = nn.BatchNorm1d(32, eps=1e-3)
        counts = [200] * 8 + [150] * 3 + [100]
        self.windows = nn.ModuleList(nn.Conv1d(32, n, i + 1) for i, n in enumerate(counts))
        self.votes = nn.ModuleList(nn.Linear(n, 5) for n in counts)
        self.types = nn.Embedding(12, 12)
        self.norm_2 = nn.BatchNorm1d(49, eps=1e-3)
        self.hidden = nn.Linear(21 * 49, 100)
        self.out = nn.Linear(100, 1)

    def forward(self, characters: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        a = self.norm_1(self.characters(characters).transpose(1, 2))
        votes = []
        for window, vote in zip(self.windows, self.votes, strict=True):
            x = vote(functional.relu(window(a)).transpose(1, 2))
            votes.append(functional.pad(x, (0, 0, 0, window.kernel_size[0] - 1)))
        best = torch.stack(votes).amax(0)
        x = torch.cat([a.transpose(1, 2), best, self.types(types)], -1)
        x = self.norm_2(x.transpose(1, 2)).transpose(1, 2).flatten(1)
        return torch.sigmoid(self.out(functional.relu(self.hidden(x))))


def keras_deepcut() -> Any:
    """deepcut's own model. Its source uses tensorflow.keras, but Keras 3 cannot read the file."""
    import tf_keras

    source = installed("deepcut", "model.py").read_text(encoding="utf-8")
    source = source.replace("tensorflow.keras", "tf_keras")
    names: dict[str, Any] = {}
    exec(compile(source, "deepcut/model.py", "exec"), names)
    tf_keras.backend.clear_session()
    return names["get_convo_nn2"]()


@needs.module("deepcut")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_deepcut_gives_the_same_scores() -> None:
    path = installed("deepcut", "weight", "cnn_without_ne_ab.h5")
    module = Deepcut()
    number = [
        (rf"^{kind}_{i + 1}/", rf"{to}/{i}/")
        for i in range(12)
        for kind, to in (("conv1d", "windows"), ("time_distributed", "votes"))
    ]
    rules = [
        *number,
        ("^embedding_1/", "characters/"),
        ("^embedding_2/", "types/"),
        ("^batch_normalization_", "norm_"),
        ("^dense_13/", "hidden/"),
        ("^dense_14/", "out/"),
    ]
    assert checkpoint.load_into(module, path, rules=rules).complete

    model = keras_deepcut()
    model.load_weights(str(path))
    characters = tf.random.uniform((16, 21), 0, 178, tf.int32, seed=1)
    types = tf.random.uniform((16, 21), 0, 12, tf.int32, seed=2)
    expected = tensor_bridge.to_torch(model([characters, types], training=False))
    assert expected.std() > 0.05
    with torch.no_grad():
        found = module.eval()(*map(tensor_bridge.to_torch, (characters, types)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


class BasicPitch(nn.Module):
    """The layers after the constant-Q transform and its harmonic stacking."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(8, 8, (3, 39), padding="same")
        self.wide_norm = nn.BatchNorm2d(8, eps=1e-3)
        self.contour = nn.Conv2d(8, 1, 5, padding="same")
        # TensorFlow's "same" with a stride of 3 over 264 bins.
        self.contour_reduced = nn.Conv2d(1, 32, 7, stride=(1, 3), padding=(3, 2))
        self.onset_wide = nn.Conv2d(8, 32, 5, stride=(1, 3), padding=(2, 1))
        self.onset_norm = nn.BatchNorm2d(32, eps=1e-3)
        self.note = nn.Conv2d(32, 1, (7, 3), padding="same")
        self.onset = nn.Conv2d(33, 1, 3, padding="same")

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        contour = torch.sigmoid(self.contour(functional.relu(self.wide_norm(self.wide(x)))))
        note = torch.sigmoid(self.note(functional.relu(self.contour_reduced(contour))))
        onset = functional.relu(self.onset_norm(self.onset_wide(x)))
        onset = torch.sigmoid(self.onset(torch.cat([note, onset], 1)))
        return contour[:, 0], note[:, 0], onset[:, 0]


def with_intermediates(path: Path) -> tuple[bytes, list[str]]:
    """An ONNX model with the inputs of its convolutions as further outputs, and their names.

    Two concatenated protobuf messages are their union, so ModelProto.graph (7) with further outputs
    (12), each with a name (1), is appended. A node is field 1 of the graph, with inputs (1) and
    op_type (4).
    """
    from tensor_bridge.checkpoint.read._object_graph import fields_of, message

    data = path.read_bytes()
    (graph,) = (value for number, value in fields_of(data) if number == 7)
    names = []
    for number, node in fields_of(graph):
        if number == 1:
            parts = list(fields_of(node))
            if (4, b"Conv") in parts:
                names.append(next(value for field, value in parts if field == 1).decode())
    names = list(dict.fromkeys(names))
    outputs = [(12, message((1, name.encode()))) for name in names]
    return data + message((7, message(*outputs))), names


@needs.module("basic_pitch")
@needs.module("onnxruntime")
def test_basic_pitch_gives_the_same_as_its_twin() -> None:
    import numpy as np
    import onnxruntime

    folder = installed("basic_pitch", "saved_models", "icassp_2022")
    module = BasicPitch()
    layers = ["wide", "wide_norm", "contour", "contour_reduced", "onset_wide", "onset_norm"]
    rules = [
        (f"^layer_with_weights-{i + 1}/", f"{name}/")
        for i, name in enumerate([*layers, "note", "onset"])
    ]
    # Weights of the loudness, before the layers here, and of the training.
    dropped = [("^layer_with_weights-0/", None), ("^(keras_api|optimizer)/", None)]
    report = checkpoint.load_into(module, folder / "nmp", rules=[*rules, *dropped])
    assert report.complete
    assert all("metrics" in n or "optimizer" in n or "-0/" in n for n in report.ignored)

    model, names = with_intermediates(folder / "nmp.onnx")
    session = onnxruntime.InferenceSession(model)
    time = np.arange(43844) / 22050
    audio = sum(np.sin(2 * np.pi * f * time) for f in (220, 277.2, 329.6))
    audio = (0.3 * audio * (time > 0.4)).astype(np.float32)[None, :, None]
    ours = [output.name for output in session.get_outputs()]
    results = dict(zip(ours, session.run(None, {session.get_inputs()[0].name: audio}), strict=True))
    stacked = next(results[n] for n in names if results[n].shape == (1, 8, 172, 264))
    assert stacked.std() > 0.01
    with torch.no_grad():
        contour, note, onset = module.eval()(torch.tensor(stacked))
    for found, number in ((contour, 0), (note, 1), (onset, 2)):
        expected = torch.tensor(results[f"StatefulPartitionedCall:{number}"])
        assert expected.max() > 0.2
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(note, onset, atol=1e-2)
