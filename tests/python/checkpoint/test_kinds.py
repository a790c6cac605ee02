"""Weights are separated from training state, compared with what the model itself says."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bundles
import needs
import numpy as np
import pytest
import tensorflow as tf
import torch
from tf_bytes import torch_memory

import tensor_bridge
from tensor_bridge import checkpoint

v1 = tf.compat.v1
rng = np.random.default_rng(0)


def keras_of(version: int) -> Any:
    return pytest.importorskip("keras" if version == 3 else "tf_keras")


VERSIONS = [
    pytest.param(3, marks=needs.keras_3, id="keras-3"),
    pytest.param(2, marks=needs.module("tf_keras"), id="keras-2"),
]


@contextmanager
def quiet() -> Iterator[None]:
    """Ignores the frameworks' warnings about old formats, optimizers and their own calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def weights(variables: Any) -> list[bytes]:
    return sorted(np.ascontiguousarray(variable.numpy()).tobytes() for variable in variables)


def stored(loaded: checkpoint.Checkpoint) -> list[bytes]:
    return sorted(torch_memory(loaded[name]) for name in loaded)


def assert_weights(path: Any, variables: Any) -> checkpoint.Checkpoint:
    """Asserts that the file has exactly these variables."""
    loaded = checkpoint.load(path)
    assert stored(loaded) == weights(variables)
    kinds = (loaded, loaded.slots, loaded.counters, loaded.state, loaded.metadata)
    assert len(loaded.all_entries) == sum(map(len, kinds))
    return loaded


def model_of(keras: Any, style: str) -> Any:
    """A trained model with random weights, so that no two are equal."""
    layers = keras.layers
    inside = [
        layers.Dense(4, name="metrics"),
        layers.BatchNormalization(name="optimizer"),
        layers.Dropout(0.5, seed=1),
        layers.Dense(2, name="total"),
    ]
    if style == "sequential":
        model = keras.Sequential([layers.Input((3,)), *inside])
    elif style == "functional":
        x = start = layers.Input((3,))
        for layer in inside:
            x = layer(x)
        model = keras.Model(start, x)
    else:

        class Subclassed(keras.Model):  # type: ignore[misc,name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.metrics_, self.optimizer_, self.drop, self.total = inside
                self.iter = layers.Dense(3)
                self.tracker = keras.metrics.Mean(name="tracker")
                self.areas = keras.metrics.AUC(num_thresholds=3)

            def call(self, x: Any) -> Any:
                x = self.optimizer_(self.metrics_(self.iter(x)))
                return self.total(self.drop(x))

        model = Subclassed()
    return model


OPTIMIZERS = {
    2: [
        "Adam",
        "SGD",
        "RMSprop",
        "Adagrad",
        "Adadelta",
        "Adamax",
        "Nadam",
        "Ftrl",
        "AdamW",
        "Lion",
    ],
    3: ["Adam", "SGD", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Nadam", "Ftrl", "Adafactor"],
}
OPTIMIZERS[2] += [f"legacy.{name}" for name in OPTIMIZERS[2][:8]] + ["Adafactor"]
OPTIMIZERS[3] += ["AdamW", "Lion", "Lamb", "Muon", "LossScaleOptimizer"]


def optimizer_of(keras: Any, name: str) -> Any:
    module = keras.optimizers
    if name == "LossScaleOptimizer":
        return module.LossScaleOptimizer(module.Adam())
    if name.startswith("legacy."):
        module, name = module.legacy, name.removeprefix("legacy.")
    if not hasattr(module, name):
        pytest.skip(f"this Keras has no {name}")
    if name in ("SGD", "RMSprop"):
        return getattr(module, name)(momentum=0.9)
    rates = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9)
    return getattr(module, name)(rates if name == "Adam" else 0.01)


