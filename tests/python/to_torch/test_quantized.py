"""Quantized dtypes: torch's quantized tensors over shared integers, raw integers, refusals."""

from __future__ import annotations

from typing import Any

import needs
import numpy as np
import pytest
import tensorflow as tf
import torch
from refusals import assert_refused
from sharing import owners
from tf_bytes import (
    QUANTIZED,
    by_name,
    random_tensor,
    reference_values,
    row_named,
    tensor_and_bytes,
    tf_memory,
    torch_dtype,
    torch_memory,
)

from tensor_bridge import DtypeRow, InvalidOptionError, UnsupportedDtypeError
from tensor_bridge.testing import shares_memory

WITH_TWIN = [row for row in QUANTIZED if row.torch_name]
WITHOUT_TWIN = [row for row in QUANTIZED if not row.torch_name]


def zero_point_range(row: DtypeRow) -> tuple[int, int]:
    info = torch.iinfo(torch_dtype(row.nearest))
    return max(info.min, -(2**31)), min(info.max, 2**31 - 1)


@pytest.mark.parametrize("row", QUANTIZED, ids=by_name)
def test_the_scale_is_asked_for(row: DtypeRow, interface: Any) -> None:
    advice = r"Give scale= and zero_point=.* or raw=True" if row.torch_name else "raw=True"
    for options in ({}, {"copy": True}, {"copy": False}, {"on_write": "alias"}):
        assert_refused(interface, random_tensor(row), UnsupportedDtypeError, advice, **options)


@pytest.mark.parametrize("row", WITHOUT_TWIN, ids=by_name)
def test_dtypes_that_torch_lacks_are_raw_only(row: DtypeRow, interface: Any) -> None:
    t = random_tensor(row)
    explanation = interface.explain(t)
    assert "scale=" not in explanation.reason, "the advice would be refused too"
    assert_refused(interface, t, UnsupportedDtypeError, "raw=True gives", scale=1.0, zero_point=0)


@pytest.mark.parametrize("row", WITH_TWIN, ids=by_name)
@pytest.mark.parametrize("shape", [(), (6,), (2, 3), (0, 3)], ids=str)
def test_per_tensor(row: DtypeRow, shape: tuple[int, ...], interface: Any) -> None:
    count = int(np.prod(shape))
    t, data = tensor_and_bytes(row, shape)
    with owners() as added:
        x = interface.to_torch(t, scale=0.25, zero_point=3)
        assert x.is_quantized
        assert x.qscheme() is torch.per_tensor_affine
        assert x.dtype is torch_dtype(row.torch_name)
        assert x.shape == shape
        assert x.q_scale() == 0.25
        assert x.q_zero_point() == 3
        assert shares_memory(t, x) == (count > 0)
        assert torch_memory(x) == data
        integers = reference_values(row, data)
        assert x.int_repr().reshape(-1).tolist() == integers
        expected = ((np.array(integers, np.float64) - 3) * 0.25).astype(np.float32)
        assert np.allclose(x.dequantize().reshape(-1).tolist(), expected, rtol=1e-6)
        explanation = interface.explain(t, scale=0.25, zero_point=3)
        assert explanation.action == "shared"
        assert explanation.torch_dtype == row.torch_name
        assert explanation.nbytes == len(data)
        assert added() == 1
        del x


@pytest.mark.parametrize("row", WITH_TWIN, ids=by_name)
@pytest.mark.parametrize(("shape", "axis"), [((2, 3), 0), ((2, 3), 1), ((2, 3), -1), ((2, 3), -2)])
def test_per_channel(row: DtypeRow, shape: tuple[int, ...], axis: int, interface: Any) -> None:
    t, data = tensor_and_bytes(row, shape)
    channels = shape[axis]
    scales = [0.5 * (i + 1) for i in range(channels)]
    zero_points = list(range(channels))
    with owners() as added:
        x = interface.to_torch(t, scale=scales, zero_point=zero_points, axis=axis)
        assert x.qscheme() is torch.per_channel_affine
        assert x.q_per_channel_axis() == axis % 2
        assert x.q_per_channel_scales().tolist() == scales
        assert x.q_per_channel_zero_points().tolist() == zero_points
        assert shares_memory(t, x)
        assert torch_memory(x) == data
        integers = np.array(reference_values(row, data), np.float64).reshape(shape)
        other = [1, 1]
        other[axis] = channels
        expected = (integers - np.reshape(zero_points, other)) * np.reshape(scales, other)
        assert np.allclose(x.dequantize().tolist(), expected, rtol=1e-6)
        assert added() == 1
        del x


