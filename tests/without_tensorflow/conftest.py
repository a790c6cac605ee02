"""Tests for environments with torch and without TensorFlow, NumPy and protobuf.

`tests/python/installation/frameworks/test_without_tensorflow.py` runs them in an environment that
has little more than torch, `make matrix` with the newest Python.
"""

from __future__ import annotations

import json
import struct
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tensor_bridge import records

ABSENT = ("tensorflow", "numpy", "keras", "tensorflow_datasets", "google.protobuf")
FEATURES = "tensorflow_datasets.core.features"


def _found(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture(scope="session", autouse=True)
def nothing_else() -> None:
    assert [name for name in ABSENT if _found(name)] == []


def png(level: int, side: int = 4) -> bytes:
    """A gray square."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">2I5B", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes([level]) * side) * side)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def prepared(folder: Path, features: Any, spec: Any, examples: list[Any], **info: Any) -> Path:
    """A folder as TFDS prepares it, with one split in two shards."""
    folder.mkdir()
    half = len(examples) // 2
    for i, part in enumerate((examples[:half], examples[half:])):
        path = folder / f"made-train.tfrecord-0000{i}-of-00002"
        with records.Writer(path, spec) as writer:
            for example in part:
                writer.write(example)
    lengths = [str(half), str(len(examples) - half)]
    split = {"name": "train", "shardLengths": lengths, "numBytes": "0"}
    fields = {"name": "made", "version": "1.0.0", "fileFormat": "tfrecord", "splits": [split]}
    (folder / "dataset_info.json").write_text(json.dumps(fields | info))
    (folder / "features.json").write_text(json.dumps(features))
    return folder


def image(side: int) -> Any:
    shape = {"dimensions": [str(side), str(side), "1"]}
    return {
        "pythonClassName": f"{FEATURES}.image_feature.Image",
        "image": {"shape": shape, "dtype": "uint8", "encodingFormat": "png"},
    }


def tensor(dtype: str, *shape: int) -> Any:
    return {
        "pythonClassName": f"{FEATURES}.tensor_feature.Tensor",
        "tensor": {
            "shape": {"dimensions": [str(size) for size in shape]},
            "dtype": dtype,
            "encoding": "none",
        },
    }


def named(**features: Any) -> Any:
    return {
        "pythonClassName": f"{FEATURES}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 images with a label."""
    label = {
        "pythonClassName": f"{FEATURES}.class_label_feature.ClassLabel",
        "classLabel": {"numClasses": "2"},
    }
    spec = {
        "image": records.FixedLenFeature((), bytes),
        "label": records.FixedLenFeature((), "int64"),
    }
    examples = [{"image": png(i), "label": i % 2} for i in range(20)]
    keys = {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}}
    return prepared(
        tmp_path_factory.mktemp("tfds") / "digits",
        named(image=image(4), label=label),
        spec,
        examples,
        supervisedKeys=keys,
    )


@pytest.fixture(scope="session")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 episodes of 3 to 8 steps."""
    steps = {
        "pythonClassName": f"{FEATURES}.dataset_feature.Dataset",
        "sequence": {
            "feature": named(frame=image(4), action=tensor("float32", 2)),
            "length": "-1",
        },
    }
    spec = {
        "steps/frame": records.VarLenFeature(bytes),
        "steps/action": records.VarLenFeature("float32"),
    }
    examples = [
        {
            "steps/frame": [png(10 * i + j) for j in range(i + 3)],
            "steps/action": [float(value) for j in range(i + 3) for value in (i, j)],
        }
        for i in range(6)
    ]
    return prepared(tmp_path_factory.mktemp("rlds") / "robot", named(steps=steps), spec, examples)