def trained(keras: Any, style: str, optimizer: str) -> Any:
    with quiet():
        model = model_of(keras, style)
        model.compile(
            optimizer_of(keras, optimizer),
            "mse",
            metrics=["mae", keras.metrics.MeanSquaredError()],
            weighted_metrics=["mse"],
            run_eagerly=style != "functional",  # tracing takes most of the time
        )
        model.fit(rng.random((4, 3)), rng.random((4, 2)), verbose=0)
    for variable in weights_of(model):
        variable.assign(rng.random(variable.shape))
    return model


def weights_of(model: Any) -> list[Any]:
    """The weights without those of metrics, which Keras 2 includes."""
    metrics = {id(variable) for metric in model.metrics for variable in metric.variables}
    return [variable for variable in model.weights if id(variable) not in metrics]


def as_checkpoint(model: Any, folder: Path) -> str:
    return str(tf.train.Checkpoint(model=model, opt=model.optimizer).save(str(folder / "step")))


def as_model_alone(model: Any, folder: Path) -> str:
    return str(tf.train.Checkpoint(model).write(str(folder / "alone")))


def as_saved_model(model: Any, folder: Path) -> str:
    tf.saved_model.save(model, str(folder / "saved"))
    return str(folder / "saved")


def as_export(model: Any, folder: Path) -> str:
    model.export(str(folder / "export"), verbose=False) if keras_3(model) else model.export(
        str(folder / "export")
    )
    return str(folder / "export")


def keras_3(model: Any) -> bool:
    return type(model).__mro__[-2].__module__.startswith("keras.")


def as_file(ending: str) -> Callable[[Any, Path], str]:
    def write(model: Any, folder: Path) -> str:
        path = str(folder / f"model{ending}")
        weights_only = ending in (".weights.h5", "-weights")
        model.save_weights(path) if weights_only else model.save(path)
        return path

    return write


FORMATS = {
    "checkpoint": as_checkpoint,
    "alone": as_model_alone,
    "saved_model": as_saved_model,
    "export": as_export,
    **{ending: as_file(ending) for ending in (".keras", ".h5", ".weights.h5", "-weights")},
}


@pytest.mark.parametrize("style", ["sequential", "functional", "subclassed"])
@pytest.mark.parametrize("version", VERSIONS)
def test_models_of_keras(tmp_path: Path, version: int, style: str) -> None:
    model = trained(keras_of(version), style, "Adam")
    for name, write in FORMATS.items():
        if (name == "-weights" and version == 3) or (style == "subclassed" and name == ".h5"):
            continue
        with quiet():
            path = write(model, tmp_path)
        # This file cannot distinguish the model's own metric from a layer with two numbers.
        alike = (version, style) == (2, "subclassed") and name in (".keras", ".weights.h5")
        assert_weights(path, weights_of(model) + (model.tracker.variables if alike else []))


def optimizers(*names: tuple[int, str], exhaustive: bool = False) -> list[Any]:
    slow = [pytest.mark.exhaustive] if exhaustive else []
    needed = {2: needs.module("tf_keras"), 3: needs.keras_3}
    return [
        pytest.param(version, name, marks=[needed[version], *slow], id=f"keras-{version}-{name}")
        for version, name in names
    ]


USUAL = [(2, "Adam"), (2, "legacy.Adam"), (2, "legacy.SGD"), (3, "SGD"), (3, "LossScaleOptimizer")]
OTHERS = [(version, name) for version in (2, 3) for name in OPTIMIZERS[version]]


@pytest.mark.parametrize(
    ("version", "optimizer"),
    [*optimizers(*USUAL), *optimizers(*sorted({*OTHERS} - {*USUAL}), exhaustive=True)],
)
def test_optimizers_of_keras(tmp_path: Path, version: int, optimizer: str) -> None:
    keras = keras_of(version)
    with quiet():
        model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
        model.compile(optimizer_of(keras, optimizer), "mse")
        model.optimizer.apply_gradients([(tf.ones(v.shape), v) for v in model.trainable_variables])
    for name, write in FORMATS.items():
        if name in ("export", "alone", "-weights") or (name, optimizer) == (".h5", "Adafactor"):
            continue
        if "legacy" in optimizer and name in (".keras", ".weights.h5"):
            continue
        if name == "saved_model" and (version, optimizer) in USUAL:
            continue
        with quiet():
            path = write(model, tmp_path)
        loaded = assert_weights(path, model.weights)
        if name == "checkpoint":
            assert loaded.counters
            assert bool(loaded.slots) == (optimizer != "LossScaleOptimizer" or version == 3)


