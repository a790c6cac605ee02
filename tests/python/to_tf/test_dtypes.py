"""Conversion of every torch dtype to TensorFlow, and `dtype=` for dtypes that torch lacks."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import needs
import numpy as np
import pytest
import tensorflow as tf
import torch
from refusals import assert_to_tf_refused, explained
from sharing import assert_own, misaligned, owners, shared_to_tf, tf_bytes, torch_bytes, values
from tf_bytes import NUMERIC, by_name, random_bytes, same_values, torch_tensor, torch_values

import tensor_bridge
from tensor_bridge import CopyRequiredError, DtypeRow, InvalidOptionError, ValueRangeError
from tensor_bridge.testing import live_owners, shares_memory, torch_data_address

SHARED = [row for row in NUMERIC if row.kind == "shared"]
ENCODED = ["int4", "uint4", "int2", "uint2", "float4_e2m1fn", "float8_e4m3b11fnuz"]
INTEGERS = {"int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}
FLOATS = ["float4_e2m1fn", "float8_e4m3b11fnuz"]
QUANTIZED = {
    "qint8": torch.int8,
    "quint8": torch.uint8,
    "qint16": torch.int16,
    "quint16": torch.uint16,
    "qint32": torch.int32,
}
INTEGER_DTYPES = [
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32),
]
FLOAT_DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


# ---- dtypes that both have -----------------------------------------------------------------------


@needs.shares_to_tf
@pytest.mark.parametrize("row", SHARED, ids=by_name)
def test_shared_until_the_write(row: DtypeRow, interface: Any) -> None:
    data = random_bytes(row, 6)
    kept = shared_to_tf(torch_tensor(row, (2, 3), data), interface.convert_pytorch_to_tf)
    assert kept.tf.dtype.name == row.name
    assert kept.tf.shape == (2, 3)
    assert kept.before == data
    kept.torch[0, 0] = 1
    kept.assert_moved()
    assert torch_bytes(kept.torch)[row.itemsize :] == data[row.itemsize :]


@pytest.mark.parametrize("row", SHARED, ids=by_name)
@pytest.mark.parametrize("copy", [None, pytest.param(False, marks=needs.shares_to_tf), True])
@pytest.mark.parametrize("dtype", [False, True])
def test_explain_says_what_a_conversion_does(
    row: DtypeRow, copy: bool | None, dtype: bool, interface: Any
) -> None:
    x = torch_tensor(row, (2, 3), random_bytes(row, 6))
    options: dict[str, Any] = {"copy": copy} | ({"dtype": row.name} if dtype else {})
    explanation = explained(interface, x, **options)
    t = interface.to_tf(x, **options)
    assert explanation.action == ("shared" if shares_memory(t, x) else "copied")
    assert explanation.action == ("copied" if copy is True else needs.SHARED_TO_TF)
    assert explanation.tf_dtype == t.dtype.name == row.name
    assert explanation.torch_dtype == str(x.dtype)
    assert explanation.shape == (2, 3)
    assert explanation.nbytes == x.nbytes
    assert explanation.device == "CPU:0"
    assert explanation.on_write is None
    assert explanation.error is None
    assert tf_bytes(t) == torch_bytes(x)


@pytest.mark.parametrize("row", SHARED, ids=by_name)
def test_strided_and_misaligned_copies_are_exact(row: DtypeRow, interface: Any) -> None:
    data = random_bytes(row, 24)
    x = torch_tensor(row, (4, 6), data)
    size = row.itemsize
    columns = [data[i * size : (i + 1) * size] for j in range(6) for i in range(j, 24, 6)]
    assert tf_bytes(interface.to_tf(x.t())) == b"".join(columns)
    moved = misaligned(size, x.view(torch.uint8).view(-1)).view(x.dtype)
    t = interface.to_tf(moved)
    assert tf_bytes(t) == data
    assert_own(t, moved)


@pytest.mark.parametrize("row", SHARED, ids=by_name)
def test_values_agree_with_tensorflow_s(row: DtypeRow) -> None:
    """The same bytes mean the same numbers on both sides."""
    x = torch_tensor(row, (8,), random_bytes(row, 8))
    t = tensor_bridge.to_tf(x)
    wide = tf.complex128 if t.dtype.is_complex else tf.float64 if t.dtype.is_floating else t.dtype
    if t.dtype.name.startswith("float8"):
        seen = t.numpy().astype(np.float64).tolist()
    else:
        seen = tf.cast(t, wide).numpy().tolist()
    expected = (x.to(torch.complex128) if x.is_complex() else x).reshape(-1)
    if t.dtype.is_complex:
        assert list(map(repr, seen)) == list(map(repr, expected.tolist()))
    else:
        assert same_values(seen, torch_values(expected))


# ---- dtype= --------------------------------------------------------------------------------------


def stored(name: str, numbers: list[float]) -> bytes:
    """TensorFlow's bytes for the numbers, computed with ml_dtypes; one element per byte."""
    array = np.array(numbers).astype(getattr(ml_dtypes, name))
    bits = {"int4": 15, "uint4": 15, "int2": 3, "uint2": 3, "float4_e2m1fn": 15}.get(name, 255)
    return bytes(byte & bits for byte in array.view(np.uint8).tolist())


