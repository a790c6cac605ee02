"""Every row of the dtype table, both interfaces: values, address, release, refusals."""

from __future__ import annotations

from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from refusals import assert_refused
from sharing import owners
from tensorflow.core.framework import types_pb2
from tf_bytes import (
    BY_DEFAULT,
    NUMERIC,
    QUANTIZED,
    ROWS,
    as_stored,
    by_name,
    random_tensor,
    reference_values,
    same_values,
    tensor_and_bytes,
    tf_memory,
    tf_tensor,
    torch_dtype,
    torch_memory,
    torch_values,
    used_bits,
)

import tensor_bridge
from tensor_bridge import CopyRequiredError, DtypeRow, UnsupportedDtypeError
from tensor_bridge.testing import shares_memory

KINDS = ("shared", "viewed", "converted", "quantized", "copied", "refused", "torch only")
SHARED = [row for row in NUMERIC if row.kind == "shared"]
VIEWED = [row for row in NUMERIC if row.kind == "viewed"]
CONVERTED = [row for row in NUMERIC if row.kind == "converted"]
# raw=True shares their stored bytes or plain integers.
SHARED_RAW = VIEWED + CONVERTED + QUANTIZED


def without_elements(name: str) -> tf.Tensor:
    """A tensor of a dtype whose elements are objects."""
    if name == "resource":
        return tf.Variable([1.0]).handle
    if name == "variant":
        return tf.raw_ops.TensorListReserve(
            element_shape=[1], num_elements=2, element_dtype=tf.float32
        )
    raise AssertionError(f"no sample of the refused dtype {name}: add one here")


def cast(t: tf.Tensor, row: DtypeRow) -> tf.Tensor:
    return tf.cast(t, tf.as_dtype(row.nearest.removeprefix("torch.")))


def has_cast(row: DtypeRow) -> bool:
    """Whether TensorFlow itself can cast the dtype to the result's dtype."""
    try:
        cast(tf_tensor(row, (1,), b"\0"), row)
    except (tf.errors.NotFoundError, tf.errors.UnimplementedError, tf.errors.InvalidArgumentError):
        return False
    return True


# ---- the table -----------------------------------------------------------------------------------


def test_every_dtype_of_tensorflow_has_a_row() -> None:
    known = {row.tf_enum for row in tensor_bridge.dtypes()}
    numbers = dict(types_pb2.DataType.items())
    missing = [
        name
        for name, number in numbers.items()
        if number and not name.endswith("_REF") and number not in known
    ]
    assert missing == []


@pytest.mark.parametrize("row", ROWS, ids=by_name)
def test_a_row_tells_the_truth_about_tensorflow(row: DtypeRow) -> None:
    dtype = tf.as_dtype(row.tf_enum)
    assert row.tf_name == row.name == dtype.name
    assert dtype.as_datatype_enum == row.tf_enum
    if row.itemsize:
        assert row.itemsize == dtype.size
    assert (row.kind == "quantized") == dtype.is_quantized


@pytest.mark.parametrize("row", needs.rows(), ids=by_name)
def test_a_row_tells_the_truth_about_torch(row: DtypeRow) -> None:
    assert row.kind in KINDS
    assert (row.torch_name == "") == (row.torch_scalar == -1)
    if row.torch_name:
        dtype = torch_dtype(row.torch_name)
        assert dtype.itemsize == row.itemsize
    if row.kind in ("copied", "refused", "torch only"):
        assert row.nearest == ""
    else:
        assert torch_dtype(row.nearest).itemsize >= row.itemsize
    if row.kind == "shared":
        assert row.nearest == row.torch_name
        assert row.reason == ""
    else:
        assert row.reason


def test_rows_are_unique_and_read_only() -> None:
    rows = tensor_bridge.dtypes()
    assert isinstance(rows, tuple)
    assert rows is tensor_bridge.dtypes()
    assert len({row.name for row in rows}) == len(rows)
    torch_only = [row for row in rows if row.kind == "torch only"]
    assert all(row.tf_enum == 0 and row.tf_name is None for row in torch_only)
    with pytest.raises(AttributeError):
        rows[0].name = "other"  # type: ignore[misc]


