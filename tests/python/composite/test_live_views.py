"""A live view writes only to its variable, until TensorFlow updates the variable."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from fresh import run_forked
from refusals import assert_refused
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
from tensor_bridge import DtypeRow, LiveView
from tensor_bridge.testing import shares_memory, tf_data_address, torch_data_address

VALUES = [1.0, 2.0, 3.0, 4.0]


def variable(values: Any = VALUES) -> tf.Variable:
    return tf.Variable(values)


def live(v: Any, **options: Any) -> LiveView:
    view = tensor_bridge.to_torch(v, live=True, **options)
    assert type(view) is LiveView
    return view


def values_of(v: Any) -> list[Any]:
    return tensor_bridge.to_torch(v).tolist()


# ---- both ways -----------------------------------------------------------------------------------


def test_writes_go_through_to_the_variable() -> None:
    v = variable()
    with owners() as added:
        view = live(v)
        assert view.valid
        assert view.variable is v
        assert view.tensor.tolist() == VALUES
        assert shares_memory(v, view.tensor)
        assert added() == 1
        view.tensor[1:3].mul_(10)
        assert values_of(v) == [1.0, 20.0, 30.0, 4.0]
        view.tensor.zero_()
        assert values_of(v) == [0.0] * 4
        assert view.valid
        del view


def test_functions_and_optimizers_see_what_torch_wrote() -> None:
    v = variable()
    double = tf.function(lambda: v * 2, autograph=False)
    assert values_of(double()) == [2.0, 4.0, 6.0, 8.0]
    view = live(v)
    view.tensor.fill_(5)
    assert values_of(double()) == [10.0] * 4
    v.assign_sub([1.0] * 4)
    assert values_of(v) == [4.0] * 4
    assert view.tensor.tolist() == [5.0] * 4


def test_torch_trains_a_tensorflow_variable() -> None:
    v = variable()
    view = live(v)
    optimizer = torch.optim.SGD([view.tensor.requires_grad_()], lr=0.5)
    (view.tensor * 2).sum().backward()
    optimizer.step()
    assert values_of(v) == [0.0, 1.0, 2.0, 3.0]
    assert view.valid


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0), (2, 3), (1, 2, 3)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    v = tf.Variable(tf.ones(shape))
    view = live(v)
    assert view.valid
    assert tuple(view.tensor.shape) == shape
    view.tensor.add_(1)
    assert tf.reduce_all(v == 2)
    v.assign(tf.zeros(shape))
    assert view.valid is (0 in shape)


# ---- to nothing else -----------------------------------------------------------------------------


def test_the_initial_value_and_other_variables_keep_theirs() -> None:
    initial = tf.constant(VALUES) * 1
    v, w = tf.Variable(initial), tf.Variable(initial)
    earlier = v.read_value()
    snapshot = tensor_bridge.to_torch(v)
    assert tf_data_address(v) == tf_data_address(w) == tf_data_address(initial)
    view = live(v)
    assert tf_data_address(w) == tf_data_address(initial)
    view.tensor.zero_()
    for kept in (initial, w, earlier):
        assert values_of(kept) == VALUES
    assert snapshot.tolist() == VALUES
    assert values_of(v) == [0.0] * 4


def test_a_tape_keeps_what_it_read_before() -> None:
    v = variable()
    with tf.GradientTape() as tape:
        y = v * v
    live(v).tensor.zero_()
    assert values_of(tape.gradient(y, v)) == [2.0, 4.0, 6.0, 8.0]


def test_what_is_read_after_the_call_may_change_with_it() -> None:
    """As documented: the reader shares the variable's buffer, to which torch writes."""
    v = variable()
    view = live(v)
    later = v.read_value()
    view.tensor.zero_()
    assert values_of(later) == [0.0] * 4


# ---- the end -------------------------------------------------------------------------------------


def slices(value: float, index: int) -> tf.IndexedSlices:
    return tf.IndexedSlices(tf.constant([value]), tf.constant([index]))


