"""No tensor is lost because another has the same name."""

from __future__ import annotations

import json
import os
from itertools import product
from pathlib import Path
from random import Random

import bundles
import h5py
import numpy as np
import pytest
import tflite_models
from hostile_names import FORMATS
from tensorflow.lite.python import schema_py_generated as schema

from tensor_bridge import CheckpointError, checkpoint
from tensor_bridge.checkpoint.read._names import Stored, names_of

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
# Parts that give equal names when they are unescaped and joined. Every key has one as its suffix.
PARTS = [
    "a",
    "b",
    "a.Sb",
    "a..Sb",
    "..ATTRIBUTES",
    "VARIABLE_VALUE",
    "..ATTRIBUTES.SVARIABLE_VALUE",
]


@pytest.mark.parametrize("seed", range(40))
def test_names_of_keys_that_meet_are_distinct(seed: int) -> None:
    dice = Random(seed)
    paths = ["/".join(parts) for n in (1, 2, 3, 4) for parts in product(PARTS, repeat=n)]
    keys = [path + SUFFIX for path in dice.sample(paths, 60)]
    # Names that equal keys of other tensors.
    keys += [f"{dice.choice(keys).replace('.', '..')}{SUFFIX}" for _ in range(20)]
    keys = sorted(
        set(keys) | {"a/b" + SUFFIX, "a.Sb" + SUFFIX, f"a/b/..ATTRIBUTES{SUFFIX[12:]}{SUFFIX}"}
    )
    names = names_of({key: Stored((1,)) for key in keys})
    assert list(names) == keys
    assert len(set(names.values())) == len(keys)


def test_three_that_meet_are_all_in_the_checkpoint(tmp_path: Path) -> None:
    keys = ["a/b", "a.Sb", "a/b/..ATTRIBUTES/VARIABLE_VALUE"]
    bundles.save(tmp_path / "ck", {key + SUFFIX: [float(i)] for i, key in enumerate(keys)})
    loaded = checkpoint.load(tmp_path / "ck")
    assert sorted(x.item() for x in loaded.values()) == [0.0, 1.0, 2.0]
    assert "a/b" in loaded


def test_a_variable_in_two_pieces_of_a_model_is_damage(tmp_path: Path) -> None:
    for piece in ("one.h5", "two.h5"):
        with h5py.File(tmp_path / piece, "w") as file:
            file.create_dataset("layers/dense/vars/0", data=np.ones(2, np.float32))
    path = tmp_path / "model.weights.json"
    path.write_text(json.dumps({"weight_map": {"a": "one.h5", "b": "two.h5"}}))
    with pytest.raises(CheckpointError, match="one twice"):
        checkpoint.load(path)


def test_names_that_are_not_utf8_stay_apart_from_their_escapes(tmp_path: Path) -> None:
    for kind in ("bundle", "graph", "tflite"):
        (folder := tmp_path / kind).mkdir()
        loaded = checkpoint.load(FORMATS[kind]([b"w\xff", b"w\\xff"], folder))
        assert {"w\udcff", "w\\xff"} <= set(loaded)


def test_damage_in_an_index_has_the_true_name(tmp_path: Path) -> None:
    name = b"w\x1b\xff"
    broken = bundles.entry(dtype=1, shape=(-2,))
    (tmp_path / "ck.index").write_bytes(
        bundles.index_bytes([(b"", bundles.header()), (name, broken)])
    )
    with pytest.raises(CheckpointError) as e:
        checkpoint.load(tmp_path / "ck")
    assert e.value.entry == os.fsdecode(name)
    assert repr(os.fsdecode(name)) in str(e.value)


def test_tensors_of_one_name_in_a_model_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    drawn = [
        tflite_models.Drawn(name, schema.TensorType.FLOAT32, (1,), bytes(4))
        for name in ("w", "w#2", "w", "w")
    ]
    path.write_bytes(tflite_models.made(drawn))
    assert len(checkpoint.load(path)) == 4