def all_values(name: str) -> list[float]:
    if name in INTEGERS:
        low, high = INTEGERS[name]
        return list(range(low, high + 1))
    if name == "float4_e2m1fn":
        magnitudes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
        return magnitudes + [-m for m in magnitudes]
    every = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3b11fnuz)
    return [v for v in every.astype(np.float64).tolist() if not math.isnan(v)]


@pytest.mark.parametrize("name", needs.dtypes(ENCODED))
@pytest.mark.parametrize("written", ["name", "tf.DType", "number"])
def test_every_value_is_encoded_exactly(name: str, written: str, interface: Any) -> None:
    numbers = all_values(name)
    dtype = tf.as_dtype(name)
    x = torch.tensor(numbers, dtype=torch.int32 if name in INTEGERS else torch.float32)
    argument = {"name": name, "tf.DType": dtype, "number": dtype.as_datatype_enum}[written]
    with owners():
        t = interface.to_tf(x, dtype=argument)
    assert t.dtype == dtype
    assert t.shape == x.shape
    assert tf_bytes(t) == stored(name, numbers)
    assert_own(t, x)
    again = tensor_bridge.to_torch(t)
    assert same_values(torch_values(again), torch_values(x.to(again.dtype)))


@pytest.mark.parametrize("name", needs.dtypes(INTEGERS))
@pytest.mark.parametrize("dtype", INTEGER_DTYPES, ids=str)
def test_every_integer_dtype_is_a_source(name: str, dtype: torch.dtype, interface: Any) -> None:
    numbers = [v for v in all_values(name) if v >= 0 or dtype.is_signed]
    t = interface.to_tf(torch.tensor(numbers).to(dtype), dtype=name)
    assert tf_bytes(t) == stored(name, numbers)


@pytest.mark.parametrize("name", needs.dtypes(FLOATS))
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_every_float_dtype_is_a_source(name: str, dtype: torch.dtype, interface: Any) -> None:
    numbers = all_values(name)
    t = interface.to_tf(torch.tensor(numbers).to(dtype), dtype=name)
    assert tf_bytes(t) == stored(name, numbers)


@pytest.mark.parametrize("name", needs.dtypes(INTEGERS))
@pytest.mark.parametrize("dtype", INTEGER_DTYPES, ids=str)
@pytest.mark.parametrize("index", [0, 7])
def test_integers_out_of_range_are_refused(
    name: str, dtype: torch.dtype, index: int, interface: Any
) -> None:
    low, high = INTEGERS[name]
    for bad in {low - 1, high + 1, torch.iinfo(dtype).max, torch.iinfo(dtype).min}:
        if low <= bad <= high or not torch.iinfo(dtype).min <= bad <= torch.iinfo(dtype).max:
            continue
        x = torch.zeros(8, dtype=torch.int64)
        x[index] = bad
        x = x.to(dtype)
        with (
            owners(),
            pytest.raises(
                ValueRangeError, match=rf"element {index} is .* {name} .* {low} to {high}"
            ),
        ):
            interface.to_tf(x, dtype=name)


BAD_FLOATS: dict[str, list[float]] = {
    "float4_e2m1fn": [0.25, 6.5, -7.0, 2.5, 5.0, 1e-30, math.nan, math.inf, -math.inf],
    "float8_e4m3b11fnuz": [31.0, -30.5, 1e30, 0.3, 2.0**-14, 1e-40, math.inf, -math.inf],
}


