"""Names of layers: whatever a Keras file says, and no other."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import keras
import needs
import pytest
from drawn_keras_models import drawn

from tensor_bridge import checkpoint


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
    """As a release before Keras 3.6 wrote a file of weights."""
    with h5py.File(path, "a") as file:
        file.visititems(lambda _, item: item.attrs.pop("name", None))
        file["vars"].attrs.pop("name", None) if "vars" in file else None
    return checkpoint.load(path)


def compare(loaded: checkpoint.Checkpoint, names: dict[float, set[str]]) -> int:
    """How many names are known; each is one of the weight's."""
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


GENERATIONS = [pytest.param("keras", marks=needs.keras_3), "tf_keras"]


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("seed", range(12))
def test_each_name_is_that_of_the_weights_layer(tmp_path: Path, generation: str, seed: int) -> None:
    check(seed, generation, tmp_path)
