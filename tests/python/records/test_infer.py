"""infer: a spec proposed from records."""

from __future__ import annotations

from pathlib import Path

import example_bytes
import pytest
import tensorflow as tf

from tensor_bridge import records
from tensor_bridge.errors import RecordError
from tensor_bridge.records._infer import infer_from

feature, example = example_bytes.feature, example_bytes.example


def test_keys_of_every_record_are_fixed_and_others_of_variable_length() -> None:
    batch = [
        example([("n", feature("int64", [1])), ("x", feature("float32", [1, 2]))]),
        example(
            [
                ("x", feature("float32", [3, 4])),
                ("n", feature("int64", [1], packed=False)),
                ("s", feature("bytes", [b"a"])),
                ("v", feature("int64", [])),
            ]
        ),
    ]
    spec = infer_from(batch)
    assert spec == {
        "n": records.FixedLenFeature((), "int64"),
        "s": records.VarLenFeature("bytes"),
        "v": records.VarLenFeature("int64"),
        "x": records.FixedLenFeature((2,), "float32"),
    }
    pasted = eval(repr(spec), {"records": records})
    assert pasted == spec
    assert set(records.parse_example(batch, spec)) == {"n", "s", "v", "x"}


def test_feature_lists_make_a_spec_of_sequences() -> None:
    rows = example_bytes.feature_list([feature("int64", [1, 2]), feature("int64", [3, 4])])
    ragged = example_bytes.feature_list([feature("bytes", [b"a"]), b"", feature("bytes", [])])
    batch = [
        example_bytes.sequence_example(
            [("id", feature("bytes", [b"x"]))], [("rows", rows), ("words", ragged)]
        )
    ]
    spec = infer_from(batch)
    assert spec == records.SequenceFeatures(
        {"id": records.FixedLenFeature((), "bytes")},
        {
            "rows": records.FixedLenSequenceFeature((2,), "int64"),
            "words": records.VarLenFeature("bytes"),
        },
    )
    assert eval(repr(spec), {"records": records}) == spec
    context, sequence, lengths = records.parse_sequence_example(batch, spec.context, spec.sequence)
    assert context["id"].to_bytes() == [b"x"]
    assert sequence["rows"].tolist() == [[[1, 2], [3, 4]]]
    assert sequence["words"].to_list() == [[[b"a"], [], []]]
    assert lengths["rows"].tolist() == [2]


def test_files_are_looked_at_up_to_a_number_of_records(tmp_path: Path) -> None:
    for name, dtypes in (("a", ["int64", "int64"]), ("b", ["int64", "float32"])):
        with tf.io.TFRecordWriter(str(tmp_path / name)) as writer:
            for dtype in dtypes:
                writer.write(example([("x", feature(dtype, [1]))]))
    assert records.infer(tmp_path / "*", records=3) == {"x": records.FixedLenFeature((), "int64")}
    with pytest.raises(RecordError, match="float32 and int64"):
        records.infer(tmp_path / "*")


def test_records_that_are_no_examples_and_keys_of_two_dtypes_are_refused() -> None:
    with pytest.raises(RecordError, match="expected a tf"):
        infer_from([b"nonsense"])
    with pytest.raises(RecordError, match="one dtype in all records, got float32 and int64"):
        infer_from(
            [example([("x", feature("int64", [1]))]), example([("x", feature("float32", [1.0]))])]
        )
    with pytest.raises(RecordError, match="got none"):
        infer_from([])


def test_other_messages_that_can_be_read_as_examples_are_refused() -> None:
    """Files of TensorBoard and of TensorFlow Ranking are TFRecord files of other messages."""
    first = example([("utility", feature("int64", [1])), ("text", feature("bytes", [b"a word"]))])
    ranked = example_bytes.delimited(1, first) + example_bytes.delimited(2, first)
    assert tf.train.Example.FromString(ranked).features.feature
    with pytest.raises(RecordError, match="ExampleListWithContext"):
        infer_from([ranked])
    event = b"\x09" + bytes(8) + example_bytes.delimited(3, b"brain.Event:2")
    with pytest.raises(RecordError, match="no features, as other messages"):
        infer_from([event])
    assert infer_from([b"", b"\n\0"]) == {}
