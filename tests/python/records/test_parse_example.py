"""parse_example, parse_single_example and parse_sequence_example, one promise at a time.

test_parse_properties.py compares drawn specs and messages with TensorFlow.
"""

from __future__ import annotations

from typing import Any

import example_bytes
import pytest
import tensorflow as tf
import torch

from tensor_bridge import Ragged, StringTensor, records
from tensor_bridge.errors import (
    InvalidOptionError,
    MismatchError,
    RecordError,
    UnsupportedDtypeError,
    UnsupportedTypeError,
)


def example(**features: list[Any]) -> bytes:
    """A serialized tf.train.Example."""
    message = tf.train.Example()
    for key, values in features.items():
        feature = message.features.feature[key]
        if not values:
            continue
        kind = {bytes: "bytes_list", float: "float_list", int: "int64_list"}[type(values[0])]
        getattr(feature, kind).value.extend(values)
    serialized: bytes = message.SerializeToString()
    return serialized


def test_fixed_features_become_tensors_with_the_batch_in_front() -> None:
    batch = [example(x=[1.5, 2.5], n=[3], s=[b"a"]), example(x=[3.5, 4.5], n=[-1], s=[b""])]
    got = records.parse_example(
        batch,
        {
            "x": records.FixedLenFeature((2,), torch.float32),
            "n": records.FixedLenFeature((), "int64"),
            "s": records.FixedLenFeature([], bytes),
        },
    )
    assert torch.equal(got["x"], torch.tensor([[1.5, 2.5], [3.5, 4.5]]))
    assert torch.equal(got["n"], torch.tensor([3, -1]))
    assert got["s"] == StringTensor.from_list([b"a", b""])


def test_the_spec_may_be_tensorflows() -> None:
    spec = {"n": tf.io.FixedLenFeature((), tf.int64), "v": tf.io.VarLenFeature(tf.string)}
    got = records.parse_example([example(n=[3], v=[b"a", b"b"])], spec)
    assert got["n"].tolist() == [3]
    assert isinstance(got["v"], Ragged)
    assert got["v"].to_list() == [[b"a", b"b"]]


def test_a_missing_feature_has_its_default() -> None:
    spec = {
        "x": records.FixedLenFeature((2,), "float32", default_value=[1, 2]),
        "s": records.FixedLenFeature((), bytes, default_value=b"none"),
    }
    got = records.parse_example([b"", example(x=[5.0, 6.0])], spec)
    assert got["x"].tolist() == [[1, 2], [5, 6]]
    assert got["s"].to_bytes() == [b"none", b"none"]


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (records.FixedLenFeature((), "int64"), "missing"),
        (records.VarLenFeature("float32"), None),
    ],
)
def test_a_required_feature_that_is_missing_is_an_error(feature: Any, message: str | None) -> None:
    if message is None:
        assert records.parse_example([b""], {"x": feature})["x"].shape == (1, 0)
        return
    with pytest.raises(RecordError, match=f'record 1, feature "x": .*{message}'):
        records.parse_example([example(x=[1]), b""], {"x": feature})


@pytest.mark.parametrize(
    ("given", "feature", "message"),
    [
        ([1.0], records.FixedLenFeature((), "int64"), "expected int64, got float32"),
        ([1], records.VarLenFeature(bytes), "expected bytes, got int64"),
        ([1, 2], records.FixedLenFeature((), "int64"), "expected 1 values, got 2"),
        (
            [1, 2, 3],
            records.FixedLenSequenceFeature((2,), "int64", allow_missing=True),
            "multiple of 2 values, got 3",
        ),
    ],
)
def test_another_dtype_or_number_of_values_is_an_error(
    given: list[Any], feature: Any, message: str
) -> None:
    with pytest.raises(RecordError, match=message):
        records.parse_example([example(x=given)], {"x": feature})


def test_bytes_that_are_no_example_are_an_error() -> None:
    with pytest.raises(RecordError, match="record 0: expected a tf"):
        records.parse_example([b"\x0a\x05nonsense"], {"x": records.VarLenFeature("int64")})


@pytest.mark.parametrize(
    ("dtype", "remedy"), [("int32", "int64"), (torch.float64, "float32"), (bool, "int64")]
)
def test_a_dtype_that_the_format_lacks_names_the_one_that_stores_it(
    dtype: Any, remedy: str
) -> None:
    with pytest.raises(UnsupportedDtypeError, match=f'ask for "{remedy}"'):
        records.FixedLenFeature((), dtype)


def test_specs_that_mean_nothing_are_refused() -> None:
    wrong: list[tuple[Any, str]] = [
        ({}, "at least one feature"),
        ({"x": 3}, "feature 'x'"),
        ([], "expected a spec"),
        ({"x": records.FixedLenSequenceFeature((), "int64")}, "allow_missing=True"),
        ({"x": records.FixedLenFeature((2,), "int64", default_value=[1])}, "2 default values"),
        ({"x": records.FixedLenFeature((), "int64", default_value=0.5)}, "integers"),
    ]
    for spec, message in wrong:
        with pytest.raises(InvalidOptionError, match=message):
            records.parse_example([b""], spec)


def test_a_single_example_has_no_leading_dimension() -> None:
    serialized = example(n=[3], v=[1, 2], s=[b"a", b"b"])
    got = records.parse_single_example(
        serialized,
        {
            "n": records.FixedLenFeature((), "int64"),
            "v": records.VarLenFeature("int64"),
            "s": records.VarLenFeature(bytes),
        },
    )
    assert got["n"].shape == ()
    assert got["v"].shape == (2,)
    assert got["v"].to_dense().tolist() == [1, 2]
    assert got["s"].tolist() == [b"a", b"b"]
    with pytest.raises(MismatchError, match="one record, got 2"):
        records.parse_single_example(
            [serialized, serialized], {"n": records.VarLenFeature("int64")}
        )