@pytest.mark.parametrize("row", WITH_TWIN, ids=by_name)
def test_writes_are_protected(row: DtypeRow, interface: Any) -> None:
    t, data = tensor_and_bytes(row)
    options = {"scale": 0.5, "zero_point": 1}
    x = interface.to_torch(t, **options)
    x.fill_(2.0)
    assert x.int_repr().unique().tolist() == [5]
    assert x.q_scale() == 0.5
    assert tf_memory(t) == data
    assert not shares_memory(t, x)

    x = interface.to_torch(t, on_write="raise", **options)
    with needs.forbidden_write(r"clone\(\)"):
        x.fill_(2.0)
    assert tf_memory(t) == data

    x = interface.to_torch(t, copy=True, **options)
    assert torch_memory(x) == data
    x.fill_(2.0)
    assert tf_memory(t) == data

    x = interface.to_torch(t, on_write="alias", **options)
    x.fill_(2.0)
    assert set(reference_values(row, tf_memory(t))) == {5}


@pytest.mark.parametrize("row", QUANTIZED, ids=by_name)
def test_raw_with_a_scale_is_refused(row: DtypeRow, interface: Any) -> None:
    assert_refused(
        interface,
        random_tensor(row),
        InvalidOptionError,
        "one of the two",
        raw=True,
        scale=1.0,
        zero_point=0,
    )


@pytest.mark.parametrize("row", WITH_TWIN, ids=by_name)
def test_zero_points_have_the_range_of_the_integers(row: DtypeRow, interface: Any) -> None:
    t = random_tensor(row)
    low, high = zero_point_range(row)
    for zero_point in (low, high):
        assert interface.to_torch(t, scale=1.0, zero_point=zero_point).q_zero_point() == zero_point
    for zero_point in (low - 1, high + 1):
        assert_refused(
            interface, t, InvalidOptionError, "zero_point", scale=1.0, zero_point=zero_point
        )


SAME_SCALE: list[tuple[Any, Any]] = [
    (0.5, 3),
    ([0.5], [3]),
    ((0.5,), range(3, 4)),
    (torch.tensor(0.5), torch.tensor(3)),
    (torch.tensor([0.5], dtype=torch.float16), torch.tensor([3], dtype=torch.int8)),
    (np.float64(0.5), 3.0),
]


@pytest.mark.parametrize(("scale", "zero_point"), SAME_SCALE, ids=str)
def test_what_a_scale_may_be(scale: Any, zero_point: Any, interface: Any) -> None:
    x = interface.to_torch(random_tensor(row_named("qint8")), scale=scale, zero_point=zero_point)
    assert x.q_scale() == 0.5
    assert x.q_zero_point() == 3


def test_an_integer_is_a_scale(interface: Any) -> None:
    assert (
        interface.to_torch(random_tensor(row_named("qint8")), scale=2, zero_point=0).q_scale()
        == 2.0
    )


