"""Any dtype, shape, bytes and keywords: exact bits, sharing as promised, full release."""

from __future__ import annotations

import gc
from math import prod
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from properties import QUICK, Case, cases, quick_and_thorough, stored
from tf_bytes import (
    NUMERIC,
    reference_values,
    same_values,
    tf_memory,
    tf_tensor,
    torch_memory,
    torch_values,
)

import tensor_bridge
from tensor_bridge import DtypeRow
from tensor_bridge.testing import live_owners, shares_memory, tf_data_address

INTERFACES = (tensor_bridge, tensor_bridge.TensorBridge())
interfaces = st.sampled_from(INTERFACES)
rows = st.sampled_from(NUMERIC)

options = st.fixed_dictionaries(
    {},
    optional={
        "copy": st.sampled_from([None, False, True]),
        "on_write": st.sampled_from(["copy", "raise", "alias"]),
        "raw": st.booleans(),
        "device": st.sampled_from([None, "cpu", torch.device("cpu")]),
    },
)


def expected_action(row: DtypeRow, keywords: dict[str, Any]) -> str:
    """The expected action, which follows from the row and the keywords."""
    raw = keywords.get("raw", False)
    if row.kind == "quantized" and not raw:
        return "refused"
    by_value = row.kind == "converted" and not raw
    if by_value:
        return "refused" if keywords.get("copy") is False else "copied"
    return "copied" if keywords.get("copy") is True else "shared"


def check_conversion(case: Case, keywords: dict[str, Any], interface: Any) -> None:
    row, shape, data = case
    note(f"{row.name} {shape} {data[:64].hex()} {keywords}")
    t = tf_tensor(row, shape, data)
    before = live_owners()
    action = expected_action(row, keywords)
    explanation = interface.explain(t, **keywords)
    assert explanation.action == action
    if action == "refused":
        with pytest.raises(explanation.error) as caught:
            interface.to_torch(t, **keywords)
        assert str(caught.value) == explanation.reason
        assert live_owners() == before
        return
    x = interface.to_torch(t, **keywords)
    assert live_owners() == before + (action == "shared")
    assert x.shape == explanation.shape == shape
    assert str(x.dtype) == explanation.torch_dtype
    assert x.nbytes == explanation.nbytes
    assert x.is_contiguous()
    assert shares_memory(t, x) == (action == "shared" and prod(shape) > 0)
    raw = keywords.get("raw", False) and row.kind in ("converted", "viewed")
    if raw or row.kind in ("shared", "viewed", "quantized"):
        assert torch_memory(x) == data
    if raw:
        assert torch_values(x) == list(data)
    else:
        assert same_values(torch_values(x), reference_values(row, data))
    y = x.clone()
    assert torch_memory(y) == torch_memory(x)
    alias = action == "shared" and keywords.get("on_write") == "alias"
    if action == "shared" and keywords.get("on_write") == "raise":
        if prod(shape):
            with needs.forbidden_write():
                x.fill_(1)
        assert torch_memory(x) == data
    else:
        x.fill_(1)
        assert set(torch_values(x)) <= {1}
    if alias:
        assert tf_memory(t) == torch_memory(x)
    else:
        assert tf_memory(t) == data
    del x
    assert live_owners() == before


test_conversion, test_conversion_thoroughly = quick_and_thorough(
    check_conversion, cases(NUMERIC), options, interfaces
)


@QUICK
@given(st.data(), interfaces)
def test_parts_of_a_tensor(data: st.DataObject, interface: Any) -> None:
    """Slices are protected, whether they share their parent's memory or not."""
    row = data.draw(st.sampled_from([row for row in NUMERIC if row.kind == "shared"]))
    rows_, columns = data.draw(st.integers(1, 8)), data.draw(st.sampled_from([1, 3, 8, 16, 64]))
    content = data.draw(stored(row, rows_ * columns))
    parent = tf_tensor(row, (rows_, columns), content)
    start = data.draw(st.integers(0, rows_ - 1))
    stop = data.draw(st.integers(start + 1, rows_))
    try:
        part = parent[start:stop]
    except (tf.errors.OpError, TypeError):
        return  # TensorFlow cannot slice the dtype
    width = columns * row.itemsize
    expected = content[start * width : stop * width]
    before = live_owners()
    x = interface.to_torch(part)
    assert torch_memory(x) == expected
    assert shares_memory(part, x)
    if data.draw(st.booleans()):
        del part
    x.fill_(1)
    assert tf_memory(parent) == content
    del x
    assert live_owners() == before


@QUICK
@given(
    st.sampled_from(["float32", "int64", "bool", "bfloat16", "complex64"]),
    st.lists(st.integers(0, 4), max_size=4),
    interfaces,
)
def test_values_that_tensorflow_made(name: str, shape: list[int], interface: Any) -> None:
    """The same for values from TensorFlow's constructors and arithmetic instead of raw bytes."""
    count = prod(shape)
    values = tf.range(count, dtype=tf.int32) - count // 2
    t = tf.reshape(tf.cast(values, tf.as_dtype(name)), shape)
    x = interface.to_torch(t)
    expected = [i - count // 2 for i in range(count)]
    assert x.reshape(-1).tolist() == [bool(v) if name == "bool" else v for v in expected]
    assert list(x.shape) == shape
    assert shares_memory(t, x) == (count > 0)


# ---- keywords of any value -----------------------------------------------------------------------

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**60, max_value=2**140),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.complex_numbers(),
    st.lists(st.floats() | st.integers(), max_size=4),
    st.tuples(st.floats(), st.integers()),
    st.sampled_from(
        ["copy", "raise", "alias", "cpu", "cuda:0", "meta", 0.5, 1, [0.5, 0.5], [0, 1]]
    ),
)
names = ("copy", "device", "on_write", "raw", "scale", "zero_point", "axis")
any_options = st.dictionaries(st.sampled_from(names), anything, max_size=4)
SUBJECTS = ["float32", "int4", "qint8", "qint16"]
subjects = st.sampled_from([*filter(needs.has, SUBJECTS), "variable"])


def check_any_options(subject: str, keywords: dict[str, Any], interface: Any) -> None:
    """explain never raises, and predicts exactly what the conversion does."""
    # If several keywords are wrong, the error names the first one given.
    keywords = {name: keywords[name] for name in names if name in keywords}
    note(f"{subject} {keywords}")
    if subject == "variable":
        t: Any = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
    else:
        row = next(row for row in NUMERIC if row.name == subject)
        t = tf_tensor(row, (2, 2), bytes(4 * row.itemsize))
    before = live_owners()
    explanation = interface.explain(t, **keywords)
    if explanation.action == "refused":
        assert issubclass(explanation.error, tensor_bridge.TensorBridgeError)
        with pytest.raises(explanation.error) as caught:
            interface.to_torch(t, **keywords)
        assert caught.type is explanation.error
        assert str(caught.value) == explanation.reason
    else:
        x = interface.to_torch(t, **keywords)
        assert (explanation.action == "shared") == shares_memory(t, x)
        assert str(x.dtype) == explanation.torch_dtype
    assert live_owners() == before + (explanation.action == "shared")


test_any_options, test_any_options_thoroughly = quick_and_thorough(
    check_any_options, subjects, any_options, interfaces, quick=settings(QUICK, max_examples=300)
)


def test_addresses_are_read_without_moving_anything() -> None:
    t = tf.constant([1.0, 2.0]) * 1
    x = tensor_bridge.to_torch(t)
    address = tf_data_address(t)
    for _ in range(3):
        assert tensor_bridge.testing.torch_data_address(x) == address
        gc.collect(0)
    assert shares_memory(t, x)