@pytest.mark.parametrize("name", needs.dtypes(FLOATS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_floats_that_do_not_fit_exactly_are_refused(
    name: str, dtype: torch.dtype, interface: Any
) -> None:
    for bad in BAD_FLOATS[name]:
        x = torch.tensor([0, 1, bad], dtype=dtype)
        with pytest.raises(ValueRangeError, match=f"element 2 is .* {name} "):
            interface.to_tf(x, dtype=name)


@needs.dtype("float4_e2m1fn")
def test_signs_of_the_smallest_floats(interface: Any) -> None:
    x = torch.tensor([-0.0, 0.0])
    assert tf_bytes(interface.to_tf(x, dtype="float4_e2m1fn")) == b"\x08\x00"


@needs.dtype("float8_e4m3b11fnuz")
def test_signs_and_nan_of_small_floats(interface: Any) -> None:
    x = torch.tensor([-0.0, 0.0, math.nan, -math.nan])
    # The dtype has one zero and one NaN.
    assert tf_bytes(interface.to_tf(x, dtype="float8_e4m3b11fnuz")) == b"\x00\x00\x80\x80"


@needs.shares_to_tf
@pytest.mark.parametrize("name", needs.dtypes(["uint4", "uint2"]))
def test_bytes_that_are_values_already_are_shared(name: str, interface: Any) -> None:
    x = torch.tensor(all_values(name), dtype=torch.uint8)
    for copy in (None, False):
        kept = shared_to_tf(x, interface.to_tf, dtype=name, copy=copy)
        assert kept.tf.dtype.name == name
        assert explained(interface, x, dtype=name, copy=copy).action == "shared"
    x.zero_()
    kept.assert_moved()


@needs.shares_to_tf
@pytest.mark.parametrize("name", needs.dtypes(["uint4", "uint2"]))
@pytest.mark.parametrize("copy", [None, False, True])
@pytest.mark.parametrize("view", ["whole", "every second"])
def test_bytes_out_of_range_are_refused(
    name: str, copy: bool | None, view: str, interface: Any
) -> None:
    x = torch.zeros(1000, dtype=torch.uint8)
    x[998] = 16
    y = x if view == "whole" else x[::2]
    address = torch_data_address(x)
    if view != "whole" and copy is False:
        assert_to_tf_refused(interface, y, CopyRequiredError, "row-major", dtype=name, copy=copy)
        return
    index = 998 if view == "whole" else 499
    before = live_owners()
    with pytest.raises(ValueRangeError, match=f"element {index} is 16, which {name}"):
        interface.to_tf(y, dtype=name, copy=copy)
    assert live_owners() == before
    x.zero_()
    assert torch_data_address(x) == address, "the bytes have no other holder, so nothing moves"
    assert interface.to_tf(y, dtype=name, copy=copy).dtype.name == name


@needs.shares_to_tf
@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_dtypes_share_the_plain_integers(name: str, interface: Any) -> None:
    x = torch.tensor([0, 1, 100, 7]).to(QUANTIZED[name])
    kept = shared_to_tf(x, interface.to_tf, dtype=name, copy=False)
    assert kept.tf.dtype.name == name
    assert explained(interface, x, dtype=name).tf_dtype == name
    kept.torch.fill_(3)
    kept.assert_moved()
    assert torch_bytes(tensor_bridge.to_torch(kept.tf, raw=True)) == kept.before


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_dtypes_take_their_own_integers_only(name: str, interface: Any) -> None:
    for dtype in (*INTEGER_DTYPES, torch.float32):
        if dtype is QUANTIZED[name]:
            continue
        x = torch.zeros(2, dtype=dtype)
        assert_to_tf_refused(
            interface, x, InvalidOptionError, f"expected a {QUANTIZED[name]}", dtype=name
        )


@pytest.mark.parametrize("name", needs.dtypes(ENCODED))
@pytest.mark.parametrize(
    "dtype",
    [torch.bool, torch.complex64, torch.uint64, torch.float8_e5m2, torch.float32, torch.int8],
    ids=str,
)
def test_sources_of_another_kind_are_refused(name: str, dtype: torch.dtype, interface: Any) -> None:
    if dtype is (torch.int8 if name in INTEGERS else torch.float32):
        return
    x = torch.zeros(2, dtype=dtype)
    assert_to_tf_refused(
        interface, x, InvalidOptionError, f"takes a torch tensor of .*{dtype}", dtype=name
    )


@pytest.mark.parametrize("name", [row.name for row in SHARED])
def test_dtypes_that_torch_has_are_torchs_to_cast_to(name: str, interface: Any) -> None:
    x = torch.zeros(2, dtype=torch.int16 if name != "int16" else torch.int8)
    assert_to_tf_refused(
        interface, x, InvalidOptionError, r"cast in torch first \(Tensor.to\)", dtype=name
    )


@pytest.mark.parametrize("name", ["string", "resource", "variant"])
def test_dtypes_without_numbers(name: str, interface: Any) -> None:
    assert_to_tf_refused(interface, values(), InvalidOptionError, "dtype=", dtype=name)


@pytest.mark.parametrize("dtype", ["nonsense", "", 3.5, 0, -1, 999, 2**40, object(), [], b"int4"])
def test_dtypes_that_are_none(dtype: Any, interface: Any) -> None:
    with pytest.raises(InvalidOptionError, match="dtype"):
        interface.to_tf(values(), dtype=dtype)
    assert explained(interface, values(), dtype=dtype).error is InvalidOptionError


@pytest.mark.parametrize("name", needs.dtypes(ENCODED))
def test_encoding_is_a_copy(name: str, interface: Any) -> None:
    x = torch.zeros((2, 3), dtype=torch.int32 if name in INTEGERS else torch.float64)
    assert_to_tf_refused(
        interface, x, CopyRequiredError, "torch lacks the dtype", dtype=name, copy=False
    )
    for copy in (None, True):
        explanation = explained(interface, x, dtype=name, copy=copy)
        assert explanation.action == "copied"
        assert explanation.tf_dtype == name
        assert explanation.nbytes == 6


SOURCES: dict[str, Any] = {
    "transposed": lambda x: x.T,
    "expanded": lambda x: x[:1].expand(3, 6),
    "misaligned": lambda x: misaligned(x.element_size(), x),
    "requires grad": lambda x: x.requires_grad_() if x.is_floating_point() else x,
    "empty": lambda x: x[:0],
    "scalar": lambda x: x[1, 1],
    "negative": torch._neg_view,
    "in shared memory": lambda x: x.share_memory_(),
    "implicit zero": lambda x: torch._efficientzerotensor((2, 3), dtype=x.dtype),
    "from TensorFlow": lambda x: tensor_bridge.to_torch(tensor_bridge.to_tf(x.clone())),
    "large": lambda x: x.repeat(200, 100),
}


@pytest.mark.parametrize("name", needs.dtypes(["int4", "uint2", *FLOATS]))
@pytest.mark.parametrize("source", [*SOURCES, pytest.param("shared", marks=needs.shares_to_tf)])
def test_any_layout_is_encoded(name: str, source: str, interface: Any) -> None:
    high = 2 if source == "negative" and name == "int4" else 1
    x = (values() % (high + 1)).to(torch.int16 if name in INTEGERS else torch.float32)
    if source == "negative" and name == "uint2":
        x = -x
    x = shared_to_tf(x).torch if source == "shared" else SOURCES[source](x)
    t = interface.to_tf(x, dtype=name)
    plain = x.detach().resolve_neg().contiguous() + 0
    if source == "negative":
        plain = torch.neg(x.detach()).neg()
    assert t.shape == x.shape
    assert tf_bytes(t) == stored(name, plain.reshape(-1).tolist())


@needs.dtype("int4")
def test_a_scalar_is_encoded(interface: Any) -> None:
    t = interface.to_tf(torch.tensor(-3), dtype="int4")
    assert t.shape == ()
    assert tf_bytes(t) == b"\x0d"


@pytest.mark.parametrize("name", needs.dtypes(FLOATS))
def test_nothing_is_encoded(name: str, interface: Any) -> None:
    t = interface.to_tf(torch.empty(0, 3), dtype=name)
    assert t.shape == (0, 3)


@needs.dtype("uint4")
def test_tensorflow_computes_with_what_was_encoded() -> None:
    t = tensor_bridge.to_tf(torch.tensor([-8, -1, 0, 7]), dtype="int4")
    assert tf.cast(t, tf.int32).numpy().tolist() == [-8, -1, 0, 7]
    t = tensor_bridge.to_tf(torch.tensor([3, 15], dtype=torch.uint8), dtype="uint4")
    assert tf.cast(t, tf.int32).numpy().tolist() == [3, 15]
