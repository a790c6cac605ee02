"""Frozen graphs: the constants that TensorFlow's freezer writes, compared with TensorFlow."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import graphs
import needs
import numpy as np
import pytest
import tensorflow as tf
import torch
from tensorflow.core.framework import graph_pb2, tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from torch import nn

import tensor_bridge
from tensor_bridge import CheckpointError, UnsupportedDtypeError, checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def assert_same(found: Any, proto: Any) -> None:
    """Asserts the same bytes as TensorFlow's C++ reads from a message."""
    expected = tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(proto.dtype))
    if expected.dtype == tf.string:
        assert found.tolist() == graphs.texts(expected)
        return
    wanted = tensor_bridge.to_torch(expected, raw=True)
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    if "int4" in expected.dtype.name:
        wanted = wanted & 15  # TensorFlow may keep higher bits, which are not part of the value
    assert found.reshape(-1).view(torch.uint8).equal(wanted.reshape(-1).view(torch.uint8))


@pytest.mark.parametrize(
    "graph", [graphs.frozen_1, lambda: graphs.frozen_2(True), lambda: graphs.frozen_2(False)]
)
def test_every_constant_of_a_frozen_graph_is_read(tmp_path: Path, graph: Any) -> None:
    graph = graph()
    loaded = checkpoint.load(graphs.write(tmp_path, graph))
    assert loaded.format == "frozen_graph"
    expected = graphs.constants(graph)
    assert {entry.name for entry in loaded.all_entries} == set(expected)
    assert [entry.kind for entry in loaded.all_entries].count("variable") == len(loaded)
    for entry in loaded.all_entries:
        assert_same(entry.read(True), expected[entry.name])
        if entry.dtype != "string":
            assert np.array_equal(entry.read(False).numpy(), tf.make_ndarray(expected[entry.name]))


def test_what_a_freezer_made_of_variables_is_a_variable(tmp_path: Path) -> None:
    first = checkpoint.load(graphs.write(tmp_path, graphs.frozen_1()))
    # `scale` was an integer variable; a shape was not a variable.
    assert set(first) == {"dense/kernel", "dense/bias", "scale"}
    assert first["scale"].item() == 7
    assert set(first.metadata) == {"Reshape/shape"}
    second = checkpoint.load(graphs.write(tmp_path, graphs.frozen_2(True), "two.pb"))
    assert {name for name in second if second[name].dtype == torch.int32} == {
        "ReadVariableOp/resource"
    }
    assert second.metadata["Const_1"].tolist() == [b"a", b"b\xc3\xbf"]


def test_constants_of_functions_have_their_name_before_them(tmp_path: Path) -> None:
    graph = graphs.frozen_2(False)
    names = list(checkpoint.load(graphs.write(tmp_path, graph)))
    functions = {f.signature.name for f in graph.library.function}
    assert len(functions) == 2
    assert {name.split("/")[0] for name in names} >= functions


def test_names_that_are_taken_get_a_number(tmp_path: Path) -> None:
    one = graphs.graph_of(w=graphs.tensor(1, [], float_val=[1]))
    saved = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    for _ in range(3):
        saved.meta_graphs.add().graph_def.CopyFrom(one)
    loaded = checkpoint.load(graphs.write(tmp_path, saved))
    assert list(loaded) == ["w", "w#2", "w#3"]
    assert {entry.key for entry in loaded.all_entries} == {"w"}


def test_graphs_are_found_in_saved_models_and_meta_graphs(tmp_path: Path) -> None:
    graph = graphs.frozen_1()
    meta = meta_graph_pb2.MetaGraphDef(graph_def=graph)
    meta.meta_info_def.tensorflow_version = "2"
    meta.meta_info_def.stripped_op_list.op.add(name="Const")
    saved = saved_model_pb2.SavedModel(saved_model_schema_version=1, meta_graphs=[meta])
    model = tmp_path / "model"
    model.mkdir()
    graphs.write(model, saved, "saved_model.pb")
    plain = checkpoint.load(graphs.write(tmp_path, graph))
    for path in (
        graphs.write(tmp_path, meta, "step.meta"),
        graphs.write(tmp_path, saved, "anything"),
        model,
    ):
        loaded = checkpoint.load(path)
        assert loaded.format == "frozen_graph"
        assert list(loaded) == list(plain)
        assert loaded["dense/kernel"].equal(plain["dense/kernel"])