INVALID: list[tuple[Any, Any, Any, str]] = [
    # scale, zero_point, axis, advice
    (0.0, 0, None, "positive and finite"),
    (-1.0, 0, None, "positive and finite"),
    (float("inf"), 0, None, "positive and finite"),
    (float("nan"), 0, None, "positive and finite"),
    (10**400, 0, None, "scale must fit in a float"),
    (1.0, 1.5, None, "must be an integer"),
    (1.0, float("nan"), None, "must be an integer"),
    (1.0, float("inf"), None, "must be an integer"),
    (1.0, -float("inf"), None, "must be an integer"),
    (1.0, 2**80, None, "32 bits"),
    (1.0, -(2**80), None, "32 bits"),
    (1.0, 1e300, None, "32 bits"),
    (True, 0, None, "scale must be a number"),
    (1.0, False, None, "zero_point must be a number"),
    ("1", 0, None, "scale must be a number"),
    ("1", "0", None, "scale must be a number"),
    (b"1", b"0", None, "scale must be a number"),
    ({1.0}, {0}, None, "scale must be a number"),
    (None, 0, None, "scale is missing"),
    (1.0, None, None, "zero_point is missing"),
    (1.0 + 0j, 0, None, "scale must be a number"),
    (torch.tensor(1 + 0j), 0, None, "scale must be a number"),
    (torch.empty(1, device="meta"), 0, None, "values can be read"),
    ([[1.0]], [0], None, "scale must be a number"),
    (torch.ones(1, 1), [0], None, "scale must be a number"),
    ([], [], None, "must not be empty"),
    ([1.0, 2.0], [0], 0, "same number of values"),
    ([1.0, 2.0], [0, 0], None, "name the channel axis with axis="),
    ([1.0, 2.0], [0, 0], 1, "expected one scale for each of the 3 channels"),
    ([1.0] * 3, [0] * 3, 0, "expected one scale for each of the 2 channels"),
    (1.0, 0, 0, "expected one scale for each of the 2 channels"),
    ([1.0] * 2, [0] * 2, 2, "expected -2 to 1"),
    ([1.0] * 2, [0] * 2, -3, "expected -2 to 1"),
    ([1.0] * 2, [0] * 2, 2**64, "64 bits"),
    ([1.0] * 2, [0] * 2, 2**63 - 1, "expected -2 to 1"),
    ([1.0] * 2, [0] * 2, -(2**63), "expected -2 to 1"),
    ([1.0, -2.0], [0, 0], 0, "positive and finite"),
    ([1.0, 2.0], [0, 200], 0, "-128 to 127"),
]


@pytest.mark.parametrize(
    ("scale", "zero_point", "axis", "advice"), INVALID, ids=lambda value: str(value)[:30]
)
def test_meaningless_parameters_are_refused(
    scale: Any, zero_point: Any, axis: Any, advice: str, interface: Any
) -> None:
    assert_refused(
        interface,
        random_tensor(row_named("qint8")),
        InvalidOptionError,
        advice,
        scale=scale,
        zero_point=zero_point,
        axis=axis,
    )


def test_a_scalar_has_no_channels(interface: Any) -> None:
    t = random_tensor(row_named("qint8"), ())
    assert_refused(interface, t, InvalidOptionError, "axis", scale=[1.0], zero_point=[0], axis=0)


def test_tensorflow_s_own_quantization_round_trips(interface: Any) -> None:
    values = tf.constant([-1.0, -0.5, 0.0, 0.25, 1.0])
    quantized = tf.quantization.quantize(values, -1.0, 1.0, tf.quint8, mode="MIN_FIRST")
    scale = 2.0 / 255
    x = interface.to_torch(quantized.output, scale=scale, zero_point=128)
    assert shares_memory(quantized.output, x)
    assert torch.allclose(x.dequantize(), interface.to_torch(values), atol=scale)


def test_many_channels(interface: Any) -> None:
    count = 4096
    t = random_tensor(row_named("quint8"), (2, count))
    scales = torch.rand(count, dtype=torch.float64) + 0.1
    zero_points = torch.arange(count) % 256
    x = interface.to_torch(t, scale=scales, zero_point=zero_points, axis=1)
    assert torch.equal(x.q_per_channel_scales(), scales)
    assert torch.equal(x.q_per_channel_zero_points(), zero_points)
    assert shares_memory(t, x)
    scales.zero_()
    assert x.q_per_channel_scales().min() > 0