UPDATES: dict[str, Callable[[tf.Variable], Any]] = {
    "assign a list": lambda v: v.assign([9.0, 8.0, 7.0, 6.0]),
    "assign a tensor": lambda v: v.assign(tf.constant([9.0, 8.0, 7.0, 6.0])),
    "assign_add": lambda v: v.assign_add([1.0] * 4),
    "assign_sub": lambda v: v.assign_sub([1.0] * 4),
    "slice assign": lambda v: v[1:3].assign([7.0, 8.0]),
    "scatter_nd_update": lambda v: v.scatter_nd_update([[0], [2]], [9.0, 7.0]),
    "scatter_update": lambda v: v.scatter_update(slices(9.0, 1)),
    "scatter_add": lambda v: v.scatter_add(slices(9.0, 1)),
    "batch_scatter_update": lambda v: v.batch_scatter_update(slices(9.0, 1)),
    "gradient descent": lambda v: tf.raw_ops.ResourceApplyGradientDescent(
        var=v.handle, alpha=1.0, delta=tf.ones([4]), use_locking=True
    ),
    "keras Adam": lambda v: tf.keras.optimizers.Adam(0.5).apply_gradients([(tf.ones_like(v), v)]),
    "assign_add in a function": lambda v: tf.function(
        lambda: v.assign_add([1.0] * 4), autograph=False
    )(),
    "assign_add in a compiled function": lambda v: tf.function(
        lambda: v.assign_add([1.0] * 4), autograph=False, jit_compile=True
    )(),
    "torch's assign": lambda v: tensor_bridge.assign(v, torch.tensor([9.0, 8.0, 7.0, 6.0])),
    "another live view": lambda v: v.assign(values_of(live(v).variable)),
}


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_an_update_ends_the_view_and_leaves_the_tensor(
    update: Callable[[tf.Variable], Any],
) -> None:
    v = variable()
    with owners():
        view = live(v)
        old = view.tensor
        old.copy_(torch.tensor([5.0, 6.0, 7.0, 8.0]))
        update(v)
        after = values_of(v)
        assert not view.valid
        assert old.tolist() == [5.0, 6.0, 7.0, 8.0]
        old.zero_()
        assert values_of(v) == after, "a write to an ended view reaches the variable"
        # A new view of the value that TensorFlow has set.
        new = view.refresh()
        assert new is view.tensor
        assert new is not old
        assert view.valid
        assert new.tolist() == after
        new.add_(1)
        assert values_of(v) == [x + 1 for x in after]
        assert old.tolist() == [0.0] * 4
        v.assign(tf.zeros([4]))
        del view, old, new


def test_restoring_a_checkpoint_ends_the_view(tmp_path: Any) -> None:
    v = variable()
    path = tf.train.Checkpoint(v=v).save(str(tmp_path / "checkpoint"))
    view = live(v)
    view.tensor.zero_()
    tf.train.Checkpoint(v=v).restore(path).assert_consumed()
    assert not view.valid
    assert values_of(v) == VALUES


def test_a_checkpoint_saves_what_torch_wrote(tmp_path: Any) -> None:
    v, w = variable(), variable()
    live(v).tensor.fill_(7)
    path = tf.train.Checkpoint(v=v).save(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(v=w).restore(path).assert_consumed()
    assert values_of(w) == [7.0] * 4


def test_refreshing_a_valid_view_changes_nothing() -> None:
    v = variable()
    view = live(v)
    tensor, address = view.tensor, tf_data_address(v)
    assert view.refresh() is tensor
    assert tf_data_address(v) == address


def test_a_second_view_ends_the_first() -> None:
    v = variable()
    first, second = live(v), live(v)
    assert not first.valid
    assert second.valid
    first.tensor.zero_()
    assert values_of(v) == VALUES == second.tensor.tolist()


def test_a_view_that_torch_moved_is_not_valid() -> None:
    v = variable()
    view = live(v)
    view.tensor.set_(torch.zeros(4))
    assert not view.valid
    assert values_of(v) == VALUES
    assert view.refresh().tolist() == VALUES


def test_a_view_of_a_deleted_variable_is_not_valid() -> None:
    v = variable()
    v._handle = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[4], shared_name=f"live_{id(v)}")
    tf.raw_ops.AssignVariableOp(resource=v.handle, value=tf.constant(VALUES))
    view = live(v)
    assert view.valid
    tf.raw_ops.DestroyResourceOp(resource=v.handle)
    assert not view.valid
    assert view.tensor.tolist() == VALUES
    with pytest.raises(tensor_bridge.TensorFlowError):
        view.refresh()


