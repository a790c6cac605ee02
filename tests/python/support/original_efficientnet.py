"""EfficientNet under the names, and with the equations, of tensorflow/tpu; tiny, weights random.

Trained for one step, so that the moving averages of its weights differ from the weights.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf
import torch
from original_models import scope, session_of_graph, tf1, variable


class Stage(NamedTuple):
    """Blocks of one kind. All sizes in channels are four times what a model of this width has."""

    kernel: int
    repeats: int
    inputs: int
    outputs: int
    expansion: int
    stride: int


# As in the published ones the first does not expand; none but repeats keep size and channels.
STAGES = (Stage(3, 1, 32, 64, 1, 1), Stage(5, 2, 64, 96, 6, 2), Stage(3, 1, 96, 128, 4, 2))
WIDTH = 0.25


def _inputs(kernel: int, channels: int) -> int:
    """Of a convolution, so that its output is as large as its input though swish halves it."""
    return max(1, kernel * kernel * channels // 4)


def _conv(x: Any, filters: int, kernel: int = 1, stride: int = 1, bias: bool = False) -> Any:
    # Names are numbered in their scope, as in TensorFlow 1: conv2d, conv2d_1.
    with scope(None, default_name="conv2d"):
        x = tf.nn.conv2d(
            x, variable("kernel", kernel, kernel, x.shape[-1], filters), stride, "SAME"
        )
        return x + variable("bias", filters) if bias else x


def _depthwise(x: Any, kernel: int, stride: int) -> Any:
    with scope("depthwise_conv2d"):
        shape = (kernel, kernel, x.shape[-1], 1)
        weights = variable("depthwise_kernel", *shape, inputs=_inputs(kernel, 1))
    return tf.nn.depthwise_conv2d(x, weights, (1, stride, stride, 1), "SAME")


def _statistic(name: str, size: int, lowest: float) -> Any:
    initial = tf.random.uniform((size,), lowest, lowest + 1.0)
    kept = (tf1.GraphKeys.GLOBAL_VARIABLES, tf1.GraphKeys.MOVING_AVERAGE_VARIABLES)
    return tf1.get_variable(name, initializer=initial, trainable=False, collections=kept)


def _norm(x: Any) -> Any:
    size = x.shape[-1]
    with scope(None, default_name="tpu_batch_normalization"):
        gamma, beta = variable("gamma", size, around=1.0), variable("beta", size)
        mean = _statistic("moving_mean", size, -0.5)
        variance = _statistic("moving_variance", size, 0.5)
    return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)


def _block(x: Any, stage: Stage, stride: int) -> Any:
    inputs = x
    if stage.expansion != 1:
        x = tf.nn.swish(_norm(_conv(x, x.shape[-1] * stage.expansion)))
    x = tf.nn.swish(_norm(_depthwise(x, stage.kernel, stride)))
    with scope("se"):
        squeezed = tf.reduce_mean(x, (1, 2), keepdims=True)
        squeezed = tf.nn.swish(_conv(squeezed, inputs.shape[-1] // 4, bias=True))
        x *= tf.sigmoid(_conv(squeezed, x.shape[-1], bias=True))
    x = _norm(_conv(x, int(stage.outputs * WIDTH)))
    return x + inputs if stride == 1 and x.shape == inputs.shape else x


def efficientnet(pictures: Any, name: str, depth: float, classes: int) -> Any:
    """The logits; ``name`` is the scope of all variables, as in "efficientnet-b0"."""
    with scope(name):
        with scope("stem"):
            x = tf.nn.swish(_norm(_conv(pictures, int(32 * WIDTH), 3, 2)))
        number = 0
        for stage in STAGES:
            for repeat in range(math.ceil(stage.repeats * depth)):
                with scope(f"blocks_{number}"):
                    x = _block(x, stage, 1 if repeat else stage.stride)
                number += 1
        with scope("head"):
            x = tf.nn.swish(_norm(_conv(x, int(1280 * WIDTH))))
            x = tf.reduce_mean(x, (1, 2))
            with scope("dense"):
                return x @ variable("kernel", x.shape[-1], classes) + variable("bias", classes)


def save(pictures: Any, prefix: Path, name: str, depth: float, classes: int = 5) -> dict[str, Any]:
    """Trains, saves weights, averages and the optimizer's state.

    Returns:
      Logits with the weights ("weights") and, as tensorflow/tpu evaluates, with the averages.
    """
    with tf.Graph().as_default(), session_of_graph() as session:
        tf1.set_random_seed(23)
        logits = efficientnet(tf.constant(pictures), name, depth, classes)
        averages = tf1.train.ExponentialMovingAverage(0.7)
        averaged = tf1.trainable_variables() + tf1.moving_average_variables()
        # Gradients that need no pass backwards: only that all change, and what is kept, matters.
        gradients = [(0.1 * v, v) for v in tf1.trainable_variables()]
        step = tf1.train.get_or_create_global_step()
        train = tf1.train.RMSPropOptimizer(0.01, momentum=0.9).apply_gradients(gradients, step)
        statistics = [tf1.assign(v, 1.2 * v) for v in tf1.moving_average_variables()]
        update = averages.apply(averaged)
        session.run(tf1.global_variables_initializer())
        for operation in (train, statistics, update):
            session.run(operation)
        tf1.train.Saver().save(session, str(prefix))
        found = {"weights": torch.from_numpy(session.run(logits))}
        tf1.train.Saver(averages.variables_to_restore(averaged)).restore(session, str(prefix))
        return {**found, "averages": torch.from_numpy(session.run(logits))}
