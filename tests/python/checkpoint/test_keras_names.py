"""Names of layers: exactly those that a Keras file has."""

from __future__ import annotations

import contextlib
import io
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import needs
import numpy as np
import pytest
import torch
from drawn_keras_models import drawn
from torch import nn

from tensor_bridge import MismatchError, checkpoint
from tensor_bridge.checkpoint.read._keras_names import find_names


def keras_of(generation: str) -> Any:
    if generation == "tf_keras":
        return pytest.importorskip("tf_keras")
    return keras


def saved(model: Any, path: Path) -> checkpoint.Checkpoint:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_weights(path) if path.name.endswith(".weights.h5") else model.save(path)
    return checkpoint.load(path)


def without_names(path: Path) -> checkpoint.Checkpoint:
    """A file of weights in the form of releases before Keras 3.6."""
    with h5py.File(path, "a") as file:
        strip(file)
    return checkpoint.load(path)


def strip(file: h5py.File) -> None:
    def visit(_: str, item: Any) -> None:
        if "name" in item.attrs:
            del item.attrs["name"]

    file.visititems(visit)


def compare(loaded: checkpoint.Checkpoint, names: dict[float, set[str]]) -> int:
    """Returns the number of known names, and checks that each is a name of its weight."""
    found = {float(x.flatten()[0]): name for name, x in loaded.items()}
    assert set(found) == set(names)
    known = {value: name for value, name in found.items() if loaded.entries[name].named}
    wrong = {value: name for value, name in known.items() if name not in names[value]}
    assert not wrong, {name: names[value] for value, name in wrong.items()}
    return len(known)


def check(seed: int, generation: str, tmp_path: Path) -> None:
    model = drawn(keras_of(generation), seed)
    archive = saved(model.model, tmp_path / f"{seed}.keras")
    known = compare(archive, model.names)
    if model.kind != "subclassed":
        assert known == len(model.names), f"seed {seed}"
        assert archive.names_known
    bare = tmp_path / f"{seed}.weights.h5"
    compare(saved(model.model, bare), model.names)
    compare(without_names(bare), model.names)
    if model.kind == "subclassed":
        return
    # Keras 2 does not save nested models with two layers of the same name.
    with contextlib.suppress(ValueError):
        compare_top(saved(model.model, tmp_path / f"{seed}.h5"), model.names)


def compare_top(loaded: checkpoint.Checkpoint, names: dict[float, set[str]]) -> None:
    """Files with the variables' own names, which have the outermost model's layer and the last."""
    assert loaded.names_known
    found = {float(x.flatten()[0]): name.split("/") for name, x in loaded.items()}
    assert set(found) == set(names)
    for value, parts in found.items():
        assert parts[0] in {name.split("/")[0] for name in names[value]}


GENERATIONS = [pytest.param("keras", marks=needs.keras_3), "tf_keras"]


# A model of tf_keras takes a second to build and to store.
DRAWN = [range(2), pytest.param(range(2, 20), marks=pytest.mark.exhaustive)]


@pytest.mark.parametrize("generation", GENERATIONS)
# The first three are a model of each kind.
@pytest.mark.parametrize(
    "seed", [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in (3, 4))]
)
def test_each_name_is_that_of_the_weights_layer(tmp_path: Path, generation: str, seed: int) -> None:
    check(seed, generation, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("start", range(1000, 3000, 50))
def test_each_name_is_that_of_the_weights_layer_in_many_models(
    tmp_path: Path, generation: str, start: int
) -> None:
    for seed in range(start, start + 50):
        check(seed, generation, tmp_path)
        for path in tmp_path.iterdir():
            path.unlink()


@pytest.mark.parametrize("release", ["2.13", "2.14"])
@pytest.mark.parametrize("seeds", DRAWN)
def test_archives_of_releases_that_count_layers_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, seeds: range
) -> None:
    pytest.importorskip("tf_keras")
    from tf_keras.src.saving import saving_lib

    # Their difference: another list of layers, which names each layer with weights twice. In 2.13
    # layers that were already saved counted too.
    listed = saving_lib.ATTR_SKIPLIST - {"_layer_checkpoint_dependencies"}
    monkeypatch.setattr(saving_lib, "ATTR_SKIPLIST", listed)
    monkeypatch.setattr(saving_lib, "sorted", lambda names, reverse: names, raising=False)
    if release == "2.13":
        monkeypatch.setattr(saving_lib, "_save_container_state", _all_counted(saving_lib))
    groups: set[str] = set()
    for seed in seeds:
        model = drawn(keras_of("tf_keras"), seed)
        path = tmp_path / f"{seed}.keras"
        loaded = saved(model.model, path)
        known = compare(loaded, model.names)
        groups |= {entry.key.split("/")[0] for entry in loaded.entries.values()}
        assert model.kind == "subclassed" or known == len(model.names), seed
    assert "_layer_checkpoint_dependencies" in groups


