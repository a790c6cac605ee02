"""TensorFlow never writes to memory that torch still shows.

TensorFlow reuses an operand's buffer if it has no other holder, and updates variables in place on
the same condition. Here torch is the only other holder, because the operand has no name in Python.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from sharing import numbers

import tensor_bridge
from tensor_bridge.testing import tf_data_address, torch_data_address

SIZE = 1024
EXPECTED = torch.arange(float(SIZE))

Use = Callable[[tf.Tensor], Any]


def function(body: Use, **options: Any) -> Use:
    return tf.function(body, autograph=False, **options)


def assigned(update: Callable[[tf.Variable], Any]) -> Use:
    """A variable that takes over the operand's buffer and is then updated."""

    def use(t: tf.Tensor) -> tf.Variable:
        variable = tf.Variable(tf.zeros((SIZE,)))
        variable.assign(t)
        del t
        update(variable)
        return variable

    return use


def created(t: tf.Tensor) -> tf.Variable:
    variable = tf.Variable(t)
    del t
    variable.assign_add(tf.ones((SIZE,)))
    variable.assign_sub(tf.ones((SIZE,)) * 3)
    return variable


def looped(t: tf.Tensor) -> tf.Tensor:
    _, result = tf.while_loop(
        lambda i, _: i < 3, lambda i, x: (i + 1, tf.nn.relu(x) + 1), (tf.constant(0), t)
    )
    return result


def differentiated(t: tf.Tensor) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(t)
        y = tf.nn.relu(t * t) + tf.sin(t)
    return tape.gradient(y, t)


def array(t: tf.Tensor) -> Any:
    made = tf.TensorArray(tf.float32, 2).write(0, t).write(1, t * 2)
    return made.stack() + 1


def optimized(variable: tf.Variable) -> None:
    optimizer = tf.keras.optimizers.Adam(0.5)
    for _ in range(3):
        optimizer.apply_gradients([(tf.ones((SIZE,)), variable)])


def dataset(t: tf.Tensor) -> Any:
    data = tf.data.Dataset.from_tensors(t).map(tf.negative).batch(1)
    return list(data)


STEP = tf.constant([[0], [5]])
NEW = tf.constant([-1.0, -2.0])

USES: dict[str, Use] = {
    "relu": tf.nn.relu,
    "negative": tf.negative,
    "add": lambda t: t + 1.0,
    "mul by itself": lambda t: t * t,
    "cast": lambda t: tf.cast(t, tf.float32) * 2.0,
    "scatter update": lambda t: tf.tensor_scatter_nd_update(t, STEP, NEW),
    "scatter add": lambda t: tf.tensor_scatter_nd_add(t, STEP, NEW),
    "clip": lambda t: tf.clip_by_value(t, 3.0, 5.0),
    "reshape and add": lambda t: tf.reshape(t, (2, -1)) + 1.0,
    "softmax": tf.nn.softmax,
    "cumsum": tf.cumsum,
    "sort": lambda t: tf.sort(t, direction="DESCENDING"),
    "bias add": lambda t: tf.nn.bias_add(tf.reshape(t, (2, -1)), tf.ones((SIZE // 2,))),
    "accumulate": lambda t: tf.add_n([t, t, tf.ones((SIZE,))]),
    "random shuffle": tf.random.shuffle,
    "while loop": looped,
    "gradient": differentiated,
    "tensor array": array,
    "dataset": dataset,
    "function": function(lambda t: tf.nn.relu(-t) + 1.0),
    "function that updates": function(lambda t: tf.tensor_scatter_nd_update(t, STEP, NEW)),
    "function with a loop": function(looped),
    "compiled function": function(lambda t: tf.nn.relu(-t) + 1.0, jit_compile=True),
    "compiled function that updates": function(
        lambda t: tf.tensor_scatter_nd_update(t, STEP, NEW), jit_compile=True
    ),
    "variable, created": created,
    "variable, add": assigned(lambda v: v.assign_add(tf.ones((SIZE,)))),
    "variable, scatter": assigned(lambda v: v.scatter_nd_update(STEP, NEW)),
    "variable, slice": assigned(lambda v: v[:3].assign([-1.0, -1.0, -1.0])),
    "variable, function": assigned(function(lambda v: v.assign_add(tf.ones((SIZE,))))),
    "variable, optimizer": assigned(optimized),
}


@pytest.mark.parametrize("written", [False, True], ids=["shared", "after a write"])
@pytest.mark.parametrize("use", USES)
def test_operation_leaves_torch_alone(use: str, written: bool, interface: Any) -> None:
    box = [numbers((SIZE,))]
    x = interface.to_torch(box[0])
    # A pointer from before the write shows TensorFlow's memory as long as the storage lives.
    source = torch_data_address(x)
    if written:
        x.add_(1)
    expected = EXPECTED + int(written)
    kept = [USES[use](box.pop())]
    gc.collect(0)
    assert torch.equal(x, expected)
    kept.clear()
    kept.extend(tf.fill((SIZE,), -7.0) for _ in range(20))
    assert torch.equal(x, expected)
    assert (torch_data_address(x) == source) is not written
    assert tensor_bridge.testing.live_owners() >= 1


def test_the_one_operation_that_writes_through_aliases() -> None:
    """It writes to every holder's memory, even TensorFlow's own, as documented: "creates an alias".

    If this fails, TensorFlow no longer does that: move the operation to the list above.
    """
    t = numbers((4, 6))
    alias = tf.identity(t)
    x = tensor_bridge.to_torch(t)
    tf.raw_ops.InplaceUpdate(x=t, i=[1], v=tf.zeros((1, 6)))
    assert not tf.math.count_nonzero(alias[1])
    assert not x[1].any()
    assert float(x[2, 0]) == 12


@needs.tensorflow_since(21, "nobody looked whether it does the same")
def test_tensorflow_takes_a_slice_of_memory_of_others_for_its_own() -> None:
    """This happens without tensor_bridge too: TensorFlow's SubBuffer does not forward OwnsMemory.

    If this fails, TensorFlow has fixed it: delete this test, `tensorflow_writes` in
    support/sharing_model.py and the paragraph on slices in docs/concepts/write_protection.md.
    """
    x = torch.zeros(8, 32)
    whole = tf.experimental.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(x))
    part = whole[5]
    assert tf_data_address(part) == torch_data_address(x[5])
    del whole
    variable = tf.Variable(part)
    del part
    variable.assign_add(tf.ones(32))
    assert x[5].eq(1).all()


SLICES: dict[str, Callable[[torch.Tensor], tf.Tensor]] = {
    "in torch": lambda x: tensor_bridge.to_tf(x[5]),
    "of a copy": lambda x: tensor_bridge.to_tf(x, copy=True)[5],
}


@pytest.mark.parametrize("how", SLICES)
def test_a_variable_over_a_slice_leaves_torch_alone(how: str) -> None:
    """The two safe ways in the documentation."""
    x = torch.zeros(8, 32)
    variable = tf.Variable(SLICES[how](x))
    variable.assign_add(tf.ones(32))
    variable.scatter_nd_update([[0]], [7.0])
    assert not x.any()
    assert variable[0] == 7
    assert variable[1] == 1
