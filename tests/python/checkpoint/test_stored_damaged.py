"""Damaged and hostile graphs and TensorFlow Lite models: a typed error, or others' values."""

from __future__ import annotations

import contextlib
import random
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import graphs
import needs
import numpy as np
import pytest
import tensorflow as tf
import tflite_models
import torch
from google.protobuf.message import DecodeError
from tensorflow.core.framework import graph_pb2
from tensorflow.lite.python import schema_py_generated as schema
from tflite_models import Drawn

from tensor_bridge import CheckpointError, UnsupportedDtypeError, checkpoint

pytestmark = [
    needs.tensorflow_since(21, "it writes models of TensorFlow Lite by an older schema"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # NumPy warns about random bits.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

# Exceptions of the package flatbuffers for offsets outside the file.
UNCHECKED = (struct.error, ValueError, TypeError, IndexError, AttributeError)
MEANT = (CheckpointError, UnsupportedDtypeError)


def mutated(good: bytes, rng: random.Random) -> bytes:
    """The bytes with a few of them changed, cut out or doubled."""
    bad = bytearray(good)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(bad))
        kind = rng.random()
        if kind < 0.7:
            bad[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif kind < 0.85:
            del bad[at : at + rng.randint(1, 8)]
        else:
            bad[at:at] = bad[at : at + rng.randint(1, 8)]
        if not bad:
            return b"\0"
    return bytes(bad)


def read_all(path: Path, raw: bool) -> tuple[Counter[str], dict[str, Any]]:
    """The numbers of tensors that were read and refused, and the tensors that were read."""
    outcomes: Counter[str] = Counter()
    found: dict[str, Any] = {}
    try:
        loaded = checkpoint.load(path)
    except MEANT:
        return Counter(file=1), found
    for entry in loaded.all_entries:
        try:
            found[entry.name] = entry.read(raw)
            outcomes["read"] += 1
        except MEANT:
            outcomes["refused"] += 1
    return outcomes, found


def small_graph() -> Any:
    graph = graphs.graph_of(
        w=graphs.tensor(1, [2, 3], float_val=[1, 2]),
        content=graphs.tensor(3, [2], tensor_content=b"12345678"),
        half=graphs.tensor(19, [2], half_val=[15360]),
        names=graphs.tensor(7, [3], string_val=[b"a", b"bc"]),
        packed=graphs.tensor(7, [2], tensor_content=b"\1\2abc"),
        flags=graphs.tensor(10, [2], bool_val=[True, False]),
        four=graphs.tensor(29, [3], int_val=[1, -1]),
        complex=graphs.tensor(8, [2], scomplex_val=[1, 2]),
    )
    function = graph.library.function.add()
    function.signature.name = "call"
    inner = graphs.graph_of(k=graphs.tensor(2, [1], double_val=[3]))
    function.node_def.extend(inner.node)
    return graph


def as_tensorflow(data: bytes, found: dict[str, Any]) -> int:
    """Compares with TensorFlow's values of the same bytes, as far as it accepts them."""
    try:
        expected = graphs.constants(graph_pb2.GraphDef.FromString(data))
    except DecodeError:
        return 0
    same = 0
    for name, x in found.items():
        proto = expected.get(name)
        if proto is None:  # a repeated name, or another message
            continue
        try:
            tensor = tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(proto.dtype))
        except (tf.errors.InvalidArgumentError, TypeError, ValueError):
            continue
        if tensor.dtype == tf.string:
            assert x.tolist() == graphs.texts(tensor)
        elif tensor.dtype in (tf.float32, tf.float64, tf.int32, tf.int64, tf.bool, tf.complex64):
            assert np.array_equal(x.numpy(), tensor.numpy(), equal_nan=tensor.dtype != tf.bool)
        same += 1
    return same


def small_model() -> bytes:
    kinds = schema.TensorType
    return tflite_models.made(
        [
            Drawn("w", kinds.INT8, (2, 2), b"\1\2\3\4", [0.5, 0.25], [0, 0], 1),
            Drawn("four", kinds.INT4, (3,), b"\x21\x0f", [0.5], [1]),
            Drawn("names", kinds.STRING, (2,), struct.pack("<4i", 2, 16, 17, 19) + b"abc"),
            Drawn("f", kinds.FLOAT32, (3,), bytes(12)),
        ],
        [Drawn("f", kinds.FLOAT32, (1,), b"1234")],
        names=["main", "other"],
    )


def as_flatbuffers(data: bytes, found: dict[str, Any]) -> int:
    """Compares floats with the package flatbuffers, as far as it reads them."""
    if not found:
        return 0
    with contextlib.suppress(*UNCHECKED):
        same = 0
        model = schema.Model.GetRootAs(data)
        graph = model.Subgraphs(0)
        for i in range(min(graph.TensorsLength(), 10)):
            tensor = graph.Tensors(i)
            x = found.get(tensor.Name().decode("utf-8", "surrogateescape"))
            if not isinstance(x, torch.Tensor) or x.dtype != torch.float32:
                continue
            buffer = model.Buffers(tensor.Buffer())
            if not buffer.DataLength() or buffer.Offset() > 1:
                continue
            assert x.contiguous().view(-1).view(torch.uint8).tolist() == list(buffer.DataAsNumpy())
            same += 1
        return same
    return 0


class Kind(NamedTuple):
    """Two files to damage, and a function that compares the tensors of one with other readers."""

    sources: Callable[[], tuple[bytes, bytes]]
    name: str
    compare: Callable[[bytes, dict[str, Any]], int]


KINDS = {
    "graph": Kind(
        lambda: (small_graph().SerializeToString(), graphs.frozen_1().SerializeToString()),
        "graph.pb",
        as_tensorflow,
    ),
    "model": Kind(
        lambda: (small_model(), tflite_models.converted("float")), "model.tflite", as_flatbuffers
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("runs", "seed"), [(400, 1), pytest.param(30_000, 2, marks=pytest.mark.exhaustive)]
)
def test_damaged_files_are_refused_or_read_as_others_do(
    tmp_path: Path, kind: str, runs: int, seed: int
) -> None:
    sources, name, compare = KINDS[kind]
    files = sources()
    rng = random.Random(seed)
    total: Counter[str] = Counter()
    same = 0
    for i in range(runs):
        data = mutated(files[i % 2], rng)
        path = graphs.write(tmp_path, data, name)
        outcomes, found = read_all(path, raw=kind == "model" and bool(i & 2))
        total += outcomes
        same += compare(data, found)
    assert total["file"] > runs // 10
    assert same > (100 if runs == 400 else 10_000)


@pytest.mark.parametrize("make", [lambda: small_graph().SerializeToString(), small_model])
def test_truncated_files_are_refused_or_read_to_their_end(
    tmp_path: Path, make: Callable[[], bytes]
) -> None:
    good = make()
    total: Counter[str] = Counter()
    for size in range(len(good)):
        total += read_all(graphs.write(tmp_path, good[:size]), raw=True)[0]
    assert total["file"] > len(good) // 2


def test_a_truncated_graph_says_where(tmp_path: Path) -> None:
    good = graphs.frozen_1().SerializeToString()
    path = graphs.write(tmp_path, good[: len(good) // 2])
    with pytest.raises(CheckpointError, match="a GraphDef as a protobuf message") as caught:
        checkpoint.load(path)
    assert caught.value.file == str(path)
    assert 0 < caught.value.offset < len(good)
    model = graphs.write(tmp_path, small_model()[:200], "model.tflite")
    with pytest.raises(CheckpointError, match=r"inside the 200 bytes of the file") as caught:
        checkpoint.load(model)
    assert caught.value.file == str(model)
