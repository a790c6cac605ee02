"""The host waits for the device as often as with TensorFlow alone."""

from __future__ import annotations

import time
from collections.abc import Callable

import emulator
import pytest
import tensorflow as tf
import torch

import tensor_bridge
from tensor_bridge.dlpack import exporter
from tensor_bridge.testing import live_owners, tf_data_address

SIZE = 1 << 10


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert condition()


def waits_in(action: Callable[[], object]) -> list[str]:
    """The waits of all threads, until everything that the action dropped is released."""
    wait_until(lambda: live_owners() == 0)
    with emulator.logged() as calls:
        action()
        wait_until(lambda: live_owners() == 0)
    assert not [call for call in calls if "DeviceSynchronize" in call.name]
    return [call.text for call in emulator.host_waits(calls)]


CONVERSIONS: dict[str, Callable[[tf.Tensor], object]] = {
    "shared": lambda t: tensor_bridge.to_torch(t) * 2,
    "shared and written to": lambda t: tensor_bridge.to_torch(t).add_(1),
    "shared and its address asked for": lambda t: tensor_bridge.to_torch(t).data_ptr(),
    "copied": lambda t: tensor_bridge.to_torch(t, copy=True) * 2,
    "through DLPack": lambda t: torch.from_dlpack(exporter(t)) * 2,
}


@pytest.mark.parametrize("side", [False, True])
@pytest.mark.parametrize("conversion", CONVERSIONS)
def test_a_conversion_waits_for_tensorflow_alone(conversion: str, side: bool) -> None:
    t = tf.fill([SIZE], 1.0)
    stream = torch.cuda.Stream() if side else torch.cuda.default_stream()
    with torch.cuda.stream(stream):
        CONVERSIONS[conversion](t)  # torch allocates
        torch.cuda.synchronize()
        expected = waits_in(lambda: tf_data_address(t))
        assert len(expected) == 1
        assert waits_in(lambda: CONVERSIONS[conversion](t)) == expected


def test_a_training_loop_waits_as_often_as_without_us() -> None:
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(8, 1, generator=generator).cuda().requires_grad_()

    def train(convert: Callable[[tf.Tensor], torch.Tensor]) -> None:
        for step in range(20):
            batch = convert(tf.reshape(tf.range(32.0) + step, [4, 8]))
            target = convert(tf.fill([4, 1], 1.0))
            batch.div_(100)
            loss = ((batch @ weights - target) ** 2).mean()
            (gradient,) = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                weights.sub_(gradient, alpha=0.1)

    def without_us(t: tf.Tensor) -> torch.Tensor:
        tf_data_address(t)
        return torch.ones(tuple(t.shape), device="cuda")

    for convert in (without_us, tensor_bridge.to_torch):
        train(convert)  # torch allocates
        torch.cuda.synchronize()
    assert waits_in(lambda: train(tensor_bridge.to_torch)) == waits_in(lambda: train(without_us))
