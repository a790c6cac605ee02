"""TensorFlow tensors with the present DLPack protocol: capsules, keywords, and real consumers.

Consumers: torch, NumPy, JAX, tvm-ffi (which uses the C exchange API).
"""

from __future__ import annotations

import ctypes
import gc
import os
import weakref
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import dl_structures as dl
import needs
import numpy as np
import pytest
import tensorflow as tf
import torch
from fresh import run_forked
from sharing import in_threads, nothing_kept, numbers, owners, tf_bytes
from tf_bytes import NUMERIC, random_tensor

import tensor_bridge
from tensor_bridge import DtypeRow
from tensor_bridge.dlpack import Exporter, exporter, from_dlpack
from tensor_bridge.testing import live_owners, tf_data_address, torch_data_address

NEW = {"max_version": (1, 0)}


# ---- capsules ------------------------------------------------------------------------------------

DL_CODES: dict[str, tuple[int, int]] = {
    "float16": (2, 16),
    "float32": (2, 32),
    "float64": (2, 64),
    "bfloat16": (4, 16),
    "int8": (0, 8),
    "int16": (0, 16),
    "int32": (0, 32),
    "int64": (0, 64),
    "uint8": (1, 8),
    "uint16": (1, 16),
    "uint32": (1, 32),
    "uint64": (1, 64),
    "complex64": (5, 64),
    "complex128": (5, 128),
    "bool": (6, 8),
    "float8_e4m3b11fnuz": (9, 8),
    "float8_e4m3fn": (10, 8),
    "float8_e4m3fnuz": (11, 8),
    "float8_e5m2": (12, 8),
    "float8_e5m2fnuz": (13, 8),
}
SPEAKABLE = [row for row in NUMERIC if row.name in DL_CODES]
UNSPEAKABLE = [row for row in NUMERIC if row.name not in DL_CODES]


@pytest.mark.parametrize("row", SPEAKABLE, ids=lambda row: row.name)
def test_capsule_of_every_dtype_that_dlpack_knows(row: DtypeRow) -> None:
    t = random_tensor(row, (2, 3))
    before = live_owners()
    capsule = exporter(t).__dlpack__(**NEW)
    assert dl.name_of(capsule) == b"dltensor_versioned"
    managed = dl.read(capsule)
    assert managed.major == 1
    assert managed.flags == dl.READ_ONLY
    assert managed.deleter
    tensor = managed.tensor
    assert tensor.data == tf_data_address(t)
    assert (tensor.device.type, tensor.device.id) == (1, 0)
    assert (tensor.dtype.code, tensor.dtype.bits) == DL_CODES[row.name]
    assert tensor.dtype.lanes == 1
    assert dl.shape_of(tensor) == (2, 3)
    assert dl.strides_of(tensor) == (3, 1)
    assert tensor.byte_offset == 0
    assert live_owners() == before + 1
    del capsule
    assert live_owners() == before, "the capsule was not consumed"


@pytest.mark.parametrize("row", UNSPEAKABLE, ids=lambda row: row.name)
@pytest.mark.parametrize("keywords", [{}, NEW, {"copy": True}], ids=str)
def test_dtypes_that_dlpack_lacks(row: DtypeRow, keywords: dict[str, Any]) -> None:
    t = random_tensor(row)
    with owners(), pytest.raises(tensor_bridge.UnsupportedDtypeError, match=row.name):
        exporter(t).__dlpack__(**keywords)


@pytest.mark.parametrize("make", [lambda: tf.constant("a"), lambda: tf.Variable(1.0).handle])
def test_what_has_no_elements_is_refused_where_tensorflow_aborts(make: Any) -> None:
    with pytest.raises(tensor_bridge.UnsupportedDtypeError):
        exporter(make()).__dlpack__(**NEW)
    with pytest.raises(tensor_bridge.UnsupportedDtypeError):
        torch.from_dlpack(exporter(make()))


