"""The layers that a Keras file describes, and damaged or malicious descriptions."""

from __future__ import annotations

import io
import json
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import needs
import pytest

from tensor_bridge import CheckpointError, CheckpointNotFoundError, checkpoint
from tensor_bridge.checkpoint.read._keras_config import layers_of, parse


def keras_of(generation: str) -> Any:
    return keras if generation == "keras" else pytest.importorskip("tf_keras")


def model_of(of: Any) -> Any:
    """Nested models, a layer that is used twice, wrappers, several inputs."""
    layers = of.keras.layers if hasattr(of, "keras") else of.layers
    deep = of.Sequential([of.Input((3, 4)), layers.Dense(4, name="deepest")], name="deep")
    start = of.Input((3, 4), name="inner_in")
    inner = of.Model(start, layers.Dense(4, name="last")(deep(start)), name="inner")
    a, b = of.Input((3, 4), name="a"), of.Input((3, 4), name="b")
    shared = layers.Dense(4, activation="relu", name="shared")
    x = layers.Concatenate(name="both")([shared(a), shared(b)])
    x = layers.Bidirectional(layers.LSTM(2, return_sequences=True), name="lstms")(x)
    x = layers.TimeDistributed(layers.Dense(4), name="each")(inner(x))
    x = layers.Add(name="sum")([x, a])
    return of.Model([a, b], x, name="whole")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("generation", [pytest.param("keras", marks=needs.keras_3), "tf_keras"])
def test_layers_have_their_class_configuration_and_inputs(
    tmp_path: Path, generation: str, suffix: str
) -> None:
    model = model_of(keras_of(generation))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / f"m{suffix}")
    loaded = checkpoint.load(tmp_path / f"m{suffix}")
    layers = loaded.layers
    found = {name: (layer.class_name, layer.inputs) for name, layer in layers.items()}
    # Keras 2 does not name nested models in an .h5 file.
    deepest = (
        "inner/deepest" if (generation, suffix) == ("tf_keras", ".h5") else "inner/deep/deepest"
    )
    first = found.pop(found[deepest][1][0])
    assert first == ("InputLayer", ())
    assert found == {
        "a": ("InputLayer", ()),
        "b": ("InputLayer", ()),
        "shared": ("Dense", ("a", "b")),
        "both": ("Concatenate", ("shared",)),
        "lstms": ("Bidirectional", ("both",)),
        "inner": ("Functional", ("lstms",)),
        "inner/inner_in": ("InputLayer", ()),
        "inner/deep": ("Sequential", ("inner/inner_in",)),
        deepest: ("Dense", found[deepest][1]),
        "inner/last": ("Dense", ("inner/deep",)),
        "each": ("TimeDistributed", ("inner",)),
        "sum": ("Add", ("each", "a")),
    }
    assert layers["shared"].config["activation"] == "relu"
    assert layers["lstms"].config["layer"]["class_name"] == "LSTM"
    # Each entry belongs to a layer.
    owners = {n: [path for path in layers if n.startswith(f"{path}/")] for n in loaded}
    assert all(owners.values())


