"""Drawn models in files: every format that Keras writes, and rules for names that it drops."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
import torch
from drawn_models import KerasSide

import tensor_bridge
from tensor_bridge import checkpoint

# What is left of a variable's name behind its layer's.
_ROLE = re.compile(
    r"((?:"
    r"(?:forward|backward)_\w+/|(?:\w+_)?cell(?:_\d+)?/|"
    r"_?(?:query|key|value|output)_dense/|(?:query|key|value|attention_output)/"
    r")*)([^/]+)$"
)


def _keras(side: KerasSide, folder: Path) -> str:
    side.model.save(path := str(folder / "model.keras"))
    return path


def _weights(side: KerasSide, folder: Path) -> str:
    side.model.save_weights(path := str(folder / "model.weights.h5"))
    return path


def _h5(side: KerasSide, folder: Path) -> str:
    side.model.save(path := str(folder / "model.h5"))
    return path


def _h5_weights(side: KerasSide, folder: Path) -> str:
    side.model.save_weights(path := str(folder / "weights.h5"))
    return path


def _checkpoint(side: KerasSide, folder: Path) -> str:
    path: str = tf.train.Checkpoint(model=side.model).write(str(folder / "checkpoint"))
    return path


def _saved_model(side: KerasSide, folder: Path) -> str:
    path = str(folder / "saved")
    if side.drawn.generation == 3:
        side.model.export(path, verbose=False)
    else:
        tf.saved_model.save(side.model, path)
    return path


def formats(side: KerasSide, saved_model: bool) -> dict[str, Callable[[KerasSide, Path], str]]:
    """The function that writes each format possible for a model; SavedModels take seconds."""
    found = {"keras": _keras, "weights.h5": _weights, "checkpoint": _checkpoint}
    if side.drawn.style != "subclassed":
        found["h5"] = _h5
    if side.drawn.generation == 2:
        found["h5 weights"] = _h5_weights
    if saved_model:
        found["SavedModel"] = _saved_model
    return found


def knows_names(side: KerasSide, kind: str) -> bool:
    """Whether names in the file lead to the layers without a rule."""
    if kind in ("checkpoint", "SavedModel"):
        return False
    subclassed = side.drawn.style == "subclassed"
    if side.drawn.generation == 3:
        # Keras visits attributes in alphabetical order, "layers" among them.
        paths = side.paths.values()
        return not subclassed or not any(path > "layers" or "/" in path for path in paths)
    return not subclassed and kind != "weights.h5"


def roles(side: KerasSide) -> list[tuple[str, str | None]]:
    """Rules for numbered weights of norms without gamma or beta; the file has no configuration."""
    return [
        (f"^{re.escape(side.paths[id(layer)])}/{i}$", f"{side.paths[id(layer)]}/{role}")
        for _, layer in side.drawn.layers()
        if layer.class_name.endswith("Normalization") and len(layer.roles) < 2
        for i, role in enumerate([*layer.roles, "moving_mean", "moving_variance"])
    ]


def rules(side: KerasSide, file: checkpoint.Checkpoint) -> list[tuple[str, str | None]]:
    """A rule for each name that needs one, found by the values: it leads to their layer."""
    known = [
        (where, variable, tensor_bridge.to_torch(tf.convert_to_tensor(variable), copy=True))
        for where, layer in side.layers()
        for variable in layer.weights
    ]
    found: list[tuple[str, str | None]] = []
    for name, x in file.items():
        owners = [
            (where, variable)
            for where, variable, value in known
            if value.shape == x.shape and value.dtype == x.dtype and torch.equal(value, x)
        ]
        target = None
        if owners and not name.startswith("_all_variables"):
            where, variable = owners[0]
            # The number of a variable is what the file has; a SavedModel only counts them.
            numbered = name.rpartition("/")[2].isdigit() and not name.startswith("variables/")
            called = getattr(variable, "path", variable.name).partition(":")[0]
            match = _ROLE.search(name if numbered else called)
            assert match is not None
            # A rule must not match the result of another rule.
            target = f"to:{where}/{match[0]}"
            if numbered and name.startswith(f"{where}/"):
                continue
        found.append((f"^{re.escape(name)}$", target))
    return [*found, ("^to:", "")]