@needs.tensorflow_since(20, "it raises")
def test_tensorflow_s_own_method_aborts_for_strings() -> None:
    """The danger is real. Delete this when TensorFlow raises."""
    done = run_forked("tf.constant('a').__dlpack__()")
    assert done.code == -6


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 1, 3)], ids=str)
def test_shapes(shape: tuple[int, ...]) -> None:
    t = numbers(shape)
    capsule = exporter(t).__dlpack__(**NEW)
    tensor = dl.read(capsule).tensor
    assert tensor.ndim == len(shape)
    assert dl.shape_of(tensor) == shape
    x = torch.from_dlpack(exporter(t))
    assert tuple(x.shape) == shape
    assert x.flatten().tolist() == list(range(t.shape.num_elements()))


@pytest.mark.parametrize("row", SPEAKABLE, ids=lambda row: row.name)
def test_copy_is_writable_and_says_so(row: DtypeRow) -> None:
    t = random_tensor(row, (2, 3))
    with owners():
        capsule = exporter(t).__dlpack__(copy=True, **NEW)
    managed = dl.read(capsule)
    assert managed.flags == dl.IS_COPIED
    assert managed.tensor.data != tf_data_address(t)
    assert managed.tensor.data % 256 == 0
    assert ctypes.string_at(managed.tensor.data, len(tf_bytes(t))) == tf_bytes(t)
    ctypes.memset(managed.tensor.data, 0xFF, len(tf_bytes(t)))
    assert tf_bytes(t) == tf_bytes(random_tensor(row, (2, 3)))


@pytest.mark.parametrize("version", [None, (0, 8), (0, 9)])
@pytest.mark.parametrize("copy", [None, True])
def test_old_capsules_hold_a_copy(version: tuple[int, int] | None, copy: bool | None) -> None:
    """They have no flag for read-only memory."""
    t = numbers()
    with owners():
        capsule = exporter(t).__dlpack__(max_version=version, copy=copy)
        assert dl.name_of(capsule) == b"dltensor"
        managed = dl.read(capsule)
        assert managed.tensor.data != tf_data_address(t)
        assert dl.shape_of(managed.tensor) == (4, 6)
    x = torch.utils.dlpack.from_dlpack(capsule)
    x.zero_()
    assert tf.reduce_sum(t).numpy() == 276
    with pytest.raises(tensor_bridge.CopyRequiredError, match="max_version"):
        exporter(t).__dlpack__(max_version=version, copy=False)


@pytest.mark.parametrize("version", [(1, 0), (1, 3), (1, 99), (2, 0), [1, 1]])
def test_new_capsules_share(version: Any) -> None:
    t = numbers()
    capsule = exporter(t).__dlpack__(max_version=version, copy=False)
    assert dl.read(capsule).major == 1
    assert dl.read(capsule).tensor.data == tf_data_address(t)


def test_streams_and_devices() -> None:
    e = exporter(numbers())
    assert e.__dlpack_device__() == (1, 0)
    for stream in (None, -1):
        e.__dlpack__(stream=stream, dl_device=(1, 0), **NEW)
    for stream in (0, 1, 2, 12345, "1"):
        with pytest.raises(BufferError, match="stream"):
            e.__dlpack__(stream=stream, **NEW)
    for device in ((2, 0), (1, 1), (13, 0), (99, 99)):
        with pytest.raises(BufferError, match="dl_device"):
            e.__dlpack__(dl_device=device, **NEW)
    with pytest.raises(TypeError):
        e.__dlpack__(None)
    with pytest.raises(TypeError):
        e.__dlpack__(nonsense=1)


def test_tensor_on_another_logical_cpu_is_on_the_host() -> None:
    run_forked("""
        import tensor_bridge.dlpack
        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
        with tf.device("CPU:1"):
            t = tf.range(4.0) + 0
        e = tensor_bridge.dlpack.exporter(t)
        assert e.__dlpack_device__() == (1, 0)
        assert torch.from_dlpack(e).tolist() == [0, 1, 2, 3]
    """).check()


# ---- what is exported ----------------------------------------------------------------------------


