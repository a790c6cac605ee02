"""Writer: TensorFlow and we read its records back; files are complete or do not exist."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import torch

from tensor_bridge import Ragged, StringTensor, records, to_torch
from tensor_bridge.errors import (
    InvalidOptionError,
    MismatchError,
    UnsupportedDtypeError,
    UnsupportedTypeError,
)

SPEC = {
    "fixed": records.FixedLenFeature((2,), "float32"),
    "n": records.FixedLenFeature((), "int64", default_value=-7),
    "name": records.FixedLenFeature((), bytes),
    "rows": records.FixedLenSequenceFeature((2,), "int64", allow_missing=True),
    "var": records.VarLenFeature("float32"),
    "words": records.VarLenFeature(bytes),
    "ragged": records.RaggedFeature("int64"),
}
TF_SPEC = {
    "fixed": tf.io.FixedLenFeature((2,), tf.float32),
    "n": tf.io.FixedLenFeature((), tf.int64, default_value=-7),
    "name": tf.io.FixedLenFeature((), tf.string),
    "rows": tf.io.FixedLenSequenceFeature((2,), tf.int64, allow_missing=True),
    "var": tf.io.VarLenFeature(tf.float32),
    "words": tf.io.VarLenFeature(tf.string),
    "ragged": tf.io.RaggedFeature(tf.int64),
}
EXAMPLES: list[dict[str, Any]] = [
    {
        "fixed": torch.tensor([1.5, -0.0]),
        "n": 2**63 - 1,
        "name": "grüße",
        "rows": torch.arange(6).reshape(3, 2),
        "var": torch.tensor([1.0, 2.0]).to_sparse(),
        "words": [b"a", b"", b"\0"],
        "ragged": [1, -1, -(2**63)],
    },
    {"fixed": [3, 4], "name": b"", "var": [], "words": StringTensor.from_list([b"x"])},
]


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, Ragged):
        return bool(a.to_list() == b.to_list())
    if isinstance(a, StringTensor):
        return bool(a == b)
    if a.is_nested:
        return [x.tolist() for x in a.unbind()] == [x.tolist() for x in b.unbind()]
    if a.layout is torch.sparse_coo:
        a, b = a.to_dense(), b.to_dense()
    return bool(torch.equal(a, b))


@pytest.mark.parametrize("compression", ["", "GZIP", "ZLIB"])
def test_tensorflow_reads_what_is_written(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "r"
    with records.Writer(path, SPEC, compression=compression) as writer:
        for example in EXAMPLES:
            writer.write(example)
    raw = [r.numpy() for r in tf.data.TFRecordDataset(str(path), compression_type=compression)]
    by_tensorflow = tf.io.parse_example(raw, TF_SPEC)
    assert by_tensorflow.pop("words").values.numpy().tolist() == [b"a", b"", b"\0", b"x"]
    expected = to_torch(by_tensorflow)
    got = records.parse_example(list(records.RecordFile(path)), SPEC)
    assert got["n"].tolist() == [2**63 - 1, -7]
    assert got["name"].to_bytes() == ["grüße".encode(), b""]
    assert got["words"].to_list() == [[b"a", b"", b"\0"], [b"x"]]
    assert got["rows"].tolist() == [[[0, 1], [2, 3], [4, 5]], [[0, 0], [0, 0], [0, 0]]]
    for key in expected:
        assert equal(got[key], expected[key]), key


def test_a_batch_is_written_as_its_records(tmp_path: Path) -> None:
    spec = {key: feature for key, feature in SPEC.items() if key != "rows"}
    with records.Writer(tmp_path / "a", spec) as writer:
        for example in EXAMPLES:
            writer.write({key: example[key] for key in spec if key in example})
    batch = records.parse_example(list(records.RecordFile(tmp_path / "a")), spec)
    with records.Writer(tmp_path / "b", spec) as writer:
        writer.write_batch(batch)
    again = records.parse_example(list(records.RecordFile(tmp_path / "b")), spec)
    for key in spec:
        assert equal(batch[key], again[key]), key
    strings = StringTensor.from_list([b"one", b"two"])
    with records.Writer(tmp_path / "c") as writer:
        writer.write_batch(strings)
        writer.write_batch([b"three"])
    assert list(records.RecordFile(tmp_path / "c")) == [b"one", b"two", b"three"]


def test_partitions_and_sparse_features_are_written(tmp_path: Path) -> None:
    feature = records.RaggedFeature
    lengths = [2, 0, 1]
    value = Ragged(torch.tensor([5, 6, 7]), (torch.tensor([0, 2, 2, 3]),))
    for partition in (
        feature.RowSplits("p"),
        feature.RowLengths("p"),
        feature.RowStarts("p"),
        feature.RowLimits("p"),
    ):
        spec = {"r": feature("int64", value_key="v", partitions=[partition])}
        with records.Writer(tmp_path / "r", spec, overwrite=True) as writer:
            writer.write({"r": value})
        got = records.RecordDataset(tmp_path / "r", spec)[0]["r"]
        assert [len(row) for row in got.unbind()] == lengths, partition
    sparse = {"s": records.SparseFeature(["i", "j"], "v", "float32", [3, 4])}
    given = torch.tensor([[0.0, 1, 0, 0], [0, 0, 0, 2], [3, 0, 0, 0]]).to_sparse()
    with records.Writer(tmp_path / "s", sparse) as writer:
        writer.write({"s": given})
    assert equal(records.RecordDataset(tmp_path / "s", sparse)[0]["s"], given)


def test_sequence_examples_are_written(tmp_path: Path) -> None:
    spec = records.SequenceFeatures(
        context={"label": records.FixedLenFeature((), "int64")},
        sequence={
            "x": records.FixedLenSequenceFeature((2,), "float32"),
            "words": records.VarLenFeature(bytes),
        },
    )
    with records.Writer(tmp_path / "r", spec) as writer:
        writer.write(
            {
                "context": {"label": 3},
                "sequence": {"x": [[1.0, 2.0], [3.0, 4.0]], "words": [[b"a"], [b"b", b"c"]]},
            }
        )
    raw = list(records.RecordFile(tmp_path / "r"))
    context, lists, _ = tf.io.parse_sequence_example(
        raw,
        {"label": tf.io.FixedLenFeature((), tf.int64)},
        {
            "x": tf.io.FixedLenSequenceFeature((2,), tf.float32),
            "words": tf.io.VarLenFeature(tf.string),
        },
    )
    assert context["label"].numpy().tolist() == [3]
    assert lists["x"].numpy().tolist() == [[[1, 2], [3, 4]]]
    assert lists["words"].values.numpy().tolist() == [b"a", b"b", b"c"]
    got = records.parse_sequence_example(raw, spec.context, spec.sequence)
    assert got[1]["x"].tolist() == [[[1, 2], [3, 4]]]


def test_a_batch_of_sequence_examples_is_written_as_its_records(tmp_path: Path) -> None:
    spec = records.SequenceFeatures(
        context={
            "label": records.FixedLenFeature((), "int64"),
            "tags": records.VarLenFeature(bytes),
            "ids": records.VarLenFeature("int64"),
        },
        sequence={
            "x": records.FixedLenSequenceFeature((2,), "float32"),
            "s": records.FixedLenSequenceFeature((), bytes),
            "words": records.VarLenFeature(bytes),
            "numbers": records.VarLenFeature("int64"),
            "ragged": records.RaggedFeature("float32", row_splits_dtype="int64"),
        },
    )
    with records.Writer(tmp_path / "one", spec) as writer:
        for rows in (2, 0, 3):
            context = {"label": rows, "tags": [b"t"] * (rows // 2), "ids": range(rows)}
            sequence = {
                "x": [[float(i), -i] for i in range(rows)],
                "s": [b"%d" % i for i in range(rows)],
                "words": [[b"w"] * i for i in range(rows)],
                # Its last row has a value in the longest record.
                "numbers": [list(range(i + 1)) for i in range(rows)],
                "ragged": [[0.5] * i for i in range(rows)],
            }
            writer.write({"context": context, "sequence": sequence})
    (batch,) = records.loader(tmp_path / "one", spec)
    with records.Writer(tmp_path / "two", spec) as writer:
        writer.write_batch(batch)
    raw = [list(records.RecordFile(tmp_path / name)) for name in ("one", "two")]
    assert len(raw[1]) == 3
    lists = {
        "x": tf.io.FixedLenSequenceFeature((2,), tf.float32),
        "s": tf.io.FixedLenSequenceFeature((), tf.string),
        "words": tf.io.RaggedFeature(tf.string),
        "numbers": tf.io.VarLenFeature(tf.int64),
        "ragged": tf.io.RaggedFeature(tf.float32),
    }
    context = {
        "label": tf.io.FixedLenFeature((), tf.int64),
        "tags": tf.io.RaggedFeature(tf.string),
        "ids": tf.io.VarLenFeature(tf.int64),
    }
    first, second = (tf.io.parse_sequence_example(each, context, lists) for each in raw)
    for mine, its in zip(second, first, strict=True):
        for key in its:
            a, b = to_torch(mine[key]), to_torch(its[key])
            assert equal(a, b), key
    # Without the lengths padding is written too.
    with records.Writer(tmp_path / "padded", spec) as writer:
        writer.write_batch({**batch, "lengths": {}})
    (padded,) = records.loader(tmp_path / "padded", spec)
    assert padded["lengths"]["x"].tolist() == [3, 3, 3]
    with records.Writer(tmp_path / "wrong", spec) as writer:
        with pytest.raises(MismatchError, match="leading dimension"):
            writer.write_batch({"context": {"label": [1]}, "sequence": {"s": [[b"a"], [b"b"]]}})
        with pytest.raises(UnsupportedTypeError, match="dict of values"):
            writer.write_batch({"context": [1]})
        with pytest.raises(InvalidOptionError, match="no feature 'label'"):
            writer.write_batch({"label": [1]})


def test_shards_get_records_by_turns(tmp_path: Path) -> None:
    with records.Writer(tmp_path / "r", shards=3) as writer:
        for n in range(7):
            writer.write(b"%d" % n)
    names = [f"r-0000{i}-of-00003" for i in range(3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert writer.paths == [str(tmp_path / name) for name in names]
    assert [list(records.RecordFile(path)) for path in writer.paths] == [
        [b"0", b"3", b"6"],
        [b"1", b"4"],
        [b"2", b"5"],
    ]


def test_files_are_there_when_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "r"
    writer = records.Writer(path)
    writer.write(b"x")
    assert not path.exists()
    writer.close()
    assert list(records.RecordFile(path)) == [b"x"]
    with pytest.raises(InvalidOptionError, match="closed"):
        writer.write(b"y")
    with pytest.raises(InvalidOptionError, match="overwrite=True"):
        records.Writer(path)

    def fail() -> None:
        with records.Writer(path, overwrite=True) as writer:
            writer.write(b"y")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert os.listdir(tmp_path) == ["r"]  # noqa: PTH208 - names
    assert list(records.RecordFile(path)) == [b"x"]
    with pytest.raises(InvalidOptionError, match="expected a folder that exists"):
        records.Writer(tmp_path / "missing" / "r")


@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        ("fixed", [1.0], MismatchError, "expected 2 values"),
        ("fixed", torch.tensor([1.0, 2.0], dtype=torch.float64), UnsupportedDtypeError, "float"),
        ("fixed", torch.tensor([1, 2]), UnsupportedDtypeError, "torch.int64"),
        ("n", 0.5, UnsupportedDtypeError, "int64"),
        ("n", "one", UnsupportedTypeError, "expected int64"),
        ("name", 3, UnsupportedTypeError, "expected bytes"),
        ("rows", [1, 2, 3], MismatchError, "multiple of 2"),
        ("more", 1, InvalidOptionError, "no feature 'more'"),
    ],
)
def test_values_that_a_feature_cannot_hold_are_refused(
    tmp_path: Path, key: str, value: Any, error: type[Exception], message: str
) -> None:
    writer = records.Writer(tmp_path / "r", SPEC)
    with pytest.raises(error, match=message):
        writer.write({**EXAMPLES[0], key: value})
    writer.abort()
    assert not list(tmp_path.iterdir())


def test_keywords_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidOptionError, match="compression"):
        records.Writer(tmp_path / "r", compression="BZ2")
    with pytest.raises(InvalidOptionError, match="shard"):
        records.Writer(tmp_path / "r", shards=0)
    with records.Writer(tmp_path / "r") as writer:
        with pytest.raises(UnsupportedTypeError, match="expected bytes"):
            writer.write({"n": 1})
        with pytest.raises(UnsupportedTypeError, match="expected bytes"):
            writer.write_batch({"n": 1})
    with records.Writer(tmp_path / "e", SPEC) as writer:
        with pytest.raises(UnsupportedTypeError, match="dict of values"):
            writer.write(b"raw")
        with pytest.raises(MismatchError, match="one leading dimension"):
            writer.write_batch({"n": torch.arange(2), "name": [b"a"]})