def test_a_variable_that_changes_its_shape_ends_the_view() -> None:
    v = tf.Variable([1.0, 2.0], shape=tf.TensorShape(None))
    view = live(v)
    v.assign(tf.zeros([0]))
    assert not view.valid
    assert view.refresh().shape == (0,)
    assert view.valid


def test_the_tensor_outlives_view_and_variable() -> None:
    v = variable()
    with owners() as added:
        view = live(v)
        tensor, gone = view.tensor, weakref.ref(view)
        del view, v
        gc.collect()
        assert gone() is None
        tensor.add_(1)
        assert tensor.tolist() == [2.0, 3.0, 4.0, 5.0]
        assert added() == 1
        del tensor


# ---- copy-on-read --------------------------------------------------------------------------------


def test_a_variable_that_is_copied_at_each_read_can_be_live() -> None:
    v = variable()
    v.scatter_nd_update([[0]], [9.0])
    assert tensor_bridge.explain(v).action == "copied"
    assert tensor_bridge.explain(v, live=True).action == "shared"
    assert tensor_bridge.explain(v).action == "copied", "explaining changed the mode"
    view = live(v)
    assert view.valid
    view.tensor.zero_()
    assert values_of(v) == [0.0] * 4
    v.scatter_nd_update([[0]], [3.0])
    assert not view.valid
    assert view.tensor.tolist() == [0.0] * 4
    assert view.refresh().tolist() == [3.0, 0.0, 0.0, 0.0]
    assert view.valid


# ---- dtypes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row", [row for row in NUMERIC if tensorflow_has_variables_of(row)], ids=lambda row: row.name
)
def test_every_dtype_is_live_or_refused_before_the_variable_moves(row: DtypeRow) -> None:
    data = random_bytes(row, 6)
    v = tf.Variable(tf_tensor(row, (2, 3), data))
    address = tf_data_address(v)
    options = {"raw": True} if row.kind in ("quantized", "viewed", "converted") else {}
    explanation = tensor_bridge.explain(v, live=True, **options)
    assert tf_data_address(v) == address
    if explanation.action == "refused":
        assert row.itemsize == 1, "only float8, int4 and their kin"
        assert_refused(
            tensor_bridge, v, tensor_bridge.UnsupportedDtypeError, "assign", live=True, **options
        )
        assert tf_data_address(v) == address
        return
    assert explanation.on_write == "alias"
    view = live(v, **options)
    assert torch_memory(view.tensor) == tf_memory(v) == data
    assert shares_memory(v, view.tensor)
    view.tensor.zero_()
    assert tf_memory(v) == bytes(6 * row.itemsize)
    assert view.valid


def test_which_dtypes_are_live() -> None:
    """If a new TensorFlow copies more of them, remove them here and in the docs."""
    refused = []
    for row in NUMERIC:
        if not tensorflow_has_variables_of(row):
            continue
        v = tf.Variable(tf_tensor(row, (1,), random_bytes(row, 1)))
        if tensor_bridge.explain(v, live=True, raw=True).action == "refused":
            refused.append(row.name)
    known = ["float4_e2m1fn", "float8_e4m3fn", "float8_e5m2", "int2", "int4", "uint2", "uint4"]
    there = [row.name for row in NUMERIC if tensorflow_has_variables_of(row)]
    assert sorted(refused) == [name for name in known if needs.ALL_IS_THERE or name in there]


def test_values_are_moved_bit_for_bit() -> None:
    row = next(row for row in NUMERIC if row.name == "float32")
    # -0.0, a signalling NaN with a payload, a subnormal.
    data = b"\x00\x00\x00\x80" + b"\x01\x02\xa0\x7f" + b"\x01\x00\x00\x00"
    v = tf.Variable(tf_tensor(row, (3,), data))
    assert torch_memory(live(v).tensor) == tf_memory(v) == data


# ---- keywords ------------------------------------------------------------------------------------