@needs.torch_takes_versioned
def test_variable_is_exported_as_a_snapshot() -> None:
    v = tf.Variable(numbers())
    e = exporter(v)
    x = torch.from_dlpack(e)
    assert torch_data_address(x) == tf_data_address(v)
    v.assign_add(tf.ones((4, 6)))
    assert float(x.sum()) == 276


@pytest.mark.parametrize(
    "value",
    [None, 3, "a", [1.0], np.zeros(3), torch.zeros(3), tf.sparse.eye(2), tf.ragged.constant([[1]])],
    ids=lambda v: type(v).__name__,
)
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="expected a"):
        exporter(value)


def test_graph_tensors_are_refused() -> None:
    refused = []

    @tf.function(autograph=False)
    def function(t: tf.Tensor) -> tf.Tensor:
        with pytest.raises(tensor_bridge.SymbolicTensorError):
            exporter(t)
        refused.append(1)
        return t

    function(tf.constant(1.0))
    assert refused


def test_exporter_is_a_small_object() -> None:
    t = numbers()
    e = exporter(t)
    assert type(e) is Exporter
    assert e.tensor is t
    assert weakref.ref(e)() is e
    assert repr(e).startswith("Exporter(<tf.Tensor: shape=(4, 6)")
    with pytest.raises(AttributeError):
        e.other = 1  # type: ignore[attr-defined]
    with owners():
        del t, e


@needs.torch_takes_versioned
def test_capsule_outlives_exporter_and_tensor() -> None:
    t = numbers()
    expected = tf_bytes(t)
    with nothing_kept() as added:
        capsule = exporter(t).__dlpack__(**NEW)
        del t
        gc.collect()
        others = [numbers() for _ in range(10)]
        assert ctypes.string_at(dl.read(capsule).tensor.data, 96) == expected
        x = torch.utils.dlpack.from_dlpack(capsule)
        del capsule
        assert added() == 1
        assert float(x.sum()) == 276
        del x, others


def test_pending_tensor_is_waited_for() -> None:
    with tf.experimental.async_scope():
        t = tf.py_function(lambda: tf.fill((3,), 7.0), [], tf.float32)
        assert torch.from_dlpack(exporter(t)).tolist() == [7, 7, 7]


def test_many_threads() -> None:
    t = numbers()
    with nothing_kept():

        def work() -> None:
            for _ in range(100):
                assert torch.from_dlpack(exporter(t)).shape == (4, 6)
                exporter(t).__dlpack__(copy=True)

        in_threads(work, work, work, work)


# ---- torch and NumPy -----------------------------------------------------------------------------


@needs.torch_takes_versioned
@needs.torch_dlpack_copies
def test_torch_shares_and_ignores_that_it_may_not_write() -> None:
    """This is why `to_torch` exists. Delete the second half when torch honours READ_ONLY."""
    t = numbers()
    with nothing_kept() as added:
        x = torch.from_dlpack(exporter(t))
        assert torch_data_address(x) == tf_data_address(t)
        assert added() == 1
        x[0, 0] = 5
        assert t[0, 0].numpy() == 5
        assert torch_data_address(torch.from_dlpack(exporter(t), copy=True)) != tf_data_address(t)
        del x


@needs.numpy_exports_read_only
def test_numpy_shares_and_may_not_write() -> None:
    t = numbers()
    with nothing_kept() as added:
        array = np.from_dlpack(exporter(t))
        assert array.ctypes.data == tf_data_address(t)
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1
        assert added() == 1
        del array


@needs.numpy_writes
def test_numpy_may_write_a_copy() -> None:
    t = numbers()
    copied = np.from_dlpack(exporter(t), copy=True)
    copied[:] = 0
    assert tf.reduce_sum(t).numpy() == 276


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("bool", marks=needs.numpy_exports_bool),
        *("int64", "uint8", "float16", "complex64"),
    ],
)
def test_numpy_values(name: str) -> None:
    row = next(row for row in SPEAKABLE if row.name == name)
    t = random_tensor(row, (3, 2))
    assert np.from_dlpack(exporter(t)).tobytes() == tf_bytes(t)


# ---- JAX -----------------------------------------------------------------------------------------


