"""Checks of refused conversions: typed, helpful, without a leak, and with the same explanation."""

from __future__ import annotations

import gc
import re
from functools import partial
from typing import Any

import pytest

import tensor_bridge

BUILTIN_BASES: dict[type[Exception], type[Exception]] = {
    tensor_bridge.InvalidOptionError: ValueError,
    tensor_bridge.UnsupportedDtypeError: TypeError,
    tensor_bridge.UnsupportedTypeError: TypeError,
    tensor_bridge.SymbolicTensorError: TypeError,
    tensor_bridge.CopyRequiredError: BufferError,
    tensor_bridge.UnsupportedDeviceError: ValueError,
    tensor_bridge.InvalidHandleError: ValueError,
    tensor_bridge.TensorFlowError: RuntimeError,
    tensor_bridge.TorchError: RuntimeError,
    tensor_bridge.FrameworkError: ImportError,
    tensor_bridge.OutOfMemoryError: MemoryError,
    tensor_bridge.MismatchError: ValueError,
    tensor_bridge.ValueRangeError: ValueError,
    tensor_bridge.CheckpointError: ValueError,
    tensor_bridge.CheckpointNotFoundError: FileNotFoundError,
    tensor_bridge.UnsupportedFileError: ValueError,
    tensor_bridge.InternalError: RuntimeError,
    tensor_bridge.PipelineError: RuntimeError,
    tensor_bridge.DataServiceError: ConnectionError,
    tensor_bridge.RecordError: ValueError,
    tensor_bridge.RecordNotFoundError: FileNotFoundError,
    tensor_bridge.ResumeError: RuntimeError,
    tensor_bridge.WorkerProcessError: RuntimeError,
    tensor_bridge.WorldChangedError: RuntimeError,
    tensor_bridge.GradientError: RuntimeError,
}


def assert_as_many(before: int) -> None:
    """Asserts as many owners as before; on a GPU, earlier drops may be released meanwhile."""
    import torch

    left = tensor_bridge.testing.live_owners()
    assert left == before or (left < before and torch.cuda.is_initialized())


def explained(interface: Any, x: Any, **options: Any) -> tensor_bridge.Explanation:
    """The interface's explanation of the conversion to TensorFlow."""
    explain = getattr(interface, "explain_to_tf", interface.explain)
    explanation: tensor_bridge.Explanation = explain(x, **options)
    return explanation


def assert_refused(
    interface: Any, value: Any, error: type[Exception], advice: str, **options: Any
) -> None:
    """``to_torch`` raises exactly ``error``, whose message matches ``advice``; nothing leaks.

    Args:
      interface: The object with to_torch and explain.
      value: The value to convert.
      error: The class, not a base of it.
      advice: Regular expression for the part of the message that says what to do.
      options: Keywords of the conversion.
    """
    explanation = _refused(interface.to_torch, interface.explain, value, error, advice, options)
    assert explanation.torch_dtype is explanation.device is explanation.nbytes is None


def assert_to_tf_refused(
    interface: Any, x: Any, error: type[Exception], advice: str, **options: Any
) -> None:
    """The same for ``to_tf``."""
    _refused(interface.to_tf, partial(explained, interface), x, error, advice, options)


def _refused(
    convert: Any, explain: Any, value: Any, error: type[Exception], advice: str, options: Any
) -> tensor_bridge.Explanation:
    before = tensor_bridge.testing.live_owners()
    with pytest.raises(BUILTIN_BASES[error]) as caught:
        convert(value, **options)
    message = str(caught.value)
    assert type(caught.value) is error
    assert isinstance(caught.value, tensor_bridge.TensorBridgeError)
    assert re.search(advice, message), message
    assert "builtins." not in message
    del caught
    gc.collect(0)
    assert_as_many(before)
    explanation: tensor_bridge.Explanation = explain(value, **options)
    assert explanation.action == "refused"
    assert explanation.error is error
    assert explanation.reason == message
    assert str(explanation).startswith(f"refused ({error.__name__})")
    assert_as_many(before)
    return explanation