def test_the_freezer_and_tensorflow_agree_on_a_saved_model(tmp_path: Path) -> None:
    model = tf.Module()
    weights = tf.constant(np.arange(600, dtype=np.float32).reshape(20, 30))
    model.call = tf.function(lambda x: x @ weights, input_signature=[tf.TensorSpec((1, 20))])
    tf.saved_model.save(model, str(tmp_path / "saved"))
    loaded = checkpoint.load(tmp_path / "saved")
    assert [x.shape for x in loaded.values() if x.ndim == 2] == [(20, 30)]
    assert any(x.equal(torch.arange(600.0).view(20, 30)) for x in loaded.values())


def test_a_graph_as_text_is_refused_by_name(tmp_path: Path) -> None:
    graph = graphs.frozen_1()
    # Like write_graph(as_text=True), which fails in TensorFlow 2.20 with protobuf 7.
    (tmp_path / "graph.pbtxt").write_text(str(graph))
    tf.io.write_graph(graph, str(tmp_path), "graph.pb", as_text=False)
    assert len(checkpoint.load(tmp_path / "graph.pb")) == 3
    with pytest.raises(
        CheckpointError, match=r"got one as text \(.pbtxt\).*as_text=False"
    ) as caught:
        checkpoint.load(tmp_path / "graph.pbtxt")
    assert caught.value.file == str(tmp_path / "graph.pbtxt")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0a\x03abc",
        graph_pb2.GraphDef().SerializeToString(),
        tensor_pb2.TensorProto(dtype=1, float_val=[1, 2]).SerializeToString(),
        # ONNX: its version and its producer.
        b"\x08\x0a\x12\x07pytorch\x1a\x031.0\x3a\x10" + bytes(16),
        meta_graph_pb2.MetaGraphDef.MetaInfoDef(tags=["serve"]).SerializeToString(),
        b"node of a story",
    ],
)
def test_other_files_are_no_graphs(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(tensor_bridge.UnsupportedFileError, match=r"graph \(\.pb\).*got an?"):
        checkpoint.load(graphs.write(tmp_path, data))


def test_aligned_constants_are_views_of_the_file(tmp_path: Path) -> None:
    """Of four names, each a byte longer, one puts the values at a multiple of four."""
    values = np.arange(1000, dtype=np.float32).tobytes()
    shared = 0
    for i in range(4):
        graph = graphs.graph_of(
            **{"w" * (i + 1): graphs.tensor(1, [10, 100], tensor_content=values)}
        )
        path = graphs.write(tmp_path, graph, f"{i}.pb")
        [entry] = checkpoint.load(path).entries.values()
        assert path.read_bytes()[entry.offset :][: entry.nbytes] == values
        one, two = entry.read(False), entry.read(False)
        assert one.equal(torch.arange(1000.0).view(10, 100))
        aliased = one.data_ptr() == two.data_ptr()
        assert aliased == (entry.offset % 4 == 0)
        shared += aliased
        one[0, 0] = 5
        assert two[0, 0] == (5 if aliased else 0)
        assert path.read_bytes()[entry.offset :][:4] == bytes(4)
    assert shared == 1


# --- values in fields, by TensorFlow's rule ------------------------------------------------------

INTEGERS = {3: 4, 4: 1, 5: 2, 6: 1, 11: 1, 12: 1, 13: 4, 15: 2, 16: 2, 17: 2, 29: 1, 30: 1}
FIELDS = {
    **dict.fromkeys(INTEGERS, "int_val"),
    1: "float_val",
    2: "double_val",
    7: "string_val",
    8: "scomplex_val",
    9: "int64_val",
    10: "bool_val",
    14: "half_val",
    18: "dcomplex_val",
    19: "half_val",
    22: "uint32_val",
    23: "uint64_val",
    24: "float8_val",
    25: "float8_val",
}
SIZES = {
    1: 4,
    2: 8,
    8: 8,
    9: 8,
    10: 1,
    14: 2,
    18: 16,
    19: 2,
    22: 4,
    23: 8,
    24: 1,
    25: 1,
    **INTEGERS,
}


def _values(dtype: int, count: int, rng: random.Random) -> Any:
    field = FIELDS[dtype]
    if field == "float8_val":
        return rng.randbytes(count)
    if field == "string_val":
        return [rng.randbytes(rng.choice([0, 1, 200])) for _ in range(count)]
    if field == "bool_val":
        return [rng.random() < 0.5 for _ in range(count)]
    if field.startswith("uint"):
        return [rng.getrandbits(32 if dtype == 22 else 64) for _ in range(count)]
    if field in ("int_val", "half_val", "int64_val"):
        bits = 63 if dtype == 9 else 31
        return [rng.getrandbits(bits) - rng.getrandbits(bits) for _ in range(count)]
    return [rng.gauss(0, 1) for _ in range(count)]


def _unpacked(proto: Any) -> bytes:
    """The fields of fixed width with one value each, which TensorFlow before 1.0 could write."""
    rest = tensor_pb2.TensorProto()
    rest.CopyFrom(proto)
    data = b""
    for name, number, pack in (("float_val", 5, "<f4"), ("double_val", 6, "<f8")):
        wire = 5 if pack == "<f4" else 1
        for value in getattr(proto, name):
            data += bytes([number << 3 | wire]) + np.array(value, pack).tobytes()
        rest.ClearField(name)
    return bytes(rest.SerializeToString() + data)


def _draw(rng: random.Random) -> Any:
    dtype = rng.choice(sorted(FIELDS))
    shape = [rng.choice([0, 1, 2, 3, 5]) for _ in range(rng.randint(0, 3))]
    count = int(np.prod(shape))
    if dtype in SIZES and count and rng.random() < 0.25:
        content = rng.randbytes(count * SIZES[dtype])
        if dtype == 10:
            content = bytes(byte & 1 for byte in content)
        if dtype in (29, 30):
            content = bytes(byte & 15 for byte in content)
        return graphs.tensor(dtype, shape, tensor_content=content)
    there = rng.choice([0, 1, 2, count, count + 1, 2 * count])
    return graphs.tensor(dtype, shape, **{FIELDS[dtype]: _values(dtype, there, rng)})


def _check_drawn(folder: Path, draws: int, seed: int) -> None:
    rng = random.Random(seed)
    known = {row.tf_enum for row in needs.rows()}
    protos = {f"t{i}": _draw(rng) for i in range(draws)}
    protos = {name: proto for name, proto in protos.items() if proto.dtype in known}
    assert len({proto.dtype for proto in protos.values()}) > 10
    data = graphs.graph_of(**protos).SerializeToString()
    loaded = checkpoint.load(graphs.write(folder, data))
    by_name = {entry.name: entry for entry in loaded.all_entries}
    for name, proto in protos.items():
        assert_same(by_name[name].read(True), proto)


def test_drawn_messages_are_what_tensorflow_makes_of_them(tmp_path: Path) -> None:
    _check_drawn(tmp_path, 300, 1)


@pytest.mark.exhaustive
def test_many_drawn_messages_are_what_tensorflow_makes_of_them(tmp_path: Path) -> None:
    for seed in range(50):
        _check_drawn(tmp_path, 1000, seed)


def test_values_one_at_a_time(tmp_path: Path) -> None:
    for dtype in (1, 2):
        proto = graphs.tensor(dtype, [5], **{FIELDS[dtype]: [1, 2.5, -3]})
        node = graphs.graph_of(w=proto).SerializeToString()
        packed = proto.SerializeToString()
        unpacked = _unpacked(proto)
        assert unpacked != packed
        parsed = tensor_pb2.TensorProto.FromString(unpacked)
        assert parsed == proto
        value = b"\x42" + bytes([len(unpacked)]) + unpacked
        attribute = b"\x0a\x05value\x12" + bytes([len(value)]) + value
        node = b"\x0a\x01w\x12\x05Const\x2a" + bytes([len(attribute)]) + attribute
        loaded = checkpoint.load(graphs.write(tmp_path, b"\x0a" + bytes([len(node)]) + node))
        assert loaded["w"].tolist() == [1, 2.5, -3, -3, -3]


def test_every_dtype_is_read(tmp_path: Path) -> None:
    """Each dtype of the table becomes the same as from TensorFlow's tensors, exact and raw."""
    seen = 0
    for row in needs.rows():
        if row.tf_enum not in FIELDS or row.name == "string":
            continue
        proto = graphs.tensor(
            row.tf_enum,
            [3],
            **{FIELDS[row.tf_enum]: b"\1\2" if FIELDS[row.tf_enum] == "float8_val" else [1, 2, 3]},
        )
        loaded = checkpoint.load(graphs.write(tmp_path, graphs.graph_of(w=proto)))
        [entry] = loaded.all_entries
        assert entry.dtype == row.name
        if row.kind == "quantized":
            with pytest.raises(UnsupportedDtypeError, match=r"entry 'w'.*raw=True"):
                entry.read(False)
        else:
            expected = tf.io.parse_tensor(proto.SerializeToString(), row.tf_enum)
            found = entry.read(False)
            assert found.dtype == tensor_bridge.to_torch(expected).dtype
            assert found.tolist() == tensor_bridge.to_torch(expected).tolist()
        seen += 1
    assert seen > 12


# --- wrong claims and mismatches -----------------------------------------------------------------


def test_one_value_repeated_is_made_when_it_is_read(tmp_path: Path) -> None:
    graph = graphs.graph_of(
        zeros=graphs.tensor(1, [1000, 1000]),
        huge=graphs.tensor(1, [1 << 20, 1 << 20], float_val=[1]),
        strings=graphs.tensor(7, [1 << 40], string_val=[b"ab"]),
        long=graphs.tensor(7, [1 << 20], string_val=[b"x" * 2000]),
    )
    loaded = checkpoint.load(graphs.write(tmp_path, graph))
    assert loaded["zeros"].shape == (1000, 1000)
    assert not loaded["zeros"].any()
    assert loaded.entries["huge"].shape == (1 << 20, 1 << 20)
    assert loaded.entries["huge"].nbytes < 50
    with pytest.raises(CheckpointError, match=r"at most 1073741824 bytes.*for 4398046511104"):
        loaded["huge"]
    for name in ("strings", "long"):
        with pytest.raises(CheckpointError, match=f"entry '{name}'.*at most 1073741824 bytes"):
            loaded.metadata[name]


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (graphs.tensor(1, [2], tensor_content=b"abc"), "expected 8 bytes for 2 elements"),
        (graphs.tensor(1, [-1], float_val=[1]), "dimensions of at least 0, got size -1"),
        (graphs.tensor(1, [1 << 40, 1 << 40]), "a shape that memory can hold"),
        (graphs.tensor(1, [0, 1 << 62, 1 << 62]), "a shape that memory can hold"),
    ],
)
def test_constants_that_cannot_be_are_refused_with_their_place(
    tmp_path: Path, proto: Any, message: str
) -> None:
    path = graphs.write(tmp_path, graphs.graph_of(first=graphs.tensor(1, []), bad=proto))
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.load(path)
    assert caught.value.file == str(path)
    assert caught.value.entry == "bad"
    assert 0 < caught.value.offset < path.stat().st_size