@needs.module("jax")
@pytest.mark.parametrize(
    "name", ["float32", "bfloat16", "float16", "int32", "uint8", "bool", "complex64", "int8"]
)
def test_jax_gets_the_values(name: str) -> None:
    import jax.numpy as jnp

    row = next(row for row in SPEAKABLE if row.name == name)
    t = random_tensor(row, (4, 6))
    a = jnp.from_dlpack(exporter(t))
    assert a.dtype.name == name
    assert np.asarray(a).tobytes() == tf_bytes(t)


@needs.module("jax")
def test_jax_computes_and_leaves_tensorflow_alone() -> None:
    import jax
    import jax.numpy as jnp

    t = numbers()
    with nothing_kept():
        a = jnp.from_dlpack(exporter(t))
        doubled = jax.jit(lambda v: v * 2, donate_argnums=0)(a)
        assert float(doubled.sum()) == 2 * 276
        assert tf.reduce_sum(t).numpy() == 276
        gradient = jax.grad(lambda v: (v * v).sum())(jnp.from_dlpack(exporter(t)))
        assert float(gradient.sum()) == 2 * 276
        del a, doubled, gradient


# ---- tvm-ffi, and the C exchange API -------------------------------------------------------------


@needs.module("tvm_ffi")
def test_tvm_ffi_shares() -> None:
    import tvm_ffi

    t = numbers()
    with nothing_kept() as added:
        z = tvm_ffi.from_dlpack(exporter(t))
        assert z.shape == (4, 6)
        assert str(z.dtype) == "float32"
        assert z.data_ptr() == tf_data_address(t)
        assert added() == 1
        del z


@needs.module("tvm_ffi")
def test_tvm_ffi_takes_it_as_an_argument() -> None:
    import tvm_ffi

    t = numbers()
    with nothing_kept():
        assert tvm_ffi.get_global_func("testing.schema_id_tensor")(exporter(t)) is not None
        # The exchange API has no READ_ONLY, so the tensor that comes back is TensorFlow's own copy.
        echoed = tvm_ffi.get_global_func("testing.echo")(exporter(t))
        assert type(echoed) is Exporter
        assert tf_data_address(echoed.tensor) != tf_data_address(t)
        assert tf_bytes(echoed.tensor) == tf_bytes(t)
        del echoed


@needs.module("tvm_ffi")
def test_tvm_ffi_gets_typed_errors() -> None:
    import tvm_ffi

    for make in (lambda: tf.constant("a"), lambda: random_tensor(UNSPEAKABLE[0])):
        with pytest.raises(tensor_bridge.UnsupportedDtypeError):
            tvm_ffi.get_global_func("testing.echo")(exporter(make()))
        with pytest.raises(tensor_bridge.UnsupportedDtypeError):
            tvm_ffi.from_dlpack(exporter(make()))


class Header(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("major", "minor")),
        ("previous", ctypes.c_void_p),
    )


SET_ERROR = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p)
OUT = ctypes.POINTER(ctypes.c_void_p)
PROTOTYPE = ctypes.POINTER(dl.DLTensor)
# The functions of DLPackExchangeAPI in dlpack.h 1.3, called with the GIL, and their arguments.
FUNCTIONS = {
    "allocate": (PROTOTYPE, OUT, ctypes.c_void_p, SET_ERROR),
    "from_object": (ctypes.py_object, OUT),
    "to_object": (ctypes.c_void_p, OUT),
    "borrow": None,
    "stream": (ctypes.c_int, ctypes.c_int32, OUT),
}


class ExchangeApi(ctypes.Structure):
    _fields_ = (
        ("header", Header),
        *(
            (name, ctypes.PYFUNCTYPE(ctypes.c_int, *taken) if taken else ctypes.c_void_p)
            for name, taken in FUNCTIONS.items()
        ),
    )


@pytest.fixture
def api() -> ExchangeApi:
    capsule = Exporter.__dlpack_c_exchange_api__
    assert dl.name_of(capsule) == b"dlpack_exchange_api"
    return ExchangeApi.from_address(dl._pointer(capsule, b"dlpack_exchange_api"))