def test_only_strings_are_copied_whole() -> None:
    assert [row.name for row in ROWS if row.kind == "copied"] == ["string"]
    assert tensor_bridge.explain(tf.constant("a")).action == "copied"


# ---- the default ---------------------------------------------------------------------------------


@pytest.mark.parametrize("row", SHARED + VIEWED, ids=by_name)
def test_shared_dtypes_share_until_released(row: DtypeRow, interface: Any) -> None:
    t, data = tensor_and_bytes(row)
    with owners() as added:
        x = interface.convert_tf_to_pytorch(t)
        assert x.dtype is torch_dtype(row.nearest)
        assert x.shape == (2, 3)
        assert x.is_contiguous()
        assert x.is_leaf
        assert not x.requires_grad
        assert shares_memory(t, x)
        assert torch_memory(x) == data
        assert same_values(torch_values(x), reference_values(row, data))
        assert shares_memory(t, x), "reading values moved the tensor"
        assert added() == 1
        del x
    assert tf_memory(t) == data


@pytest.mark.parametrize("row", SHARED + VIEWED, ids=by_name)
def test_torch_keeps_the_bytes_alive(row: DtypeRow, interface: Any) -> None:
    t, data = tensor_and_bytes(row)
    address = tensor_bridge.testing.tf_data_address(t)
    x = interface.to_torch(t)
    del t
    others = [random_tensor(row, seed=seed) for seed in range(1, 9)]
    assert tensor_bridge.testing.torch_data_address(x) == address
    assert torch_memory(x) == data
    del others


@pytest.mark.parametrize("row", CONVERTED, ids=by_name)
def test_every_stored_element_converts_to_its_exact_value(row: DtypeRow, interface: Any) -> None:
    assert row.itemsize == 1
    data = bytes(range(1 << used_bits(row)))
    t = tf_tensor(row, (len(data),), data)
    with owners():
        x = interface.to_torch(t)
        assert x.dtype is torch_dtype(row.nearest)
        assert same_values(torch_values(x), reference_values(row, data))
        assert not shares_memory(t, x)
    x.zero_()
    assert tf_memory(t) == data


@pytest.mark.parametrize("row", list(filter(has_cast, CONVERTED + VIEWED)), ids=by_name)
def test_values_agree_with_tensorflow_s_own_cast(row: DtypeRow, interface: Any) -> None:
    data = bytes(range(1 << used_bits(row)))
    t = tf_tensor(row, (len(data),), data)
    assert same_values(
        torch_values(interface.to_torch(t)), torch_values(interface.to_torch(cast(t, row)))
    )


@pytest.mark.parametrize("row", CONVERTED, ids=by_name)
def test_a_conversion_to_other_values_is_never_called_shared(row: DtypeRow, interface: Any) -> None:
    t = random_tensor(row)
    assert_refused(interface, t, CopyRequiredError, "raw=True shares the stored bytes", copy=False)
    explanation = interface.explain(t)
    assert explanation.action == "copied"
    assert explanation.reason == row.reason
    assert explanation.on_write is None


OPTIONS = [{}, {"raw": True}, {"copy": True}, {"copy": False}]


@pytest.mark.parametrize("row", [row for row in ROWS if row.kind == "refused"], ids=by_name)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_dtypes_without_numbers_are_refused(
    row: DtypeRow, options: dict[str, Any], interface: Any
) -> None:
    t = without_elements(row.name)
    assert_refused(
        interface, t, UnsupportedDtypeError, r"first \(tf\.|convert the value", **options
    )
    assert interface.explain(t).tf_dtype == row.name


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_strings_are_no_dense_tensor(size: int, options: dict[str, Any]) -> None:
    t = tf.fill([size], "x" * 100)
    with pytest.raises(UnsupportedDtypeError, match=r"string.*tf\.io\.decode_raw"):
        tensor_bridge._C.tensor_to_torch(t, **options)