def test_dtypes_that_nobody_can_read_leave_the_rest(tmp_path: Path) -> None:
    graph = graphs.graph_of(
        w=graphs.tensor(1, [1], float_val=[4]),
        handle=graphs.tensor(20, [1]),
        new=graphs.tensor(99, [1]),
        none=graphs.tensor(0, []),
    )
    loaded = checkpoint.load(graphs.write(tmp_path, graph))
    assert loaded["w"].tolist() == [4]
    for name, message in [
        ("handle", "a resource is a C.. object"),
        ("new", "no TensorFlow up to .* number 99"),
        ("none", "number 0"),
    ]:
        with pytest.raises(UnsupportedDtypeError, match=f"entry '{name}'.*{message}"):
            loaded.metadata[name]


# --- other functions for checkpoints -------------------------------------------------------------


def test_a_frozen_graph_goes_into_a_module_and_a_file(tmp_path: Path) -> None:
    path = graphs.write(tmp_path, graphs.frozen_1())
    loaded = checkpoint.load(path)

    module = nn.ModuleDict({"dense": nn.Linear(4, 3)})
    report = checkpoint.load_into(module, path, rules=[("^scale$", None)])
    assert report.complete
    assert module["dense"].weight.equal(loaded["dense/kernel"].t())

    from safetensors.torch import load_file

    [written] = checkpoint.convert(path, tmp_path / "weights.safetensors")
    assert {n: x.tolist() for n, x in load_file(written).items()} == {
        n: x.tolist() for n, x in loaded.items()
    }
    [written] = checkpoint.convert(path, tmp_path / "weights.pt")
    assert {n: x.tolist() for n, x in torch.load(written).items()} == {
        n: x.tolist() for n, x in loaded.items()
    }
    assert list(loaded.problems()) == []
