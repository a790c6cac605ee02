"""A failure in TensorFlow by a call of ours does not make the caller's later operations fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.eager.executor import new_executor

from tensor_bridge import TensorFlowError, to_torch
from tensor_bridge.data import PipelineError, loader


def is_even(i: tf.Tensor) -> tf.Tensor:
    with tf.control_dependencies([tf.debugging.assert_equal(i % 2, tf.constant(0, i.dtype))]):
        return tf.identity(i)


def read_to_the_end() -> None:
    assert len(list(loader(tf.data.Dataset.range(3)))) == 3


def read_to_the_end_on_a_gpu() -> None:
    dataset = tf.data.Dataset.range(3).apply(tf.data.experimental.copy_to_device("/gpu:0"))
    assert len(list(loader(dataset))) == 3


def fail_in_a_map() -> None:
    with pytest.raises(PipelineError):
        list(loader(tf.data.Dataset.range(3).map(is_even)))


def fail_in_the_callers_thread() -> None:
    elements = iter(loader(tf.data.Dataset.range(300).map(is_even), prefetch=0))
    next(elements)
    with pytest.raises(PipelineError):
        next(elements)


def without_a_resource(variable: tf.Variable) -> tf.Variable:
    variable._handle = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[1], shared_name="gone")
    return variable


def read_a_variable_without_a_resource() -> None:
    with pytest.raises(TensorFlowError):
        to_torch(without_a_resource(tf.Variable([1.0])))


def ask_for_a_deleted_variable() -> None:
    variable = tf.Variable([1.0])
    view = to_torch(variable, live=True)
    without_a_resource(variable)
    assert not view.valid


@pytest.mark.parametrize(
    "act",
    [
        read_to_the_end,
        read_to_the_end_on_a_gpu,
        fail_in_a_map,
        fail_in_the_callers_thread,
        read_a_variable_without_a_resource,
        ask_for_a_deleted_variable,
    ],
)
def test_an_asynchronous_executor_runs_what_comes_after(act: Callable[[], None]) -> None:
    act()
    executor = new_executor(enable_async=True)
    with context.executor_scope(executor):
        # The first operation that copies a tensor to the GPU would see the error.
        made = tf.fill([4], 1.0)
        executor.wait()
    assert made.device.endswith("GPU:0")
