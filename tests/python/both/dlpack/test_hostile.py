"""Wrong DLPack structures and used capsules: typed errors, and each deleter runs once."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from typing import Any

import dl_structures as dl
import needs
import numpy as np
import pytest
import tensorflow as tf
import torch
from hostile_objects import lying
from hypothesis import given, settings
from hypothesis import strategies as st
from sharing import owners

import tensor_bridge
from tensor_bridge.dlpack import Exporter, exporter, from_dlpack
from tensor_bridge.testing import torch_data_address

Change = Callable[[dl.Producer], Any]


def set_shape(*shape: int) -> Change:
    def change(producer: dl.Producer) -> None:
        producer._shape = (ctypes.c_int64 * max(len(shape), 1))(*shape)
        producer.tensor.shape = ctypes.cast(producer._shape, ctypes.POINTER(ctypes.c_int64))
        producer.tensor.ndim = len(shape)

    return change


def set_strides(*strides: int) -> Change:
    def change(producer: dl.Producer) -> None:
        producer._strides = (ctypes.c_int64 * len(strides))(*strides)
        producer.tensor.strides = ctypes.cast(producer._strides, ctypes.POINTER(ctypes.c_int64))

    return change


def set_field(name: str, value: Any) -> Change:
    return lambda producer: setattr(producer.tensor, name, value)


def of_dtype(*dtype: int) -> Change:
    return set_field("dtype", dl.DLDataType(*dtype))


def on_device(*device: int) -> Change:
    return set_field("device", dl.DLDevice(*device))


LIES: dict[str, tuple[Change, type[Exception]]] = {
    "negative rank": (set_field("ndim", -1), tensor_bridge.InvalidHandleError),
    "rank 255": (set_field("ndim", 255), tensor_bridge.InvalidHandleError),
    "huge rank": (set_field("ndim", 2**31 - 1), tensor_bridge.InvalidHandleError),
    "no shape": (set_field("shape", None), tensor_bridge.InvalidHandleError),
    "negative dimension": (set_shape(2, -3), tensor_bridge.InvalidHandleError),
    "smallest dimension": (set_shape(-(2**63), 1), tensor_bridge.InvalidHandleError),
    "overflowing shape": (set_shape(2**40, 2**40), tensor_bridge.InvalidHandleError),
    "overflowing bytes": (set_shape(2**62), tensor_bridge.InvalidHandleError),
    "overflowing empty shape": (set_shape(2**40, 2**40, 0), tensor_bridge.InvalidHandleError),
    "no memory": (set_field("data", None), tensor_bridge.InvalidHandleError),
    "misaligned offset": (set_field("byte_offset", 2), tensor_bridge.InvalidHandleError),
    "lanes": (of_dtype(2, 32, 4), tensor_bridge.UnsupportedDtypeError),
    "no lanes": (of_dtype(2, 32, 0), tensor_bridge.UnsupportedDtypeError),
    "4 bits": (of_dtype(0, 4, 1), tensor_bridge.UnsupportedDtypeError),
    "3 bits": (of_dtype(1, 3, 1), tensor_bridge.UnsupportedDtypeError),
    "128 bits": (of_dtype(2, 128, 1), tensor_bridge.UnsupportedDtypeError),
    "opaque": (of_dtype(3, 64, 1), tensor_bridge.UnsupportedDtypeError),
    "unknown dtype": (of_dtype(200, 8, 1), tensor_bridge.UnsupportedDtypeError),
    "e4m3b11fnuz": (of_dtype(9, 8, 1), tensor_bridge.UnsupportedDtypeError),
    "device 0": (on_device(0, 0), tensor_bridge.UnsupportedDeviceError),
    "pinned": (on_device(3, 0), tensor_bridge.UnsupportedDeviceError),
    "Metal": (on_device(8, 0), tensor_bridge.UnsupportedDeviceError),
    "unknown device": (on_device(99, 0), tensor_bridge.UnsupportedDeviceError),
    "negative device": (on_device(-1, 0), tensor_bridge.UnsupportedDeviceError),
    "negative stride": (set_strides(-3, 1), tensor_bridge.UnsupportedTypeError),
    "overflowing strides": (set_strides(2**62, 2**62), tensor_bridge.InvalidHandleError),
    "overflowing extent": (set_strides(2**61, 1), tensor_bridge.InvalidHandleError),
}


@pytest.mark.parametrize("name", LIES)
@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_lie_is_refused_and_the_deleter_runs_once(
    name: str, versioned: bool, framework: Any
) -> None:
    change, error = LIES[name]
    producer = dl.Producer(versioned=versioned, flags=dl.READ_ONLY)
    change(producer)
    with owners():
        with pytest.raises(error) as caught:
            from_dlpack(producer, framework=framework)
        assert type(caught.value) is error
        assert producer.deleted == 1


def test_gpu_memory_without_a_gpu_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for kind in (2, 10):
        producer = dl.Producer(flags=dl.READ_ONLY)
        producer.tensor.device = dl.DLDevice(kind, 0)
        with pytest.raises(tensor_bridge.TensorBridgeError):
            from_dlpack(producer)
        assert producer.deleted == 1


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
@pytest.mark.parametrize("major", [0, 2, 255, 2**32 - 1])
def test_another_major_version_is_only_deleted(major: int, framework: Any) -> None:
    producer = dl.Producer(flags=dl.READ_ONLY)
    producer.managed.major = major
    producer.tensor.data = 1  # this address must not be read
    producer.tensor.ndim = -7
    with pytest.raises(tensor_bridge.InvalidHandleError, match=f"got version {major}"):
        from_dlpack(producer, framework=framework)
    assert producer.deleted == 1


@pytest.mark.parametrize("minor", [0, 1, 99])
@pytest.mark.parametrize("flags", [0, dl.READ_ONLY, 0xFFFFFFFFFFFFFFFE, 0xFFFFFFFFFFFFFFFF])
def test_minor_versions_and_unknown_flags_are_read(minor: int, flags: int) -> None:
    producer = dl.Producer(flags=flags)
    producer.managed.minor = minor
    x = from_dlpack(producer)
    assert torch_data_address(x) == producer.address
    x.fill_(1)
    protected = bool(flags & dl.READ_ONLY)
    assert producer.bytes() == (bytes(24) if protected else b"\0\0\x80\x3f" * 6)
    assert producer.deleted == 0
    del x
    gc.collect()
    assert producer.deleted == 1


# ---- unusual but valid structures ----------------------------------------------------------------

RIGHT: dict[str, tuple[Change, list[int], list[int]]] = {
    "no strides": (set_field("strides", None), [2, 3], [3, 1]),
    "scalar without a shape": (set_field("ndim", 0), [], []),
    "any stride for one": (lambda p: [set_shape(1, 6)(p), set_strides(-77, 1)(p)], [1, 6], [6, 1]),
    "repeated": (lambda p: [set_shape(4, 3)(p), set_strides(0, 1)(p)], [4, 3], [0, 1]),
    "gaps": (set_strides(10, 2), [2, 3], [10, 2]),
    "transposed": (set_strides(1, 2), [2, 3], [1, 2]),
    "byte offset": (set_field("byte_offset", 64), [2, 3], [3, 1]),
    "empty without memory": (
        lambda p: [set_shape(0, 3)(p), setattr(p.tensor, "data", None)],
        [0, 3],
        [3, 1],
    ),
    "empty with odd strides": (
        lambda p: [set_shape(0, 3)(p), set_strides(-5, -7)(p)],
        [0, 3],
        [3, 1],
    ),
    "254 dimensions": (set_shape(*[1] * 254), [1] * 254, [1] * 254),
}


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("flags", [0, dl.READ_ONLY])
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_odd_structure_is_taken(name: str, flags: int, framework: Any) -> None:
    change, shape, strides = RIGHT[name]
    producer = dl.Producer(flags=flags)
    change(producer)
    result = from_dlpack(producer, framework=framework)
    assert list(result.shape) == shape
    if framework == "torch":
        assert list(result.stride()) == strides
        if result.numel():
            assert torch_data_address(result) == producer.address + producer.tensor.byte_offset
    else:
        tf.reduce_sum(result + 1)
    del result
    gc.collect()
    assert producer.deleted == 1


def test_write_to_a_strided_structure_copies_its_whole_extent() -> None:
    producer = dl.Producer(flags=dl.READ_ONLY)
    set_shape(3, 2)(producer)
    set_strides(100, 7)(producer)
    x = from_dlpack(producer)
    x[2, 1] = 5
    assert x.tolist() == [[0, 0], [0, 0], [0, 5]]
    assert not any(producer.bytes(1024))


@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_null_deleter_is_nothing_to_call(versioned: bool, framework: Any) -> None:
    producer = dl.Producer(deleter=False, versioned=versioned, flags=dl.READ_ONLY)
    result = from_dlpack(producer, framework=framework)
    assert tuple(result.shape) == (2, 3)
    del result
    gc.collect()
    set_shape(-1)(producer)
    with pytest.raises(tensor_bridge.InvalidHandleError):
        from_dlpack(producer, framework=framework)


@pytest.mark.parametrize("copy", [None, False, True])
def test_deleter_runs_when_the_last_user_is_gone(copy: bool | None) -> None:
    producer = dl.Producer((16,), flags=dl.READ_ONLY)
    with owners():
        x = from_dlpack(producer, copy=copy)
        assert producer.deleted == (copy is True)
        y = x[4:]
        del x
        t = tensor_bridge.to_tf(y.clone())
        assert producer.deleted == (copy is True)
        del y, t
        gc.collect()
        assert producer.deleted == 1


def test_options_that_are_refused_leave_the_capsule_fresh() -> None:
    producer = dl.Producer(flags=dl.READ_ONLY)
    capsule = producer.capsule()
    for options in ({"copy": 3}, {"on_write": "no"}, {"device": 1.5}, {"framework": "jax"}):
        with pytest.raises(tensor_bridge.InvalidOptionError):
            from_dlpack(capsule, **options)
    assert producer.deleted == 0
    assert dl.name_of(capsule) == b"dltensor_versioned"
    assert from_dlpack(capsule).shape == (2, 3)


# ---- capsules ------------------------------------------------------------------------------------


@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_capsule_can_be_consumed_once(versioned: bool, framework: Any) -> None:
    producer = dl.Producer(versioned=versioned, flags=dl.READ_ONLY)
    capsule = producer.capsule()
    result = from_dlpack(capsule, framework=framework)
    assert dl.name_of(capsule).startswith(b"used_dltensor")
    for _ in range(2):
        with pytest.raises(tensor_bridge.InvalidHandleError, match="consumed already"):
            from_dlpack(capsule, framework=framework)
    # Writable memory is copied for TensorFlow, so the producer is released at once.
    kept = framework == "torch" or versioned
    assert producer.deleted == (not kept)
    del result, capsule
    gc.collect()
    assert producer.deleted == 1


def test_capsule_of_a_failed_import_was_consumed() -> None:
    producer = dl.Producer(flags=dl.READ_ONLY)
    set_shape(-1)(producer)
    capsule = producer.capsule()
    with pytest.raises(tensor_bridge.InvalidHandleError):
        from_dlpack(capsule)
    with pytest.raises(tensor_bridge.InvalidHandleError, match="consumed already"):
        from_dlpack(capsule)
    assert producer.deleted == 1


@needs.torch_takes_versioned
def test_capsule_consumed_by_torch() -> None:
    capsule = exporter(tf.ones(3)).__dlpack__(max_version=(1, 0))
    x = torch.utils.dlpack.from_dlpack(capsule)
    with pytest.raises(tensor_bridge.InvalidHandleError, match="consumed already"):
        from_dlpack(capsule)
    with pytest.raises(RuntimeError):
        torch.utils.dlpack.from_dlpack(capsule)
    assert x.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "name", [b"", b"dltensor ", b"DLTENSOR", b"dltensor_versioned2", b"x" * 500]
)
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_capsules_of_other_names(name: bytes, framework: Any) -> None:
    producer = dl.Producer()
    with pytest.raises(tensor_bridge.InvalidHandleError, match="expected a DLPack capsule named"):
        from_dlpack(producer.capsule(name), framework=framework)
    assert producer.deleted == 0


def test_capsule_without_a_name() -> None:
    capsule = dl._new(ctypes.addressof(dl.Producer().managed), None, None)
    with pytest.raises(tensor_bridge.InvalidHandleError):
        from_dlpack(capsule)


def test_other_capsules_of_the_process() -> None:
    import datetime

    from tensorflow.python.eager import context

    for capsule in (
        datetime.datetime_CAPI,  # type: ignore[attr-defined]
        Exporter.__dlpack_c_exchange_api__,
        context.context()._handle,
    ):
        with pytest.raises(tensor_bridge.InvalidHandleError):
            from_dlpack(capsule)


def test_object_that_says_it_is_a_capsule() -> None:
    PyCapsule = type("PyCapsule", (), {})
    for value in (lying(type(exporter(tf.ones(1)).__dlpack__())), PyCapsule()):
        with pytest.raises((tensor_bridge.InvalidHandleError, tensor_bridge.UnsupportedTypeError)):
            from_dlpack(value)


def test_attribute_of_the_instance_is_no_protocol() -> None:
    class Plain:
        pass

    value = Plain()
    value.__dlpack__ = np.zeros(3).__dlpack__  # type: ignore[attr-defined]
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="__dlpack__"):
        from_dlpack(value)


def test_producer_that_gives_the_same_capsule_twice() -> None:
    class Twice:
        def __init__(self, capsule: Any) -> None:
            self.capsule = capsule

        def __dlpack__(self, **_: Any) -> Any:
            return self.capsule

    producer = dl.Producer(flags=dl.READ_ONLY)
    twice = Twice(producer.capsule())
    x = from_dlpack(twice)
    with pytest.raises(tensor_bridge.InvalidHandleError, match="consumed already"):
        from_dlpack(twice)
    del x
    gc.collect()
    assert producer.deleted == 1


def test_producer_whose_method_recurses() -> None:
    class Recurses:
        def __dlpack__(self, **_: Any) -> Any:
            return from_dlpack(self)

    with pytest.raises(RecursionError):
        from_dlpack(Recurses())


def test_deleter_that_raises_in_python_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    producer = dl.Producer(flags=dl.READ_ONLY)

    def fail(_: int) -> None:
        raise RuntimeError("deleter")

    failing = dl.DELETER(fail)
    producer.managed.deleter = ctypes.cast(failing, ctypes.c_void_p)
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: seen.append(str(args.exc_value)))
    x = from_dlpack(producer)
    del x
    gc.collect()
    assert seen == ["deleter"]


# ---- any bytes -----------------------------------------------------------------------------------

numbers = st.one_of(st.integers(0, 6), st.sampled_from([-1, 2**31, 2**62, -(2**63), 2**63 - 1]))


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    st.lists(numbers, max_size=5),
    st.none() | st.lists(numbers, max_size=5),
    st.integers(0, 20),
    st.sampled_from([0, 1, 4, 8, 16, 32, 64, 128, 255]),
    st.sampled_from([0, 1, 2, 65535]),
    st.sampled_from([0, 1, 8, 64, 63]),
    st.integers(0, 3),
    st.booleans(),
)
def test_any_structure_is_taken_or_refused(
    shape: list[int],
    strides: list[int] | None,
    code: int,
    bits: int,
    lanes: int,
    offset: int,
    flags: int,
    versioned: bool,
) -> None:
    if strides is not None:
        strides = (strides + [1] * len(shape))[: len(shape)]
    producer = dl.Producer(
        shape, code=code, bits=bits, strides=strides, versioned=versioned, flags=flags
    )
    producer.tensor.dtype.lanes = lanes
    producer.tensor.byte_offset = offset
    extent = sum((n - 1) * s for n, s in zip(shape, strides or [], strict=False) if n > 0)
    with owners() as added:
        try:
            x = from_dlpack(producer)
        except tensor_bridge.TensorBridgeError:
            assert producer.deleted == 1
            assert added() == 0
            return
        assert tuple(x.shape) == tuple(shape)
        # Only structures that stay within their memory can be read.
        if x.numel() <= 216 and extent * x.element_size() + offset < 2048:
            x.clone()
        del x
        assert producer.deleted == 1
