"""A small checkpoint in every format that is read. Not for: damaged ones (mutated_files.py)."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import graphs
import h5py
import keras
import numpy as np
import tensorflow as tf
from tree import ROOT

V1 = tf.compat.v1


def model() -> Any:
    """A model with a model in it."""
    inputs = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="deep")], name="inner")
    x = keras.layers.BatchNormalization(name="norm")(inner(inputs))
    whole = keras.Model(inputs, keras.layers.Dense(2, name="head")(x))
    whole.compile("adam", "mse")
    return whole


def joined(folder: Path) -> dict[str, Path]:
    """Checkpoints of partitioned variables, in both formats of TensorFlow."""
    with V1.Graph().as_default(), V1.Session() as session:
        V1.get_variable("rows", (6, 4), partitioner=V1.fixed_size_partitioner(3))
        V1.get_variable("columns", (4, 6), partitioner=V1.fixed_size_partitioner(2, axis=1))
        V1.get_variable("whole", (3,))
        session.run(V1.global_variables_initializer())
        versions = {"joined": V1.train.SaverDef.V2, "first": V1.train.SaverDef.V1}
        for name, version in versions.items():
            (folder / name).mkdir(parents=True)
            saver = V1.train.Saver(write_version=version)
            prefix = str(folder / name / "ck")
            saver.save(session, prefix, write_meta_graph=False, write_state=False)
    return {name: folder / name / "ck" for name in versions}


def write_hdf5(folder: Path, whole: Any) -> dict[str, Path]:
    """HDF5 as Keras writes it, and with data sets in chunks."""
    folder.mkdir(parents=True)
    whole.save(folder / "model.h5")
    whole.save_weights(folder / "model.weights.h5")
    with h5py.File(folder / "chunked.weights.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        values = np.arange(60.0).reshape(6, 10)
        group.create_dataset("0", data=values, chunks=(4, 3), fletcher32=True)
        packed = {"chunks": (10,), "compression": "gzip", "shuffle": True}
        group.create_dataset("1", data=np.arange(99), **packed)
        group.create_dataset("2", data=np.arange(5, dtype=">f4"))
        group.create_dataset("3", data=np.array([True, False]), chunks=(2,))
        group.attrs["name"] = "dense"
    return {path.name: path for path in sorted(folder.iterdir())}


def write_archives(folder: Path, whole: Any) -> dict[str, Path]:
    """Archives of Keras: as it writes them, and packed."""
    folder.mkdir(parents=True)
    stored, packed = folder / "stored.keras", folder / "packed.keras"
    whole.save(stored)
    with zipfile.ZipFile(stored) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return {path.name: path for path in (stored, packed)}


def write_pieces(folder: Path, whole: Any) -> dict[str, Path]:
    """Formats with JSON or text files: pieces, an unpacked archive, a list of checkpoints."""
    for name in ("pieces", "unpacked", "listed"):
        (folder / name).mkdir(parents=True)
    pieces = folder / "pieces" / "m.weights.json"
    whole.save_weights(pieces, max_shard_size=0.0001)
    whole.save(folder / "archive.keras")
    with zipfile.ZipFile(folder / "archive.keras") as archive:
        archive.extractall(folder / "unpacked")
    tf.train.Checkpoint(w=tf.Variable([1.0])).save(str(folder / "listed" / "ck"))
    return {"pieces": pieces, "unpacked": folder / "unpacked", "listed": folder / "listed"}


def write(folder: Path) -> dict[str, Path]:
    """Writes one checkpoint of each format."""
    whole = model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras' own, when it saves
        found = joined(folder / "joined")
        found |= write_hdf5(folder / "hdf5", whole)
        found |= write_archives(folder / "archives", whole)
        found |= write_pieces(folder / "pieces", whole)
        found["bundle"] = folder / "bundle"
        tf.train.Checkpoint(model=whole, text=tf.Variable(["a", "bc"])).write(
            str(folder / "bundle")
        )
    graph = graphs.graph_of(
        w=graphs.tensor(1, [2, 2], tensor_content=b"12345678" * 2),
        made=graphs.tensor(1, [2, 3], float_val=[1, 2]),
        text=graphs.tensor(7, [2], string_val=[b"a", b"bc"]),
    )
    found["graph"] = graphs.write(folder, graph)
    found["tflite"] = folder / "model.tflite"
    seed = ROOT / "tests" / "fuzz" / "seeds" / "tflite" / "int8"
    found["tflite"].write_bytes(seed.read_bytes())
    return found