def test_weights_that_only_an_optimizer_leads_to_are_weights(tmp_path: Path) -> None:
    keras = keras_of(3)
    if not needs.KERAS_3:
        pytest.skip("Keras 2 has no such list")
    with quiet():
        model = trained(keras, "functional", "Adam")
        prefix = tf.train.Checkpoint(optimizer=model.optimizer).write(str(tmp_path / "alone"))
    assert_weights(prefix, model.trainable_variables)
    loaded = checkpoint.load(as_checkpoint(model, tmp_path))
    assert not any("optimizer" in name or name.startswith("opt/") for name in loaded)
    kernel = next(n for n, full in loaded.variable_names.items() if full == "total/kernel")
    assert loaded.entries[kernel].key.startswith("opt/_trainable_variables/")
    assert kernel.startswith("model/")
    assert kernel.endswith("/_kernel")


@needs.keras_3
def test_what_export_stores_twice_is_there_once(tmp_path: Path) -> None:
    model = trained(keras_of(3), "functional", "Adam")
    with quiet():
        loaded = assert_weights(as_export(model, tmp_path), model.weights)
    assert set(loaded.variable_names.values()) == {v.path for v in model.weights}
    again = {name for name in loaded.state if name.startswith("_all_variables/")}
    assert len(again) == len(model.weights)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("write", [as_saved_model, as_export])
def test_variables_of_a_saved_model_have_the_names_of_tensorflow(
    tmp_path: Path, version: int, write: Any
) -> None:
    # Two metrics have a variable `count` each, and an export stores its variables twice.
    model = trained(keras_of(version), "functional", "Adam")
    with quiet():
        path = write(model, tmp_path)
    target = torch.nn.ModuleDict({name: torch.nn.Linear(3, 4) for name in ("metrics",)})
    target["optimizer"], target["total"] = torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)
    report = checkpoint.load_into(target, path, names="variable")
    assert report.complete
    found = [x for n, x in target.state_dict().items() if "num_batches" not in n]
    expected = sum(np.sum(variable.numpy()) for variable in weights_of(model))
    assert sum(x.sum().item() for x in found) == pytest.approx(expected, rel=1e-5)


def test_two_variables_of_an_export_that_differ_stay(tmp_path: Path) -> None:
    prefix = tf.train.Checkpoint(
        variables=[tf.Variable([1.0, 2.0], name="w"), tf.Variable([4.0], name="v")],
        _all_variables=[tf.Variable([1.0, 3.0], name="w"), tf.Variable([4.0], name="u")],
    ).write(str(tmp_path / "differ"))
    assert sorted(checkpoint.load(prefix)) == [
        "_all_variables/0",
        "_all_variables/1",
        "variables/0",
        "variables/1",
    ]


# --- models with the names of training state ------------------------------------------------------

WORDS = [
    "optimizer",
    "metrics",
    "metric",
    "iter",
    "step",
    "m",
    "v",
    "momentum",
    "total",
    "count",
    "accumulator",
    "learning_rate",
    "mom",
    "ms",
    "_iterations",
    "_variables",
    "Adam",
    "RMSProp",
    "training",
    "loss_scale",
    "good_steps",
    "slot",
    "keras_api",
    "state",
    "iterations",
    "vars",
    "beta1_power_",
    "global_step_",
    "seed_generator",
    "linear",
    "average",
    "Momentum",
    "Ftrl",
]