def test_contradicting_keywords_are_refused_before_the_variable_moves() -> None:
    v = variable()
    address = tf_data_address(v)
    for error, advice, options in (
        (tensor_bridge.InvalidOptionError, "leave one out", {"copy": True}),
        (tensor_bridge.CopyRequiredError, "copy=None", {"copy": False}),
        (tensor_bridge.InvalidOptionError, "leave one out", {"on_write": "raise"}),
        (tensor_bridge.InvalidOptionError, "True or False", {"raw": 1}),
        (tensor_bridge.InvalidOptionError, "device", {"device": "nothing"}),
    ):
        assert_refused(tensor_bridge, v, error, advice, live=True, **options)
        assert tf_data_address(v) == address
    for wrong in ("yes", 1, None):
        with pytest.raises(tensor_bridge.InvalidOptionError, match="live must be"):
            tensor_bridge.to_torch(v, live=wrong)
        assert tensor_bridge.explain(v, live=wrong).error is tensor_bridge.InvalidOptionError
    assert live(v, on_write="alias").valid
    assert live(v, on_write="copy", device="cpu").valid


def test_explaining_moves_nothing() -> None:
    v = variable()
    address = tf_data_address(v)
    explanation = tensor_bridge.explain(v, live=True)
    assert (explanation.action, explanation.on_write) == ("shared", "alias")
    assert "until TensorFlow's next update" in explanation.reason
    assert tf_data_address(v) == address


def test_a_view_inside_a_function_is_refused() -> None:
    v = variable()
    view = live(v)

    @tf.function(autograph=False)
    def traced() -> None:
        assert_refused(
            tensor_bridge, v, tensor_bridge.SymbolicTensorError, r"tf\.py_function", live=True
        )
        with pytest.raises(tensor_bridge.SymbolicTensorError):
            _ = view.valid

    traced()
    assert view.valid


def test_uninitialised_variables_are_refused() -> None:
    from tensorflow.python.ops import resource_variable_ops

    v = resource_variable_ops.UninitializedVariable(shape=[2], dtype=tf.float32)
    assert_refused(tensor_bridge, v, tensor_bridge.TensorFlowError, r"variable\.assign", live=True)


def test_live_concerns_variables_only() -> None:
    t = tf.constant([1.0, 2.0])
    x = tensor_bridge.to_torch({"t": t, "v": variable()}, live=True)
    assert type(x["t"]) is torch.Tensor
    assert type(x["v"]) is LiveView
    x["t"].zero_()
    assert t.numpy().tolist() == [1.0, 2.0]


# ---- views that go to TensorFlow ----------------------------------------------------------------


def test_a_view_goes_to_tf_as_a_copy_of_its_values() -> None:
    v = variable()
    view = live(v)
    t = tensor_bridge.to_tf(view)
    assert tensor_bridge.explain(view).action == "copied"
    view.tensor.zero_()
    assert t.numpy().tolist() == VALUES
    with pytest.raises(tensor_bridge.CopyRequiredError, match=r"view\.variable"):
        tensor_bridge.to_tf(view, copy=False)
    assert tensor_bridge.explain(view, copy=False).action == "refused"
    both = tensor_bridge.to_torch([view, tf.constant(1)])
    assert both[0] is view, "a view in a structure is torch's already"


def test_repr_tells_name_shape_and_dtype() -> None:
    v = tf.Variable(VALUES, name="weights")
    assert repr(live(v)) == "LiveView('weights:0', shape=(4,), dtype=torch.float32)"
    assert torch_data_address(live(v).tensor) == tf_data_address(v)


def test_a_child_that_was_forked_while_views_were_counted_can_count_them() -> None:
    run_forked(
        """
import os, signal, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: of a fork beside threads
from tensor_bridge.composite import live_view
v = tf.Variable([1.0])
view = tensor_bridge.to_torch(v, live=True)
held, free = threading.Event(), threading.Event()
def hold():
    with live_view._views_lock:
        held.set()
        free.wait(1)  # the fork waits for this thread, or it does not
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(60)
    tensor_bridge.to_torch(v, live=True)
    os._exit(0)
free.set()
assert os.waitpid(child, 0)[1] == 0
"""
    ).check()