def test_a_file_without_a_configuration_has_no_layers(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_weights(tmp_path / "m.weights.h5")
    assert not checkpoint.load(tmp_path / "m.weights.h5").layers


OLD = {
    "Keras 1, Sequential": (
        {
            "class_name": "Sequential",
            "config": [
                {"class_name": "Dense", "config": {"name": "dense_1", "activation": "relu"}},
                {"class_name": "Dropout", "config": {"name": "dropout_1"}},
                {"class_name": "Dense", "config": {"name": "dense_2"}},
            ],
        },
        {"dense_1": (), "dropout_1": ("dense_1",), "dense_2": ("dropout_1",)},
    ),
    "Keras 1, Model": (
        {
            "class_name": "Model",
            "config": {
                "name": "model_1",
                "layers": [
                    {"class_name": "InputLayer", "config": {}, "name": "in", "inbound_nodes": []},
                    {
                        "class_name": "Dense",
                        "config": {"name": "d"},
                        "name": "d",
                        "inbound_nodes": [[["in", 0, 0]]],
                    },
                ],
                "input_layers": [["in", 0, 0]],
                "output_layers": [["d", 0, 0]],
            },
        },
        {"in": (), "d": ("in",)},
    ),
    "Keras 2, tensors among the keyword arguments": (
        {
            "class_name": "Functional",
            "config": {
                "name": "m",
                "layers": [
                    {"class_name": "InputLayer", "config": {"name": "x"}, "inbound_nodes": []},
                    {"class_name": "InputLayer", "config": {"name": "y"}, "inbound_nodes": []},
                    {
                        "class_name": "TFOpLambda",
                        "config": {"name": "tf.add"},
                        "inbound_nodes": [["x", 0, 0, {"y": ["y", 0, 0], "name": None}]],
                    },
                    {
                        "class_name": "Attention",
                        "config": {"name": "t"},
                        "inbound_nodes": [[["tf.add", 0, 0, {"mask": None, "scale": 2}]]],
                    },
                ],
                "input_layers": {"x": ["x", 0, 0], "y": ["y", 0, 0]},
            },
        },
        {"x": (), "y": (), "tf.add": ("x", "y"), "t": ("tf.add",)},
    ),
}


@pytest.mark.parametrize("case", OLD)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_configurations_of_older_releases(tmp_path: Path, case: str, as_bytes: bool) -> None:
    config, expected = OLD[case]
    text = json.dumps(config)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["layer_names"] = []
        file.attrs["model_config"] = text.encode() if as_bytes else text
    layers = checkpoint.load(tmp_path / "m.h5").layers
    assert {name: layer.inputs for name, layer in layers.items()} == expected


def test_somebodys_class_is_told_from_kerass() -> None:
    def layer(name: str, **about: Any) -> dict[str, Any]:
        return {"class_name": "Dense", "config": {"name": name}, **about}

    layers = [
        layer("a", module="keras.layers", registered_name=None),
        layer("b", module="mine", registered_name="Dense"),
        layer("c", module=None, registered_name="Dense"),
        layer("d", module="mine", registered_name="pack>Dense"),
        layer("e"),
    ]
    model = parse(json.dumps({"class_name": "Sequential", "config": {"layers": layers}}))
    assert [item.class_name for item in layers_of(model).values()] == [
        "Dense",
        "mine>Dense",
        "__main__>Dense",
        "pack>Dense",
        "Dense",
    ]


def nested(depth: int) -> str:
    return '{"class_name":"Sequential","config":[' * depth + "]}" * depth


HOSTILE = {
    "not JSON": ("{", "configuration of a model: Expecting"),
    "a number": ("3", "the class and the configuration"),
    "a list": ("[]", "the class and the configuration"),
    "no class": ('{"config": {}}', "the class and the configuration"),
    "a class that is a number": (
        '{"class_name": 3, "config": {}}',
        "the class and the configuration",
    ),
    "deep lists": ("[" * 100_000, "200 levels"),
    "deep models": (nested(150), "200 levels"),
    "a huge number": ("9" * 5000, "configuration of a model: Exceeds"),
    "bytes": (b"\xff\xfe\x00\xd8", "configuration of a model"),
    "a long name": (
        '{"class_name": "Sequential", "config": [{"class_name": "a", "config": {"name": "%s"}}]}'
        % ("x" * 2000),
        "1024 characters",
    ),
    "large": (b" " * ((16 << 20) + 1), "at most 16777216 bytes"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_damaged_configuration_is_told_and_takes_no_weight_away(
    tmp_path: Path, case: str
) -> None:
    text, message = HOSTILE[case]
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file["layers/dense/vars/0"] = [1.0]
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", text)
        archive.writestr("metadata.json", text)
        archive.writestr("model.weights.h5", weights.getvalue())
    loaded = checkpoint.load(path)
    assert loaded["layers/dense/0"].tolist() == [1]
    assert not loaded.names_known
    with pytest.raises(CheckpointError, match=message) as caught:
        _ = loaded.layers
    assert caught.value.file == str(path)
    with pytest.raises(CheckpointError, match=message):
        loaded.verify()


@pytest.mark.parametrize(
    "config",
    [
        {"layers": 3},
        {"layers": [3, None, [], {}, {"class_name": "Dense"}, {"class_name": "a", "config": 3}]},
        {"layers": [{"class_name": "Dense", "config": {"name": 3}, "inbound_nodes": 7}]},
        {"layers": [{"class_name": "Dense", "config": {"name": "a"}, "inbound_nodes": [["a"]]}]},
        {"layers": [{"class_name": "Dense", "config": {"name": ["a"]}, "name": {}}]},
        {"layers": [{"class_name": "TimeDistributed", "config": {"name": "t", "layer": []}}]},
    ],
)
@pytest.mark.parametrize("class_name", ["Sequential", "Functional"])
def test_parts_of_a_wrong_type_are_passed_over(config: Any, class_name: str) -> None:
    text = json.dumps({"class_name": class_name, "config": {**config, "input_layers": []}})
    assert set(layers_of(parse(text))) <= {"a", "t"}


def test_layers_that_feed_each_other_are_no_trouble() -> None:
    layers = [
        {"class_name": "Dense", "config": {"name": a}, "inbound_nodes": [[[b, 0, 0, {}]]]}
        for a, b in (("a", "b"), ("b", "a"))
    ]
    config = {"layers": layers, "input_layers": [], "name": "m"}
    found = layers_of(parse(json.dumps({"class_name": "Functional", "config": config})))
    assert {name: layer.inputs for name, layer in found.items()} == {"a": ("b",), "b": ("a",)}


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    of = pytest.importorskip("tf_keras")
    folder = tmp_path_factory.mktemp("saved") / "model"
    inner = of.Sequential([of.Input((3, 4)), of.layers.Dense(4, name="d1")], name="inner")
    x = of.Input((3, 4), name="start")
    y = inner(of.layers.Dense(4, activation="relu", name="d0")(x))
    y = of.layers.Bidirectional(of.layers.LSTM(2, return_sequences=True), name="both")(y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        of.Model(x, of.layers.Add(name="sum")([x, y])).save(folder, save_format="tf")
    return folder


def test_layers_of_a_saved_model_of_keras_2(saved_model: Path) -> None:
    loaded = checkpoint.load(saved_model)
    layers = loaded.layers
    named = {layer.config["name"]: path for path, layer in layers.items()}
    assert named["inner"] + "/" + "layer_with_weights-0" == named["d1"]
    feeding = {name: layers[path].inputs for name, path in named.items()}
    assert feeding["d0"] == (named["start"],)
    assert feeding["inner"] == (named["d0"],)
    assert feeding["sum"] == (named["start"], named["both"])
    assert layers[named["d0"]].class_name == "Dense"
    assert layers[named["d0"]].config["activation"] == "relu"
    owners = {n: [path for path in layers if n.startswith(f"{path}/")] for n in loaded}
    assert all(owners.values()), owners


@pytest.mark.parametrize(
    "data",
    [b"\xff" * 20, b"\x0a\x7f", b"\x0a\x02\x18\x05", b"\x0a\x14\x22\x0f_tf_keras_layer0\x2a\x01{"],
)
def test_a_damaged_description_of_a_saved_model_is_told(
    tmp_path: Path, saved_model: Path, data: bytes
) -> None:
    shutil.copytree(saved_model, tmp_path / "m")
    (tmp_path / "m" / "keras_metadata.pb").write_bytes(data)
    loaded = checkpoint.load(tmp_path / "m")
    assert len(loaded)
    with pytest.raises(CheckpointError, match="expected what Keras says of a SavedModel") as caught:
        _ = loaded.layers
    assert caught.value.file == str(tmp_path / "m" / "keras_metadata.pb")


@needs.keras_3
def test_a_folder_as_keras_unpacks_an_archive(tmp_path: Path) -> None:
    model = model_of(keras)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        archive.extractall(tmp_path / "m")
    archived, unpacked = (checkpoint.load(tmp_path / name) for name in ("m.keras", "m"))
    assert list(archived) == list(unpacked)
    assert set(archived.layers) == set(unpacked.layers)
    (tmp_path / "m" / "metadata.json").unlink()
    with pytest.raises(CheckpointNotFoundError, match="expected a SavedModel"):
        checkpoint.load(tmp_path / "m")
