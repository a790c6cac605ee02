"""assign() sets a variable to torch's values: memory is shared if possible, and never linked."""

from __future__ import annotations

from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from refusals import BUILTIN_BASES
from sharing import owners
from tf_bytes import (
    NUMERIC,
    random_bytes,
    tensorflow_has_variables_of,
    tf_memory,
    tf_tensor,
    torch_memory,
)

import tensor_bridge
from tensor_bridge import DtypeRow, assign
from tensor_bridge.testing import shares_memory, tf_data_address

VALUES = [1.0, 2.0, 3.0, 4.0]


def values_of(v: Any) -> list[Any]:
    return tensor_bridge.to_torch(v).tolist()


def assert_not_assigned(
    target: Any, source: Any, error: type[Exception], advice: str, **options: Any
) -> None:
    with owners():
        with pytest.raises(BUILTIN_BASES[error], match=advice) as caught:
            assign(target, source, **options)
        assert type(caught.value) is error
        assert "builtins." not in str(caught.value)
        del caught


# ---- shared and not connected --------------------------------------------------------------------


@needs.shares_to_tf
def test_the_variable_takes_over_the_bytes() -> None:
    v = tf.Variable([0.0] * 4)
    x = torch.tensor(VALUES)
    assert assign(v, x) is None
    assert shares_memory(v, x)
    assert values_of(v) == VALUES
    x.add_(1)
    assert values_of(v) == VALUES
    assert not shares_memory(v, x)
    assert x.tolist() == [2.0, 3.0, 4.0, 5.0]


def test_an_update_of_the_variable_never_reaches_torch() -> None:
    v = tf.Variable([0.0] * 4)
    x = torch.tensor(VALUES)
    for update in (
        lambda: v.assign_add([1.0] * 4),
        lambda: v.scatter_nd_update([[0]], [9.0]),
        lambda: v.assign([0.0] * 4),
        lambda: tf.keras.optimizers.SGD(1.0).apply_gradients([(tf.ones([4]), v)]),
    ):
        assign(v, x)
        update()
        assert x.tolist() == VALUES
        assert values_of(v) != VALUES


def test_parameters_stepped_between_assigns() -> None:
    v = tf.Variable([0.0] * 4)
    parameter = torch.nn.Parameter(torch.tensor(VALUES))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    for step in range(3):
        assign(v, parameter)
        parameter.grad = torch.ones(4)
        optimizer.step()
        assert values_of(v) == [x - step for x in VALUES]


@needs.shares_to_tf
def test_copy_true_and_copy_false() -> None:
    v = tf.Variable([0.0] * 4)
    x = torch.tensor(VALUES)
    assign(v, x, copy=True)
    assert not shares_memory(v, x)
    assign(v, x, copy=False)
    assert shares_memory(v, x)
    wide = torch.zeros(4, 2)
    wide[:, 0] = x
    assert_not_assigned(v, wide[:, 0], tensor_bridge.CopyRequiredError, "copy=None", copy=False)
    assert values_of(v) == VALUES
    v.assign([0.0] * 4)
    assign(v, wide[:, 0])
    assert values_of(v) == VALUES


def test_a_variable_assigned_from_another() -> None:
    v, w = tf.Variable(VALUES), tf.Variable([0.0] * 4)
    x = tensor_bridge.to_torch(v)
    assign(w, x)
    assert tf_data_address(v) == tf_data_address(w), "the same buffer, which TensorFlow protects"
    x.zero_()
    v.assign_add([1.0] * 4)
    assert values_of(w) == VALUES
    w.assign_add([2.0] * 4)
    assert values_of(v) == [2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize("part", [slice(None), slice(0, 4), slice(2, 4)], ids=str)
def test_a_live_view_stays_connected_to_its_own_variable_only(part: slice) -> None:
    v, w = tf.Variable(VALUES), tf.Variable(VALUES[part])
    view = tensor_bridge.to_torch(v, live=True)
    for source in (view.tensor[part], *([view] if part == slice(None) else [])):
        assign(w, source)
        view.tensor.add_(1)
        assert view.valid
        assert values_of(w) == [x - 1 for x in values_of(v)[part]]


def test_assigning_ends_a_live_view() -> None:
    v = tf.Variable(VALUES)
    view = tensor_bridge.to_torch(v, live=True)
    assign(v, torch.zeros(4))
    assert not view.valid
    assert view.tensor.tolist() == VALUES


def test_a_variable_in_copy_on_read_mode() -> None:
    v = tf.Variable(VALUES)
    v.scatter_nd_update([[0]], [9.0])
    x = torch.tensor(VALUES)
    assign(v, x)
    x.zero_()
    assert values_of(v) == VALUES


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,), (2, 3)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    v = tf.Variable(tf.zeros(shape))
    assign(v, torch.ones(shape))
    assert tuple(v.shape) == shape
    assert tf.reduce_all(v == 1)