def delete(pointer: ctypes.c_void_p) -> None:
    managed = dl.ManagedVersioned.from_address(pointer.value or 0)
    dl.DELETER(managed.deleter)(pointer.value)


def test_exchange_api_is_on_the_type(api: ExchangeApi) -> None:
    assert api.header.major == 1
    assert api.header.minor >= 2
    assert not api.header.previous
    assert not api.borrow, "a borrowed DLTensor has no READ_ONLY flag"


def test_exchange_api_exports(api: ExchangeApi) -> None:
    t = numbers()
    with owners() as added:
        out = ctypes.c_void_p()
        assert api.from_object(exporter(t), ctypes.byref(out)) == 0
        managed = dl.ManagedVersioned.from_address(out.value or 0)
        assert managed.flags == dl.READ_ONLY
        assert managed.tensor.data == tf_data_address(t)
        assert added() == 1
        delete(out)


@pytest.mark.parametrize("make", [lambda: object(), lambda: exporter(tf.constant("a"))])
def test_exchange_api_sets_a_python_error(make: Any, api: ExchangeApi) -> None:
    out = ctypes.c_void_p()
    with pytest.raises((AttributeError, tensor_bridge.UnsupportedDtypeError)):
        api.from_object(make(), ctypes.byref(out))
    assert not out.value


def test_exchange_api_imports(api: ExchangeApi) -> None:
    producer = dl.Producer(flags=dl.READ_ONLY)
    out = ctypes.c_void_p()
    assert api.to_object(ctypes.addressof(producer.managed), ctypes.byref(out)) == 0
    made = ctypes.cast(out, ctypes.py_object)
    result = made.value
    ctypes.pythonapi.Py_DecRef(made)
    assert type(result) is Exporter
    assert result.tensor.shape == (2, 3)
    assert tf_data_address(result.tensor) == producer.address
    assert producer.deleted == 0
    del result, made
    gc.collect()
    assert producer.deleted == 1


def test_exchange_api_allocates(api: ExchangeApi) -> None:
    prototype = dl.Producer((3, 5), code=0, bits=64).tensor
    out = ctypes.c_void_p()
    errors: list[tuple[bytes, bytes]] = []
    set_error = SET_ERROR(lambda _, kind, message: errors.append((kind, message)))
    assert api.allocate(ctypes.byref(prototype), ctypes.byref(out), None, set_error) == 0
    managed = dl.ManagedVersioned.from_address(out.value or 0)
    assert dl.shape_of(managed.tensor) == (3, 5)
    assert dl.strides_of(managed.tensor) == (5, 1)
    assert managed.tensor.data % 256 == 0
    assert not managed.flags & dl.READ_ONLY
    ctypes.memset(managed.tensor.data, 7, 3 * 5 * 8)
    delete(out)
    for prototype in (
        dl.Producer((2,), code=0, bits=3).tensor,
        dl.Producer((-2,)).tensor,
        dl.Producer((2**40, 2**40)).tensor,
        dl.Producer((2**50,)).tensor,
    ):
        assert api.allocate(ctypes.byref(prototype), ctypes.byref(out), None, set_error) != 0
    assert [kind for kind, _ in errors] == [b"BufferError"] * 3 + [b"MemoryError"]
    assert all(message for _, message in errors)


def test_exchange_api_knows_no_stream(api: ExchangeApi) -> None:
    out = ctypes.c_void_p(1)
    assert api.stream(1, 0, ctypes.byref(out)) == 0
    assert out.value is None


# ---- and back ------------------------------------------------------------------------------------


def test_exporter_is_a_producer_for_from_dlpack() -> None:
    t = numbers()
    with nothing_kept():
        x = from_dlpack(exporter(t))
        assert torch_data_address(x) == tf_data_address(t)
        x.zero_()
        assert tf.reduce_sum(t).numpy() == 276
        u = from_dlpack(exporter(t), framework="tensorflow", copy=False)
        assert tf_data_address(u) == tf_data_address(t)
        del x, u