def test_serialized_records_of_another_kind_are_refused() -> None:
    with pytest.raises(UnsupportedTypeError, match="to_torch"):
        records.parse_example(tf.constant([b""]), {"n": records.VarLenFeature("int64")})


def test_a_string_tensor_of_records_is_taken() -> None:
    strings = StringTensor.from_list([example(n=[1]), example(n=[2])])
    got = records.parse_example(strings, {"n": records.FixedLenFeature((), "int64")})
    assert got["n"].tolist() == [1, 2]


# ---- what TensorFlow's parsers accept beyond what writers write ----------------------------------


def _both(serialized: bytes, key: str = "k") -> tuple[Any, Any]:
    """The values that we and TensorFlow read as a ragged int64 feature of a batch of one."""
    ours = records.parse_example([serialized], {key: records.RaggedFeature("int64")})[key]
    theirs = tf.io.parse_example([serialized], {key: tf.io.RaggedFeature(tf.int64)})[key]
    return ours.values().tolist(), theirs.flat_values.numpy().tolist()


ONE, TWO = (example_bytes.feature("int64", [n]) for n in (1, 2))


@pytest.mark.parametrize(
    ("serialized", "values"),
    [
        # The last of two entries is used, also if two messages are concatenated.
        (example_bytes.example([("k", ONE), ("k", TWO)]), [2]),
        (example_bytes.example([("k", ONE)]) + example_bytes.example([("k", TWO)]), [2]),
        # An empty entry overrides it.
        (example_bytes.example([("k", ONE), ("k", b"")]), []),
        # The value comes before the key.
        (
            example_bytes.delimited(
                1, example_bytes.delimited(1, example_bytes.delimited(2, ONE) + b"\x0a\x01k")
            ),
            [1],
        ),
        # The first of two packed blocks is used.
        (
            example_bytes.example(
                [("k", example_bytes.delimited(3, b"\x0a\x01\x05" + b"\x0a\x01\x06"))]
            ),
            [5],
        ),
        # A varint with more bits than an int64.
        (
            example_bytes.example(
                [("k", example_bytes.delimited(3, b"\x0a\x0a" + b"\xff" * 9 + b"\x7f"))]
            ),
            [-1],
        ),
        # A list whose length exceeds its Feature.
        (example_bytes.example([("k", b"\x1a\x63\x0a\x01\x07")]), [7]),
        # Unknown fields of the message.
        (b"\x10\x01" + example_bytes.example([("k", ONE)]) + b"\x7d\1\2\3\4", [1]),
    ],
)
def test_what_tensorflow_accepts_is_read_as_there(serialized: bytes, values: list[int]) -> None:
    assert _both(serialized) == (values, values)


def test_a_single_example_follows_the_parser_of_batches() -> None:
    # TensorFlow's parsers differ here: parse_single_example uses the value before an empty one.
    serialized = example_bytes.example([("k", ONE), ("k", b"")])
    spec = {"k": tf.io.RaggedFeature(tf.int64)}
    assert tf.io.parse_single_example(serialized, spec)["k"].numpy().tolist() == [1]
    assert records.parse_single_example(serialized, spec)["k"].tolist() == []


def test_the_memory_of_a_batch_stays_in_proportion_to_its_records() -> None:
    # A packed list that claims 2 GB and has four bytes.
    damaged = example_bytes.example(
        [("k", b"\x12\x0a" + b"\x0a" + example_bytes.varint(2**31 - 1) + b"\0" * 4)]
    )
    with pytest.raises(RecordError, match="expected a list of float32"):
        records.parse_example([damaged], {"k": records.VarLenFeature("float32")})


def test_results_do_not_refer_to_the_records() -> None:
    block = bytearray(example(s=[b"abc"], n=[7]))
    batch = records.RecordBatch.of([bytes(block)])
    got = records.parse_example(
        batch, {"s": records.FixedLenFeature((), bytes), "n": records.FixedLenFeature((), "int64")}
    )
    batch.owner.zero_()
    assert got["s"].to_bytes() == [b"abc"]
    assert got["n"].tolist() == [7]


def test_errors_of_a_batch_of_a_file_name_the_place() -> None:
    batch = records.RecordBatch.of([example(n=[1]), example(n=[1.5])])
    of_file = records.RecordBatch(
        batch.owner, batch.address, batch.begins, batch.sizes, "somewhere.tfrecord"
    )
    with pytest.raises(RecordError, match="somewhere") as caught:
        records.parse_example(of_file, {"n": records.FixedLenFeature((), "int64")})
    assert caught.value.path == "somewhere.tfrecord"
    assert int(batch.begins[1]) <= caught.value.offset < int(batch.begins[1] + batch.sizes[1])


def test_a_spec_parser_pickles_and_serves_several_threads() -> None:
    import pickle
    from concurrent.futures import ThreadPoolExecutor

    from tensor_bridge.records._spec_parser import SpecParser

    parser = pickle.loads(pickle.dumps(SpecParser({"n": records.FixedLenFeature((), "int64")})))
    batches = [[example(n=[i]), example(n=[i + 1])] for i in range(50)]
    with ThreadPoolExecutor(4) as pool:
        got = pool.map(lambda batch: parser.parse(records.RecordBatch.of(batch)), batches)
    assert [each["n"].tolist() for each in got] == [[i, i + 1] for i in range(50)]