@pytest.mark.parametrize(
    "row", [row for row in NUMERIC if tensorflow_has_variables_of(row)], ids=lambda row: row.name
)
def test_every_dtype(row: DtypeRow) -> None:
    data = random_bytes(row, 6, seed=1)
    v = tf.Variable(tf_tensor(row, (2, 3), random_bytes(row, 6)))
    options = {"raw": True} if row.kind == "quantized" else {}
    x = tensor_bridge.to_torch(tf_tensor(row, (2, 3), data), copy=True, **options)
    assign(v, x)
    assert tf_memory(v) == data
    if row.kind != "converted":
        assert torch_memory(x) == data
        assert shares_memory(v, x) == needs.SHARES_TO_TF
    x.zero_()
    assert tf_memory(v) == data


# ---- what does not fit ---------------------------------------------------------------------------


def test_another_shape_or_dtype_is_refused() -> None:
    v = tf.Variable(VALUES)
    mismatch = tensor_bridge.MismatchError
    assert_not_assigned(v, torch.zeros(3), mismatch, r"expected shape \(4,\).*got \(3,\)")
    assert_not_assigned(v, torch.zeros(4, 1), mismatch, "expected shape")
    assert_not_assigned(v, torch.zeros(4, dtype=torch.float64), mismatch, r"x\.to\(torch\.float32")
    assert_not_assigned(v, torch.zeros(4, dtype=torch.int32), mismatch, "dtype float32")
    assert_not_assigned(v, torch.zeros(4, dtype=torch.complex64), mismatch, "dtype float32")
    assert values_of(v) == VALUES
    free = tf.Variable([1.0], shape=tf.TensorShape(None))
    assign(free, torch.zeros(2, 3))
    assert free.read_value().shape == (2, 3)
    rank = tf.Variable([1.0], shape=tf.TensorShape([None]))
    assign(rank, torch.zeros(5))
    assert_not_assigned(rank, torch.zeros(5, 1), mismatch, "expected shape")


@needs.dtype("int4")
def test_values_that_the_dtype_cannot_hold_are_refused() -> None:
    row = next(row for row in NUMERIC if row.name == "int4")
    v = tf.Variable(tf_tensor(row, (2,), b"\x01\x02"))
    assert_not_assigned(
        v, torch.tensor([1, 8], dtype=torch.int8), tensor_bridge.ValueRangeError, "int4"
    )
    assert tf_memory(v) == b"\x01\x02"


def test_other_sources_and_targets_are_refused() -> None:
    v, x = tf.Variable(VALUES), torch.zeros(4)
    wrong = tensor_bridge.UnsupportedTypeError
    for source in (VALUES, tf.zeros([4]), None, 1.0, v):
        assert_not_assigned(v, source, wrong, r"expected a torch\.Tensor to assign")
    for target in (tf.zeros([4]), None, x, VALUES, tf.keras.layers.Dense(1)):
        assert_not_assigned(target, x, wrong, r"expected a tf\.Variable, a Keras variable")
    for target in (v, None, VALUES):
        assert_not_assigned(target, {"a": x}, wrong, "expected a Keras layer or model")
    assert_not_assigned(v, x.to_sparse(), wrong, "dense")
    assert_not_assigned(v, x.to("meta"), tensor_bridge.UnsupportedDeviceError, "meta device")
    assert values_of(v) == VALUES


def test_assigning_inside_a_function_is_refused() -> None:
    v = tf.Variable(VALUES)

    @tf.function(autograph=False)
    def traced() -> None:
        assert_not_assigned(
            v, torch.zeros(4), tensor_bridge.SymbolicTensorError, r"tf\.py_function"
        )
        tf.py_function(lambda: assign(v, torch.zeros(4)), [], [])

    traced()
    assert values_of(v) == [0.0] * 4
    v.assign(VALUES)  # releases torch's memory; the graph keeps the variable for a while


def test_an_uninitialised_variable_is_assigned() -> None:
    from tensorflow.python.ops import resource_variable_ops

    v = resource_variable_ops.UninitializedVariable(shape=[4], dtype=tf.float32)
    assign(v, torch.tensor(VALUES))
    assert values_of(v) == VALUES