def module_of_words(draw: Any, depth: int) -> tf.Module:
    module = tf.Module()
    for name in draw.choice(WORDS, size=draw.integers(1, 5), replace=False):
        kind = draw.integers(0, 3) if depth else 0
        value: Any = tf.Variable(draw.random(draw.integers(1, 4, draw.integers(0, 3))))
        if kind == 1:
            value = module_of_words(draw, depth - 1)
        elif kind == 2 and name not in ("m", "v", "mom", "ms", "_variables"):
            value = [tf.Variable(draw.random(3)), module_of_words(draw, depth - 1)]
        setattr(module, name, value)
    return module


@pytest.mark.parametrize("seed", range(30))
def test_no_name_alone_makes_a_weight_something_else(tmp_path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    module = module_of_words(draw, 3)
    prefix = tf.train.Checkpoint(model=module).save(str(tmp_path / "words"))
    loaded = checkpoint.load(prefix)
    assert stored(loaded) == weights(module.variables)
    assert list(loaded.counters) == ["save_counter"]


def test_a_module_called_optimizer_has_weights(tmp_path: Path) -> None:
    source = tf.Module()
    source.optimizer, source.metrics = tf.Module(), tf.Module()
    source.optimizer.kernel = tf.Variable(rng.random((3, 2), np.float32))
    source.optimizer.bias = tf.Variable(rng.random(2, np.float32))
    source.metrics.weight = tf.Variable(rng.random(4, np.float32))
    prefix = tf.train.Checkpoint(source).write(str(tmp_path / "named"))
    target = torch.nn.ModuleDict({"optimizer": torch.nn.Linear(3, 2)})
    target["metrics"] = torch.nn.ParameterDict({"weight": torch.zeros(4)})
    report = checkpoint.load_into(target, prefix)
    assert report.complete
    assert torch.equal(target["metrics"]["weight"], checkpoint.load(prefix)["metrics/weight"])


def test_what_is_taken_for_state_is_missed_by_a_module_that_has_it(tmp_path: Path) -> None:
    source = tf.Module()
    source.scale = tf.Module()  # exactly like Keras' metrics
    source.scale.total = tf.Variable(1.0, name="total")
    source.scale.count = tf.Variable(2.0, name="count")
    prefix = tf.train.Checkpoint(source).write(str(tmp_path / "taken"))
    loaded = checkpoint.load(prefix)
    assert sorted(loaded.state) == ["scale/count", "scale/total"]
    numbers = torch.nn.ParameterDict({"total": torch.zeros(()), "count": torch.zeros(())})
    target = torch.nn.ModuleDict({"scale": numbers})
    with pytest.raises(tensor_bridge.MismatchError, match=r"missing: scale\.count"):
        checkpoint.load_into(target, loaded)
    assert checkpoint.load_into(target, {**loaded, **loaded.state}).complete
    assert target["scale"]["count"].item() == 2


@needs.module("tf_keras")
def test_slots_are_called_for_the_names_of_their_variables(tmp_path: Path) -> None:
    keras = keras_of(2)
    with quiet():
        model = trained(keras, "subclassed", "legacy.Adam")
        loaded = assert_weights(as_saved_model(model, tmp_path), weights_of(model))
    trainable = {name for name in loaded if "moving" not in name}
    assert {name.removeprefix("optimizer/m/") for name in loaded.slots} >= trainable
    assert "total/kernel" in trainable


class TestGraphs:
    """Object graphs that no program saved."""

    def graph(self, *nodes: Any) -> Any:
        from tensor_bridge.checkpoint.read._graph_kinds import GraphKinds
        from tensor_bridge.checkpoint.read._object_graph import Node

        return GraphKinds([Node(*node) for node in nodes])

    def value(self, key: str) -> list[tuple[str, str, str]]:
        return [("VARIABLE_VALUE", key, key)]

    def test_objects_that_are_not_there_are_passed_over(self) -> None:
        nodes = [{"a": 7, "keras_api": 1}, [], []], [{"metrics": 99}, [], []]
        assert self.graph(*nodes).kinds == {}
        assert self.graph().path("variables/0", ["variables", "0"]) == ["variables", "0"]

    def test_circles_end(self) -> None:
        optimizer = {"_iterations": 2, "_variables": 3, "self": 1, "model": 0}
        nodes = [
            ({"opt": 1, "self": 0}, [], []),
            (optimizer, [], [(0, "m", 5)]),
            ({}, self.value("i"), []),
            ({"0": 2, "1": 4}, [], []),
            ({}, self.value("s"), []),
        ]
        assert self.graph(*nodes).kinds == {"i": "counter", "s": "slot"}

    @pytest.mark.parametrize(
        ("most", "text"),
        [
            (1000, "1000 objects"),
            pytest.param(1_000_000, "1000000 objects", marks=pytest.mark.exhaustive),
            (5 << 20, "bytes"),
        ],
    )
    def test_more_than_any_graph_has_is_not_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, text: str
    ) -> None:
        from tensor_bridge.checkpoint.read import _object_graph

        assert _object_graph._MAX_OBJECTS == 1_000_000
        monkeypatch.setattr(_object_graph, "_MAX_OBJECTS", most)  # reading a million takes 5 s
        graph = b"\x0a\0" * (most + 1)
        with pytest.raises(tensor_bridge.CheckpointError, match=text):
            _object_graph.read_graph(graph)
        prefix = str(tmp_path / "huge")
        value = "w/.ATTRIBUTES/VARIABLE_VALUE"
        bundles.save(prefix, {"_CHECKPOINTABLE_OBJECT_GRAPH": graph, value: tf.ones(2)})
        assert list(checkpoint.load(prefix)) == ["w"]

    def test_many_objects_take_a_moment(self) -> None:
        count = 20_000
        chain = [({"a": i + 1, "variables": i, "keras_api": 1}, [], []) for i in range(count)]
        kinds = self.graph(*chain, ({}, self.value("end"), []))
        assert kinds.path("end", ["variables", "0"]) == ["variables", "0"]
        assert kinds.kinds == {}


