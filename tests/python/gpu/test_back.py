"""torch's GPU tensors to TensorFlow: complete values, which no later write changes."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf
import torch

import tensor_bridge

DTYPES = [
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
    torch.complex64,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(dtype: torch.dtype, interface: Any) -> None:
    x = torch.arange(12, device="cuda").reshape(3, 4).to(dtype)
    for device in (None, "GPU:0", "cuda:0", "CPU:0"):
        t = interface.to_tf(x, device=device)
        assert tuple(t.shape) == (3, 4)
        # TensorFlow always keeps int32 on the host.
        if device is not None and dtype != torch.int32:
            assert ("GPU" in t.device) == (device != "CPU:0")
        assert torch.equal(interface.to_torch(t, device="cpu"), x.cpu())


def test_queued_work_is_done_and_later_writes_are_not_seen(interface: Any) -> None:
    side = torch.cuda.Stream()
    for stream in (torch.cuda.default_stream(), side):
        for device in (None, "GPU:0"):
            with torch.cuda.stream(stream):
                x = torch.zeros(1 << 20, device="cuda")
                torch.cuda._sleep(200_000_000)
                x.add_(1)
                t = interface.to_tf(x, device=device)
                x.zero_()
            assert float(tf.reduce_sum(t)) == 1 << 20
            assert tf.reduce_min(t).numpy() == 1.0


def test_views_and_lazy_forms(interface: Any) -> None:
    x = torch.arange(12.0, device="cuda").reshape(3, 4)
    z = torch.complex(x, -x)
    for view in (x.t(), x[1:, ::2], x[0].expand(5, 4), z.conj(), z.imag, x.new_empty(0, 3)):
        t = interface.to_tf(view)
        assert torch.equal(interface.to_torch(t, device="cpu"), view.cpu().contiguous())


def test_onto_the_gpu_from_the_host(interface: Any) -> None:
    x = torch.arange(1000.0)
    t = interface.to_tf(x, device="GPU:0")
    assert "GPU" in t.backing_device
    x.zero_()
    assert float(tf.reduce_sum(t)) == 499500.0
    pinned = torch.arange(1000.0).pin_memory()
    t = interface.to_tf(pinned)
    pinned.zero_()
    assert float(tf.reduce_sum(t)) == 499500.0
    assert pinned.is_pinned()


def test_round_trip(interface: Any) -> None:
    t = tf.random.stateless_uniform([1000], [1, 2])
    x = interface.to_torch(t)
    for value in (x, x * 1):
        again = interface.to_tf(value, device="GPU:0")
        assert bool(tf.reduce_all(again == t))
    x.zero_()
    assert float(tf.reduce_sum(t)) > 0


def test_refusals(interface: Any) -> None:
    x = torch.ones(3, device="cuda")
    with pytest.raises(tensor_bridge.CopyRequiredError, match="not in host memory"):
        interface.to_tf(x, copy=False)
    with pytest.raises(tensor_bridge.UnsupportedDeviceError, match="GPU:7"):
        interface.to_tf(x, device="GPU:7")
    explain = getattr(interface, "explain_to_tf", interface.explain)
    assert explain(x).action == "copied"
