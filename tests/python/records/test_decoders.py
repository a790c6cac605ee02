"""Raw and TensorProto: the values that decode= makes of strings."""

from __future__ import annotations

from typing import Any

import example_bytes
import pytest
import tensorflow as tf
import torch

from tensor_bridge import Ragged, StringTensor, records, to_torch
from tensor_bridge.errors import InvalidOptionError, RecordError, UnsupportedDtypeError


def batch_of(*strings: list[bytes]) -> list[bytes]:
    return [
        example_bytes.example([("s", example_bytes.feature("bytes", each))]) for each in strings
    ]


@pytest.mark.parametrize(
    "dtype", ["uint8", "int16", "float32", "float64", "int64", "bool", "bfloat16", "complex64"]
)
def test_raw_is_what_decode_raw_makes(dtype: str) -> None:
    bits = bytes(i % 2 for i in range(3 * 48))
    strings = [bits[i : i + 48] for i in (0, 48, 96)]
    count = 48 // getattr(torch, dtype).itemsize
    spec = {"s": records.FixedLenFeature((), bytes, decode=records.Raw(dtype, (count,)))}
    got = records.parse_example(batch_of(*([string] for string in strings)), spec)["s"]
    want = to_torch(tf.io.decode_raw(strings, tf.as_dtype(dtype)))
    assert got.dtype == want.dtype
    assert torch.equal(got, want)


def test_raw_of_shapes() -> None:
    strings = [bytes(range(i, i + 6)) for i in range(4)]
    raw = records.Raw(torch.uint8, (2, 3))
    batch = batch_of(strings[:2], strings[2:])
    got = records.parse_example(batch, {"s": records.FixedLenFeature((2,), bytes, decode=raw)})["s"]
    assert got.shape == (2, 2, 2, 3)
    assert got[1, 0].tolist() == [[2, 3, 4], [5, 6, 7]]
    single = {"s": records.FixedLenFeature((2,), bytes, decode=raw)}
    assert records.parse_single_example(batch[0], single)["s"].shape == (2, 2, 3)
    several = records.parse_example(batch, {"s": records.RaggedFeature(bytes, decode=raw)})["s"]
    assert several.is_nested
    assert several.values().shape == (4, 2, 3)


def test_raw_refuses_strings_of_another_size() -> None:
    spec = {"s": records.FixedLenFeature((), bytes, decode=records.Raw("int32", (2,)))}
    with pytest.raises(RecordError, match=r"string 1: expected 8 bytes .* got 7"):
        records.parse_example(batch_of([b"12345678"], [b"1234567"]), spec)


def test_decoders_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UnsupportedDtypeError, match="share"):
        records.Raw("string", (1,))
    with pytest.raises(InvalidOptionError, match="known sizes"):
        records.Raw("int64", (-1,))
    with pytest.raises(InvalidOptionError, match="for features of bytes"):
        records.FixedLenFeature((), "int64", decode=records.Raw("int64"))
    with pytest.raises(InvalidOptionError, match=r"records\.Raw"):
        records.FixedLenFeature((), bytes, decode=3)  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="dtype and shape"):
        records.TensorProto(dtype="int64")


@pytest.mark.parametrize(
    "tensor",
    [
        tf.constant([[1.5, 2.5]]),
        tf.constant(7, tf.int64),
        tf.zeros((0, 3)),
        tf.constant([1, 2], tf.uint16),
        tf.constant([[True], [False]]),
        tf.constant([0.5, 1.5], tf.bfloat16),
        tf.constant([1 + 2j]),
        tf.constant([[b"a", b""]]),
    ],
    ids=lambda t: str(t.dtype.name),
)
def test_tensor_protos_are_what_parse_tensor_makes(tensor: Any) -> None:
    spec = {"s": records.FixedLenFeature((), bytes, decode=records.TensorProto())}
    serialized = tf.io.serialize_tensor(tensor).numpy()
    (got,) = records.parse_example(batch_of([serialized]), spec)["s"]
    want = to_torch(tensor)
    if isinstance(want, StringTensor):
        assert got == want
        return
    assert got.dtype == want.dtype
    assert torch.equal(got, want)


def test_tensor_protos_of_one_dtype_and_shape_are_stacked() -> None:
    protos = [tf.io.serialize_tensor(tf.constant([i, i + 1])).numpy() for i in range(3)]
    decode = records.TensorProto("int32", (2,))
    spec = {"s": records.FixedLenFeature((), bytes, decode=decode)}
    got = records.parse_example(batch_of(*([proto] for proto in protos)), spec)["s"]
    assert got.tolist() == [[0, 1], [1, 2], [2, 3]]
    other = tf.io.serialize_tensor(tf.constant([1, 2, 3])).numpy()
    with pytest.raises(RecordError, match=r"expected int32 of shape \(2,\)"):
        records.parse_example(batch_of([other]), spec)


def test_tensor_protos_of_a_variable_number_are_nested_lists() -> None:
    proto = tf.io.serialize_tensor(tf.constant([1])).numpy()
    spec = {"s": records.VarLenFeature(bytes, decode=records.TensorProto())}
    got = records.parse_example(batch_of([proto, proto], []), spec)["s"]
    assert [[t.tolist() for t in row] for row in got] == [[[1], [1]], []]


@pytest.mark.parametrize("damage", [b"", b"\x08", b"nonsense", b"\x08\x01\x12\x04\x12\x02\x08\x7f"])
def test_damaged_tensor_protos_are_refused_or_read(damage: bytes) -> None:
    spec = {"s": records.FixedLenFeature((), bytes, decode=records.TensorProto("float32", (1,)))}
    with pytest.raises(RecordError):
        records.parse_example(batch_of([damage]), spec)


def test_a_decoder_of_the_callers_own_gets_the_strings() -> None:
    class Lengths:
        def decode(self, strings: StringTensor) -> torch.Tensor:
            return strings.offsets.diff().reshape(strings.shape)

    spec = {
        "s": records.FixedLenFeature((), bytes, decode=Lengths()),
    }
    assert records.parse_example(batch_of([b"ab"], [b""]), spec)["s"].tolist() == [2, 0]
    var = {"s": records.VarLenFeature(bytes)}
    assert isinstance(records.parse_example(batch_of([b"ab"]), var)["s"], Ragged)