# --- without objects ------------------------------------------------------------------------------

TF1 = {
    "Adam": lambda: v1.train.AdamOptimizer(),
    "Adam by another name": lambda: v1.train.AdamOptimizer(name="Mine"),
    "Momentum": lambda: v1.train.MomentumOptimizer(0.1, 0.9),
    "RMSProp": lambda: v1.train.RMSPropOptimizer(0.1, centered=True, momentum=0.9),
    "Adagrad": lambda: v1.train.AdagradOptimizer(0.1),
    "Adadelta": lambda: v1.train.AdadeltaOptimizer(0.1),
    "Ftrl": lambda: v1.train.FtrlOptimizer(0.1),
    "ProximalAdagrad": lambda: v1.train.ProximalAdagradOptimizer(0.1),
    "AdagradDA": lambda: v1.train.AdagradDAOptimizer(0.1, v1.train.get_global_step()),
    "GradientDescent": lambda: v1.train.GradientDescentOptimizer(0.1),
    "loss scale": lambda: v1.mixed_precision.MixedPrecisionLossScaleOptimizer(
        v1.train.AdamOptimizer(), "dynamic"
    ),
    "legacy.Adam": lambda: keras_of(2).optimizers.legacy.Adam(amsgrad=True),
    "legacy.RMSprop": lambda: keras_of(2).optimizers.legacy.RMSprop(momentum=0.9, centered=True),
    "legacy.Ftrl": lambda: keras_of(2).optimizers.legacy.Ftrl(),
    "legacy.Nadam": lambda: keras_of(2).optimizers.legacy.Nadam(),
}