# ---- raw -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", SHARED_RAW, ids=by_name)
def test_raw_shares_what_is_stored(row: DtypeRow, interface: Any) -> None:
    t, data = tensor_and_bytes(row, (3, 2))
    with owners() as added:
        x = interface.to_torch(t, raw=True)
        assert x.dtype is (torch_dtype(row.nearest) if row.kind == "quantized" else torch.uint8)
        assert x.shape == (3, 2)
        assert shares_memory(t, x)
        assert torch_memory(x) == data
        if row.kind == "quantized":
            assert torch_values(x) == reference_values(row, data)
        else:
            assert torch_values(x) == list(data)
        assert added() == 1
        del x


@pytest.mark.parametrize("row", SHARED, ids=by_name)
def test_raw_changes_nothing_where_torch_has_the_dtype(row: DtypeRow, interface: Any) -> None:
    t = random_tensor(row)
    x = interface.to_torch(t, raw=True)
    assert x.dtype is torch_dtype(row.torch_name)
    assert shares_memory(t, x)
    assert torch_memory(x) == tf_memory(t)


# ---- writes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", SHARED + VIEWED, ids=by_name)
def test_a_write_moves_torch_and_leaves_tensorflow_alone(row: DtypeRow, interface: Any) -> None:
    t, data = tensor_and_bytes(row)
    x = interface.to_torch(t)
    x[0, 0] = 1
    assert not shares_memory(t, x)
    assert tf_memory(t) == data
    assert torch_memory(x)[row.itemsize :] == data[row.itemsize :]
    x.fill_(1)
    assert tf_memory(t) == data
    assert torch_values(x) == [1] * 6


@pytest.mark.parametrize("row", SHARED + VIEWED, ids=by_name)
def test_a_forbidden_write_raises_and_writes_nothing(row: DtypeRow, interface: Any) -> None:
    t, data = tensor_and_bytes(row)
    x = interface.to_torch(t, on_write="raise")
    for write in (lambda: x.zero_(), lambda: x.fill_(1), lambda: x[0].copy_(x[1])):
        with needs.forbidden_write(r"clone\(\)"):
            write()
    assert shares_memory(t, x)
    assert tf_memory(t) == data
    assert torch_memory(x.clone()) == data


@pytest.mark.parametrize("row", SHARED + VIEWED, ids=by_name)
def test_a_write_through_an_alias_reaches_tensorflow(row: DtypeRow, interface: Any) -> None:
    t = tf_tensor(row, (2, 3), as_stored(row, b"\x00" * 6 * row.itemsize))
    x = interface.to_torch(t, on_write="alias")
    x.fill_(1)
    assert shares_memory(t, x)
    assert reference_values(row, tf_memory(t)) == [1] * 6


@pytest.mark.parametrize("row", BY_DEFAULT, ids=by_name)
def test_a_copy_is_ordinary_memory_of_torch_s_own(row: DtypeRow, interface: Any) -> None:
    t, data = tensor_and_bytes(row)
    with owners():
        x = interface.to_torch(t, copy=True)
    assert not shares_memory(t, x)
    assert same_values(torch_values(x), reference_values(row, data))
    address = x.data_ptr()
    x.fill_(1)
    assert x.data_ptr() == address, "a copy is not protected, so a write does not move it"
    assert tf_memory(t) == data


# ---- explain -------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", NUMERIC, ids=by_name)
@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("copy", [None, False, True])
def test_explain_says_what_a_conversion_does(
    row: DtypeRow, raw: bool, copy: bool | None, interface: Any
) -> None:
    t = random_tensor(row)
    explanation = interface.explain(t, raw=raw, copy=copy)
    assert explanation.tf_dtype == row.name
    assert explanation.shape == (2, 3)
    if explanation.action == "refused":
        assert_refused(interface, t, explanation.error, "raw=True", raw=raw, copy=copy)
        return
    x = interface.to_torch(t, raw=raw, copy=copy)
    assert explanation.error is None
    assert explanation.action == ("shared" if shares_memory(t, x) else "copied")
    assert explanation.torch_dtype == str(x.dtype)
    assert explanation.nbytes == x.nbytes
    assert explanation.device == str(x.device)
    assert explanation.on_write == ("copy" if shares_memory(t, x) else None)
    text = " ".join(str(explanation).split())
    assert text.startswith(f"{explanation.action}: {row.name} -> {x.dtype}")
    assert f"{x.nbytes} bytes" in text
