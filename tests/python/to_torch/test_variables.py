"""Variables become snapshots: no update changes them, and no write reaches the variable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from refusals import assert_refused
from sharing import owners
from tensorflow.python.ops import resource_variable_ops
from tf_bytes import (
    NUMERIC,
    tensor_and_bytes,
    tensorflow_has_variables_of,
    tf_memory,
    torch_dtype,
    torch_memory,
)

import tensor_bridge
from tensor_bridge import DtypeRow
from tensor_bridge.testing import shares_memory, tf_data_address

VALUES = [1.0, 2.0, 3.0, 4.0]


def variable(values: Any = VALUES) -> tf.Variable:
    return tf.Variable(values)


def keras_optimizer(make: Callable[[], Any]) -> Callable[[tf.Variable], None]:
    def update(v: tf.Variable) -> None:
        # Keras 3 optimizers take tf.Variables too.
        make().apply_gradients([(tf.ones_like(v), v)])

    return update


def in_a_function(update: Callable[[tf.Variable], Any], **options: Any) -> Callable[..., None]:
    def call(v: tf.Variable) -> None:
        tf.function(lambda: update(v), autograph=False, **options)()

    return call


def slice_assign(v: tf.Variable) -> None:
    v[1:3].assign([7.0, 8.0])


def restore(v: tf.Variable, tmp_path: Any) -> None:
    other = tf.Variable([9.0, 8.0, 7.0, 6.0])
    path = tf.train.Checkpoint(v=other).save(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(v=v).restore(path).assert_consumed()


UPDATES: dict[str, Callable[[tf.Variable], Any]] = {
    "assign a list": lambda v: v.assign([9.0, 8.0, 7.0, 6.0]),
    "assign a tensor": lambda v: v.assign(tf.constant([9.0, 8.0, 7.0, 6.0])),
    "assign a variable": lambda v: v.assign(tf.Variable([9.0, 8.0, 7.0, 6.0])),
    "assign_add": lambda v: v.assign_add([1.0] * 4),
    "assign_sub": lambda v: v.assign_sub([1.0] * 4),
    "slice assign": slice_assign,
    "scatter_nd_update": lambda v: v.scatter_nd_update([[0], [2]], [9.0, 7.0]),
    "scatter_nd_add": lambda v: v.scatter_nd_add([[0], [2]], [9.0, 7.0]),
    "scatter_update": lambda v: v.scatter_update(
        tf.IndexedSlices(tf.constant([9.0]), tf.constant([1]))
    ),
    "scatter_add": lambda v: v.scatter_add(tf.IndexedSlices(tf.constant([9.0]), tf.constant([1]))),
    "batch_scatter_update": lambda v: v.batch_scatter_update(
        tf.IndexedSlices(tf.constant([9.0]), tf.constant([1]))
    ),
    "raw gradient descent": lambda v: tf.raw_ops.ResourceApplyGradientDescent(
        var=v.handle, alpha=1.0, delta=tf.ones([4]), use_locking=True
    ),
    "keras SGD": keras_optimizer(lambda: tf.keras.optimizers.SGD(0.5)),
    "keras momentum": keras_optimizer(lambda: tf.keras.optimizers.SGD(0.5, momentum=0.9)),
    "keras Adam": keras_optimizer(lambda: tf.keras.optimizers.Adam(0.5)),
    "assign in a function": in_a_function(lambda v: v.assign([9.0, 8.0, 7.0, 6.0])),
    "assign_add in a function": in_a_function(lambda v: v.assign_add([1.0] * 4)),
    "scatter in a function": in_a_function(lambda v: v.scatter_nd_update([[0]], [9.0])),
    "slice assign in a function": in_a_function(slice_assign),
    "assign_add in a compiled function": in_a_function(
        lambda v: v.assign_add([1.0] * 4), jit_compile=True
    ),
}


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
@pytest.mark.parametrize("on_write", ["copy", "raise"])
def test_an_update_never_shows_through(
    update: Callable[[tf.Variable], Any], on_write: str, interface: Any
) -> None:
    v = variable()
    with owners() as added:
        x = interface.to_torch(v, on_write=on_write)
        assert shares_memory(v, x)
        view = x[1:]
        update(v)
        assert x.tolist() == VALUES
        assert view.tolist() == VALUES[1:]
        assert v.numpy().tolist() != VALUES, "the update did nothing"
        assert not shares_memory(v, x)
        y = interface.to_torch(v)
        assert y.tolist() == v.numpy().tolist()
        update(v)
        assert x.tolist() == VALUES
        assert added() == 2
        del x, y, view


def test_restoring_a_checkpoint_never_shows_through(interface: Any, tmp_path: Any) -> None:
    v = variable()
    x = interface.to_torch(v)
    restore(v, tmp_path)
    assert v.numpy().tolist() == [9.0, 8.0, 7.0, 6.0]
    assert x.tolist() == VALUES


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_a_write_never_reaches_the_variable(
    update: Callable[[tf.Variable], Any], interface: Any
) -> None:
    v = variable()
    x = interface.to_torch(v)
    x.add_(100)
    assert v.numpy().tolist() == VALUES
    update(v)
    updated = v.numpy().tolist()
    x.zero_()
    y = interface.to_torch(v)
    y.fill_(-1)
    assert v.numpy().tolist() == updated


def test_the_snapshot_outlives_the_variable(interface: Any) -> None:
    v = variable()
    x = interface.to_torch(v)
    del v
    scratch = [tf.Variable([float(i)] * 4) for i in range(10)]
    assert x.tolist() == VALUES
    del scratch


def test_releasing_the_snapshot_lets_updates_happen_in_place(interface: Any) -> None:
    v = variable()
    address = tf_data_address(v)
    x = interface.to_torch(v)
    del x
    v.assign_add([1.0] * 4)
    assert tf_data_address(v) == address, "a reference to the variable's buffer was left behind"


def test_two_variables_from_one_initial_value_stay_apart(interface: Any) -> None:
    initial = tf.constant(VALUES) * 1
    v, w = tf.Variable(initial), tf.Variable(initial)
    assert tf_data_address(v) == tf_data_address(w) == tf_data_address(initial)
    x, y = interface.to_torch(v), interface.to_torch(w)
    x.zero_()
    assert y.tolist() == VALUES
    assert v.numpy().tolist() == w.numpy().tolist() == initial.numpy().tolist() == VALUES
    w.assign_add([1.0] * 4)
    assert v.numpy().tolist() == y.tolist() == VALUES


def test_two_snapshots_of_one_variable_share_with_each_other(interface: Any) -> None:
    v = variable()
    with owners() as added:
        x, y = interface.to_torch(v), interface.to_torch(v)
        assert shares_memory(v, x)
        assert shares_memory(v, y)
        x.zero_()
        assert y.tolist() == VALUES
        assert added() == 2
        del x, y


@pytest.mark.parametrize(
    "row", [row for row in NUMERIC if tensorflow_has_variables_of(row)], ids=lambda row: row.name
)
def test_a_variable_of_every_dtype_converts_like_a_tensor(row: DtypeRow, interface: Any) -> None:
    t, data = tensor_and_bytes(row)
    v = tf.Variable(t)
    options = {"raw": True} if row.kind == "quantized" else {}
    x = interface.to_torch(v, **options)
    y = interface.to_torch(t, **options)
    assert x.dtype is y.dtype is torch_dtype(row.nearest)
    assert x.shape == (2, 3)
    assert torch_memory(x) == torch_memory(y)
    explanation = interface.explain(v, **options)
    assert explanation.tf_dtype == row.name
    if row.kind == "converted":
        assert explanation.action == "copied"
        assert_refused(interface, v, tensor_bridge.CopyRequiredError, "raw=True", copy=False)
        x = interface.to_torch(v, raw=True)
    else:
        assert explanation.action == "shared"
    assert shares_memory(v, x)
    assert torch_memory(x) == data
    x.zero_()
    assert tf_memory(v) == data


@pytest.mark.parametrize("options", [{}, {"raw": True}, {"copy": False}, {"copy": True}], ids=str)
def test_a_variable_without_numbers_is_refused(options: dict[str, Any], interface: Any) -> None:
    variants = tf.raw_ops.EmptyTensorList(
        element_shape=[1], max_num_elements=2, element_dtype=tf.float32
    )
    error = tensor_bridge.UnsupportedDtypeError
    assert_refused(interface, tf.Variable(variants), error, "dense tensors", **options)
    if interface is not tensor_bridge:  # only the module converts strings
        assert_refused(interface, tf.Variable(["a", "b"]), error, "decode_raw", **options)


def test_alias_is_refused(interface: Any) -> None:
    for v in (variable(), tf.Variable(1.0), tf.Variable([[True]])):
        assert_refused(
            interface,
            v,
            tensor_bridge.InvalidOptionError,
            r'on_write="copy", and variable.assign\(\)',
            on_write="alias",
        )


def test_a_read_value_is_an_ordinary_tensor(interface: Any) -> None:
    v = variable()
    for t in (v.read_value(), v.value(), tf.convert_to_tensor(v), tf.identity(v)):
        x = interface.to_torch(t)
        assert shares_memory(v, x)
        x.zero_()
        assert v.numpy().tolist() == VALUES


def test_options_work_on_variables(interface: Any) -> None:
    v = variable()
    with owners():
        copied = interface.to_torch(v, copy=True)
    assert not shares_memory(v, copied)
    assert copied.tolist() == VALUES
    assert shares_memory(v, interface.to_torch(v, copy=False, device="cpu"))
    q = tf.Variable(tf.bitcast(tf.constant([1, 2], tf.int8), tf.qint8))
    x = interface.to_torch(q, scale=0.5, zero_point=1)
    assert shares_memory(q, x)
    assert x.dequantize().tolist() == [0.0, 0.5]


def test_rank_and_emptiness(interface: Any) -> None:
    assert interface.to_torch(tf.Variable(3.0)).item() == 3.0
    for shape in ((0,), (0, 3), (3, 0)):
        v = tf.Variable(tf.zeros(shape))
        assert interface.to_torch(v).shape == shape
        assert interface.explain(v).shape == shape
        assert interface.to_torch(v, copy=False).shape == shape


def test_a_variable_may_change_its_shape(interface: Any) -> None:
    v = tf.Variable([1.0, 2.0], shape=tf.TensorShape(None))
    x = interface.to_torch(v)
    v.assign([[3.0], [4.0], [5.0]])
    y = interface.to_torch(v)
    assert x.tolist() == [1.0, 2.0]
    assert y.tolist() == [[3.0], [4.0], [5.0]]
    assert interface.explain(v).shape == (3, 1)
    v.assign(tf.zeros([0]))
    assert interface.to_torch(v).shape == (0,)


# ---- copy-on-read --------------------------------------------------------------------------------


SCATTERS = {
    "scatter_nd_update": lambda v: v.scatter_nd_update([[0]], [1.0]),
    "scatter_add": lambda v: v.scatter_add(tf.IndexedSlices(tf.constant([0.0]), tf.constant([1]))),
    "slice": lambda v: v[0].assign(1.0),
}


def copies_at_read(v: tf.Variable) -> bool:
    first, second = v.read_value(), v.read_value()
    return tf_data_address(first) != tf_data_address(second)


@pytest.mark.parametrize("scatter", SCATTERS.values(), ids=SCATTERS)
def test_what_tensorflow_copies_is_called_copied(scatter: Any, interface: Any) -> None:
    v = variable()
    scatter(v)
    assert copies_at_read(v)
    with owners() as added:
        x = interface.to_torch(v)
        assert x.tolist() == VALUES
        assert not shares_memory(v, x)
        assert added() == 1, "torch shares TensorFlow's copy"
        explanation = interface.explain(v)
        assert explanation.action == "copied"
        assert "copied by TensorFlow" in explanation.reason
        assert explanation.on_write == "copy"
        assert_refused(interface, v, tensor_bridge.CopyRequiredError, "copy=None", copy=False)
        x.add_(1)
        assert v.numpy().tolist() == VALUES
        # The mode belongs to the caller: no conversion switches it off.
        assert copies_at_read(v)
        v.assign(VALUES)
        assert interface.explain(v).action == "copied"
        del x


def test_a_copied_variable_shares_again_once_tensorflow_does(interface: Any) -> None:
    v = variable()
    v.scatter_nd_update([[0]], [1.0])
    assert interface.explain(v).action == "copied"
    v._read_variable_op(no_copy=True)
    assert not copies_at_read(v)
    assert interface.explain(v).action == "shared"
    x = interface.to_torch(v, copy=False)
    assert shares_memory(v, x)
    v.scatter_nd_update([[0]], [9.0])
    assert x.tolist() == VALUES


def test_explaining_leaves_the_variable_where_it_is(interface: Any) -> None:
    v = variable()
    address = tf_data_address(v)
    for _ in range(3):
        interface.explain(v)
        interface.explain(v, copy=False)
    v.assign_add([1.0] * 4)
    assert tf_data_address(v) == address


# ---- variables without a value to convert --------------------------------------------------------


def test_an_uninitialised_variable_is_refused(interface: Any) -> None:
    for dtype, shape in ((tf.float32, [2]), (tf.float32, [0]), (tf.int64, [])):
        v = resource_variable_ops.UninitializedVariable(shape=shape, dtype=dtype)
        assert_refused(interface, v, tensor_bridge.TensorFlowError, r"variable\.assign")
        assert_refused(interface, v, tensor_bridge.TensorFlowError, r"variable\.assign", copy=False)
        v.assign(tf.zeros(shape, dtype))
        assert interface.to_torch(v).shape == tuple(shape)


def test_a_variable_that_tensorflow_lost_is_refused(interface: Any) -> None:
    v = variable()
    name = f"lost_{id(v)}"
    v._handle = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[4], shared_name=name)
    tf.raw_ops.AssignVariableOp(resource=v.handle, value=tf.constant(VALUES))
    assert interface.to_torch(v).tolist() == VALUES
    tf.raw_ops.DestroyResourceOp(resource=v.handle)
    assert_refused(interface, v, tensor_bridge.TensorFlowError, f"(?s)could not read.*{name}")


def test_a_variable_is_symbolic_inside_a_function(interface: Any) -> None:
    v = variable()
    outcomes = []

    @tf.function(autograph=False)
    def traced() -> tf.Tensor:
        assert_refused(interface, v, tensor_bridge.SymbolicTensorError, r"tf\.py_function")
        outcomes.append("refused")
        return v + 1

    traced()
    assert outcomes == ["refused"]
    assert interface.to_torch(v).tolist() == VALUES


def test_a_variable_converts_inside_py_function_and_init_scope(interface: Any) -> None:
    v = variable()
    seen: list[list[float]] = []

    def body() -> None:
        seen.append(interface.to_torch(v).tolist())

    @tf.function(autograph=False)
    def traced() -> None:
        tf.py_function(body, [], [])
        with tf.init_scope():
            body()

    traced()
    assert seen == [VALUES, VALUES]


def test_a_variable_of_a_graph_is_refused_inside_and_outside(interface: Any) -> None:
    with tf.Graph().as_default():
        v = tf.Variable(VALUES)
        reference = tf.compat.v1.Variable(VALUES, use_resource=False)
        assert_refused(
            interface, v, tensor_bridge.SymbolicTensorError, "convert it before or after"
        )
    assert_refused(interface, v, tensor_bridge.SymbolicTensorError, "create the variable eagerly")
    assert_refused(
        interface, reference, tensor_bridge.UnsupportedTypeError, "convert the dense tensors"
    )


@needs.keras_3
def test_the_value_of_a_keras_variable_converts_through_every_interface(interface: Any) -> None:
    v = tf.keras.Variable(VALUES)
    if interface is not tensor_bridge:  # only the module accepts Keras variables
        assert_refused(interface, v, tensor_bridge.UnsupportedTypeError, r"variable\.value")
    x = interface.to_torch(v.value)
    assert shares_memory(v.value, x)
    v.assign_add([1.0] * 4)
    assert x.tolist() == VALUES


def test_a_keras_model_trains_on_while_its_weights_are_in_torch(interface: Any) -> None:
    tf.keras.utils.set_random_seed(1)
    model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])
    model.compile(tf.keras.optimizers.Adam(0.1), "mse")
    weights = [interface.to_torch(tf.convert_to_tensor(w)) for w in model.weights]
    at_first = [x.clone() for x in weights]
    model.fit(tf.ones([8, 3]), tf.zeros([8, 2]), epochs=2, verbose=0)
    for x, first, w in zip(weights, at_first, model.weights, strict=True):
        assert torch.equal(x, first)
        assert not torch.equal(interface.to_torch(tf.convert_to_tensor(w)), first)