@pytest.mark.parametrize("name", TF1)
@pytest.mark.parametrize("scope", ["training", "Adam/m"])
def test_optimizers_of_tensorflow_1(tmp_path: Path, name: str, scope: str) -> None:
    with tf.Graph().as_default(), quiet():
        step = v1.train.get_or_create_global_step()
        initial = v1.random_normal_initializer()
        whole = v1.get_variable(f"{scope}/kernel", (4, 2), initializer=initial)
        inner = v1.get_variable(f"{scope}/kernel/momentum", (4, 2), initializer=initial)
        scalar = v1.get_variable(f"{scope}/decay_", (), initializer=initial)
        parts = v1.get_variable(
            "total", (4, 2), partitioner=v1.fixed_size_partitioner(2), initializer=initial
        )
        own = [whole, inner, scalar, tf.convert_to_tensor(parts)]
        loss = tf.add_n([tf.reduce_sum(x * x) for x in own])
        optimizer = TF1[name]()
        if name.startswith("legacy."):
            with v1.variable_scope("training"), tf.name_scope("training"):
                optimizer.get_updates(loss, v1.trainable_variables())
        else:
            optimizer.minimize(loss, global_step=step)
        if name == "Momentum":
            tf.train.ExponentialMovingAverage(0.9).apply([whole])
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            prefix = v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
            expected = sorted(np.ascontiguousarray(x).tobytes() for x in session.run(own))
    loaded = checkpoint.load(prefix)
    assert stored(loaded) == expected, sorted(loaded)
    assert "global_step" in loaded.counters


@pytest.mark.parametrize(
    ("key", "shape", "kind"),
    [
        # Estimators, with optimizers of both kinds.
        ("linear/linear_model/x/weights/part_0/RMSProp", (3, 1), "slot"),
        ("linear/linear_model/x/weights/part_0/Ftrl_1", (3, 1), "slot"),
        ("training/Ftrl/linear/linear_model/x/weights/accumulator", (3, 1), "slot"),
        ("training/Ftrl/linear/linear_model/x/weights/linear", (3, 1), "slot"),
        ("training/Ftrl/learning_rate", (), "state"),
        ("training/Ftrl/iter", (), "counter"),
        ("signal_early_stopping/STOP", (), "state"),
        ("eval_step", (), "counter"),
        # mesh_tensorflow's Adafactor, BERT's Adam, slim's averages without bias.
        ("dense/kernel_slot_vr", (2,), "slot"),
        ("dense/kernel_slot_vc", (3,), "slot"),
        ("dense/kernel_slot_m", (3, 2), "slot"),
        ("dense/kernel/adam_m", (3, 2), "slot"),
        ("dense/kernel/biased", (3, 2), "slot"),
        # Keras before 2.3 with TensorFlow 1.
        ("training/Adam/Variable_13", (3, 2), "slot"),
        ("Adam/iterations", (), "counter"),
        ("Adam/lr", (), "state"),
        ("metrics/acc/total", (), "state"),
        ("metrics/acc/count", (), "state"),
        # Similar names that are ordinary variables.
        ("other/kernel/adam_m", (3, 2), "variable"),
        ("embedding_slot_v", (3, 2), "variable"),
        ("training/dense/momentum", (3, 2), "variable"),
        ("Adam/dense/kernel", (3, 2), "variable"),
        ("metrics/loss/total", (), "variable"),
        ("dense/iter", (), "variable"),
        ("Adam/beta", (3,), "variable"),
        ("Momentum/decay", (), "variable"),
        ("learning_rate", (), "variable"),
    ],
)
def test_names_of_tensorflow_1(key: str, shape: tuple[int, ...], kind: str) -> None:
    from tensor_bridge.checkpoint.read._names import Stored, names_of

    around = {"linear/linear_model/x/weights": (3, 1), "dense/kernel": (3, 2)}
    around |= {"metrics/acc/total": (), "metrics/acc/count": (), "Adam/iterations": ()}
    around |= {"training/Ftrl/iter": ()}
    names = names_of({k: Stored(s) for k, s in {**around, key: shape}.items()})
    assert names[key] == (key, kind)
    assert {names[k].kind for k in around if k.startswith(("linear", "dense"))} == {"variable"}
