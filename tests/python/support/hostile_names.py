"""Hostile names, files that hold them, and the characters that may be shown."""

from __future__ import annotations

import json
import unicodedata
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import bundles
import graphs
import h5py
import numpy as np
import tensorflow as tf
import tflite_models
from tensorflow.core.framework import node_def_pb2, types_pb2
from tensorflow.lite.python import schema_py_generated as schema

from tensor_bridge.checkpoint.read._object_graph import message

# Parts of names: terminal commands, characters that reverse or hide text, bytes that are not UTF-8,
# text with a meaning in one of the formats, and ordinary letters.
_PARTS: tuple[bytes, ...] = (
    *(bytes([c]) for c in (*range(1, 32), 127)),
    *(b"\x1b[2J", b"\x1b[31m", b"\x1b]0;title\x07", b"\x1b[1A\x1b[2K", b"\r\nfine  float32  2"),
    *(b"\xff", b"\x9b31m", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc0\xaf"),
    *(
        chr(c).encode()
        for c in (
            *(0x80, 0x85, 0x9B, 0xA0, 0xAD, 0x34F, 0x61C, 0x115F, 0x17B4, 0x180E, 0x200B, 0x200D),
            *(0x200E, 0x200F, 0x2028, 0x2029, 0x202A, 0x202D, 0x202E, 0x2060, 0x2066, 0x2069),
            *(0x3000, 0x3164, 0xE000, 0xFE0F, 0xFEFF, 0xFFA0, 0xFFF9, 0xFFFE, 0x1D173, 0xE0001),
            *(0xE0041, 0xE0100, 0x10FFFF),
        )
    ),
    *(
        "é日本한ע".encode(),
        "e\u0301".encode(),
        "😀".encode(),
        b"\\x1b",
        b"\\",
        b'"',
        b"'",
        b"%s",
        b"{}",
    ),
    *(b"__metadata__", b".ATTRIBUTES", b"vars", b"w", b"dense", b"kernel:0", b"..", b".", b" "),
)
_SPLITS = (b"/", b"/", b".", b"")

# Default_Ignorable_Code_Point of Unicode 16, whatever Python's own tables say of it.
_IGNORABLE = (
    *((0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5)),
    *((0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164)),
    *((0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8)),
    *((0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF)),
)


def unshowable(shown: bytes) -> set[str]:
    """Characters that must not be sent to a terminal, except newlines; invalid UTF-8 too."""
    text = shown.decode("utf-8", "surrogateescape")
    return {
        f"U+{ord(c):04X}"
        for c in set(text) - {"\n", " "}
        if unicodedata.category(c)[0] in "CZ"
        or any(first <= ord(c) <= last for first, last in _IGNORABLE)
    }


def draw(dice: Random) -> bytes:
    """A name of a few parts."""
    out = dice.choice(_PARTS)
    for _ in range(dice.choice((0, 1, 1, 2, 3, 5))):
        out += dice.choice(_SPLITS) + dice.choice(_PARTS)
    return out


def draw_many(dice: Random, count: int) -> list[bytes]:
    """Distinct names."""
    found: dict[bytes, None] = {}
    while len(found) < count:
        found[draw(dice)] = None
    return list(found)


def _bundle(names: Sequence[bytes], folder: Path) -> Path:
    values = [tf.fill((2,), float(i)) for i in range(len(names))]
    return Path(bundles.save(folder / "ck", dict(zip(names, values, strict=True))))


def _v1(names: Sequence[bytes], folder: Path) -> Path:
    tf.raw_ops.SaveSlices(
        filename=str(folder / "v1"),
        tensor_names=list(names),
        shapes_and_slices=[""] * len(names),
        data=[tf.fill((2,), float(i)) for i in range(len(names))],
    )
    return folder / "v1"


def _graph(names: Sequence[bytes], folder: Path) -> Path:
    node = node_def_pb2.NodeDef(op="Const")
    node.attr["dtype"].type = types_pb2.DT_FLOAT
    node.attr["value"].tensor.CopyFrom(
        graphs.tensor(types_pb2.DT_FLOAT, (2,), tensor_content=bytes(8))
    )
    # protobuf in Python refuses to set a name that is not UTF-8, but a file can have one. A file is
    # recognised as a graph by the name of its first node.
    names = [b"first", *names]
    stored = [message((1, message((1, name)) + node.SerializeToString())) for name in names]
    path = folder / "graph.pb"
    path.write_bytes(b"".join(stored))
    return path


def _tflite(names: Sequence[bytes], folder: Path) -> Path:
    tensors = [
        tflite_models.Drawn(name, schema.TensorType.FLOAT32, (2,), bytes(8))  # type: ignore[arg-type]
        for name in names
    ]
    path = folder / "model.tflite"
    path.write_bytes(tflite_models.made(tensors))
    return path


def _h5_names(names: Sequence[bytes]) -> list[bytes]:
    """The names that can coexist: no group is also a data set, and "." is not a name."""
    found = []
    for name in names:
        parts = [part for part in name.split(b"/") if part not in (b"", b".", b"..")]
        if parts:
            found.append(b"/".join((b"g%d" % len(found), *parts)))
    return found


def _put(group: Any, name: bytes) -> None:
    """Writes a data set at a path of any bytes; only h5py's low-level layer accepts them."""
    *outer, last = name.split(b"/")
    place = group.id
    for part in outer:
        place = h5py.h5g.create(place, part)
    space = h5py.h5s.create_simple((2,))
    data_set = h5py.h5d.create(place, last, h5py.h5t.IEEE_F32LE, space)
    data_set.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ones(2, np.float32))


def _h5(names: Sequence[bytes], folder: Path) -> Path:
    path = folder / "weights.h5"
    with h5py.File(path, "w") as file:
        for name in _h5_names(names):
            _put(file, name)
    return path


def _keras_h5(names: Sequence[bytes], folder: Path) -> Path:
    path = folder / "model.h5"
    with h5py.File(path, "w") as file:
        layers = []
        for name in _h5_names(names):
            layer, _, weight = name.partition(b"/")
            group = file.create_group(layer)
            _put(group, weight)
            group.attrs["weight_names"] = np.array([weight], dtype=f"S{len(weight)}")
            layers.append(layer)
        file.attrs["layer_names"] = np.array(layers, dtype="S20")
        file.attrs["model_config"] = _config(names)
    return path


def _config(names: Sequence[bytes]) -> str:
    texts = [name.decode("utf-8", "surrogateescape") for name in names]
    layers = [{"class_name": text, "config": {"name": text, text: text}} for text in texts]
    return json.dumps({"class_name": "Sequential", "config": {"name": texts[0], "layers": layers}})


def _keras(names: Sequence[bytes], folder: Path) -> Path:
    weights, path = folder / "inner.h5", folder / "model.keras"
    with h5py.File(weights, "w") as file:
        for i, name in enumerate(names):
            group = file.create_group(f"layers/dense_{i}/vars" if i else "layers/dense/vars")
            group.create_dataset("0", data=np.ones(2, np.float32))
            group.parent.attrs["name"] = group.attrs["name"] = np.bytes_(name)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", _config(names))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.10.0"}))
        archive.write(weights, "model.weights.h5")
    weights.unlink()
    return path


FORMATS: dict[str, Callable[[Sequence[bytes], Path], Path]] = {
    "bundle": _bundle,
    "v1": _v1,
    "graph": _graph,
    "tflite": _tflite,
    "h5": _h5,
    "keras_h5": _keras_h5,
    "keras": _keras,
}
"""For each format, the function that writes a file with these names."""