def _all_counted(saving_lib: Any) -> Any:
    def save(container: Any, weights: Any, assets: Any, inner_path: str, visited: set[int]) -> None:
        used: dict[str, int] = {}
        for part in container.values() if isinstance(container, dict) else container:
            if saving_lib._is_keras_trackable(part):
                name = saving_lib.generic_utils.to_snake_case(type(part).__name__)
                used[name] = used.get(name, -1) + 1
                name = f"{name}_{used[name]}" if used[name] else name
                saving_lib._save_state(part, weights, assets, f"{inner_path}/{name}", visited)

    return lambda container, weights, assets, inner_path, visited_trackables: save(
        container, weights, assets, inner_path, visited_trackables
    )


def two_layers(of_keras: Any) -> Any:
    """Two layers that are made in another order than they are called."""
    layers = of_keras.layers
    a, b = layers.Dense(3, name="dense"), layers.Dense(3, name="dense_1")
    x = of_keras.Input((3,))
    return of_keras.Model(x, a(b(x)))


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("named", [True, False])
def test_an_archive_gives_names_where_groups_are_called_by_class(
    tmp_path: Path, generation: str, named: bool
) -> None:
    model = two_layers(keras_of(generation))
    path = tmp_path / "m.keras"
    saved(model, path)
    if not named:
        rewrite(path, lambda file: strip(file))
    twin = nn.ModuleDict({"dense": nn.Linear(3, 3), "dense_1": nn.Linear(3, 3)})
    assert checkpoint.load_into(twin, path).complete
    x = np.random.default_rng(0).random((5, 3), "float32")
    found = twin["dense"](twin["dense_1"](torch.from_numpy(x))).detach().numpy()
    np.testing.assert_allclose(found, np.asarray(model(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_file_of_weights_without_names_says_so(tmp_path: Path, generation: str) -> None:
    saved(two_layers(keras_of(generation)), tmp_path / "m.weights.h5")
    loaded = without_names(tmp_path / "m.weights.h5")
    assert not loaded.names_known
    assert list(loaded) == [f"layers/{name}/{i}" for name in ("dense", "dense_1") for i in (0, 1)]
    twin = nn.ModuleDict({"dense": nn.Linear(3, 3), "dense_1": nn.Linear(3, 3)})
    inside = nn.ModuleDict({"layers": twin})
    for module in (twin, inside):
        with pytest.raises(MismatchError, match="4 missing, 4 unused"):
            checkpoint.load_into(module, loaded)
    rules = [("^layers/dense/", "dense_1/"), ("^layers/dense_1/", "dense/")]
    assert checkpoint.load_into(twin, loaded, rules=rules).complete


def subclassed(of_keras: Any, attributes: list[str]) -> Any:
    """A subclassed model whose layers are named dense, dense_1, ... in that order."""
    of_keras.backend.clear_session()

    class Somebodys(of_keras.Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            for attribute in attributes:
                setattr(self, attribute, of_keras.layers.Dense(3))

        def call(self, x: Any) -> Any:
            for attribute in attributes:
                x = getattr(self, attribute)(x)
            return x

    model = Somebodys()
    model(np.zeros((1, 3), "float32"))
    return model


@needs.keras_3
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize(
    "attributes", [["dense_1", "dense_2"], ["dense_1", "dense"], ["a", "b", "c"]]
)
def test_a_layer_of_a_subclassed_model_is_its_attribute(
    tmp_path: Path, suffix: str, attributes: list[str]
) -> None:
    model = subclassed(keras, attributes)
    path = tmp_path / f"m{suffix}"
    loaded = saved(model, path)
    assert loaded.names_known
    for attribute in attributes:
        for i, variable in enumerate(getattr(model, attribute).weights):
            assert loaded[f"{attribute}/{i}"].tolist() == variable.numpy().tolist()


@needs.keras_3
def test_attributes_behind_layers_in_the_alphabet_are_not_in_the_file(tmp_path: Path) -> None:
    # Names like "lstm": Keras lists the layers of a model before it visits them, and their names
    # are Keras' own.
    model = subclassed(keras, ["m_1", "dense", "z"])
    loaded = saved(model, tmp_path / "m.weights.h5")
    known = {name for name, entry in loaded.entries.items() if entry.named}
    assert known == {"dense/0", "dense/1"}
    assert len(loaded) == 6
    assert loaded["dense/0"].tolist() == model.dense.kernel.numpy().tolist()


@needs.keras_3
def test_layers_of_one_name_are_all_there(tmp_path: Path) -> None:
    class Somebodys(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (keras.layers.Dense(3, name="same") for _ in range(2))
            self.m, self.n = (keras.layers.Dense(3, name="same") for _ in range(2))

        def call(self, x: Any) -> Any:
            return self.n(self.m(self.b(self.a(x))))

    model = Somebodys()
    model(np.zeros((1, 3), "float32"))
    loaded = saved(model, tmp_path / "m.weights.h5")
    kernels = {str(x.tolist()) for x in loaded.values()}
    assert kernels == {str(w.numpy().tolist()) for w in model.weights}
    assert {name for name, entry in loaded.entries.items() if entry.named} == {
        f"{layer}/{i}" for layer in ("a", "b") for i in (0, 1)
    }


def rewrite(archive: Path, change: Callable[[h5py.File], None]) -> None:
    """Changes the file of weights in an archive."""
    with zipfile.ZipFile(archive) as old:
        members = {name: old.read(name) for name in old.namelist()}
    weights = io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "a") as file:
        change(file)
    members["model.weights.h5"] = weights.getvalue()
    with zipfile.ZipFile(archive, "w") as new:
        for name, data in members.items():
            new.writestr(name, data)


def with_backslashes(file: h5py.File) -> None:
    """A layer's path as joined on Windows: a group "layers\\dense" with "vars" in it."""
    paths: list[str] = []
    file.visit(paths.append)
    found = [path.removesuffix("/vars") for path in paths if path.endswith("/vars")]
    for path in found:
        # A new group each time; the contents of "vars" are not changed.
        file.move(f"{path}/vars", "moved")
        file.move("moved", path.replace("/", "\\") + "/vars")


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize("seeds", DRAWN)
def test_paths_that_windows_wrote(
    tmp_path: Path, generation: str, suffix: str, seeds: range
) -> None:
    deep = False
    for seed in seeds:
        path = tmp_path / f"{seed}{suffix}"
        plain = saved(drawn(keras_of(generation), seed).model, path)
        expected = {name: (e.named, plain[name].tolist()) for name, e in plain.entries.items()}
        if suffix == ".keras":
            rewrite(path, with_backslashes)
        else:
            with h5py.File(path, "a") as file:
                with_backslashes(file)
        loaded = checkpoint.load(path)
        deep |= any("\\" in entry.key for entry in loaded.entries.values())
        found = {name: (e.named, loaded[name].tolist()) for name, e in loaded.entries.items()}
        assert found == expected
    assert deep  # some drawn models have only one level


def test_many_groups_take_no_time_for_each_pair() -> None:
    paths = [f"layers/dense_{number}" for number in range(1, 20_000)]
    begin = time.process_time()
    found = find_names(paths, lambda path: path.rpartition("/")[2], lambda: None, 0)
    assert time.process_time() - begin < 5
    assert len(found) == len(paths) + 1
    assert not found["layers/dense_7"].named
