"""Any DLPack producer's memory in torch or TensorFlow, protected if it is read-only.

Producers: NumPy, JAX, tvm-ffi, torch, TensorFlow itself, and capsules.
"""

from __future__ import annotations

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
from sharing import in_threads, nothing_kept, numbers, owners, tf_bytes, torch_bytes, values
from tf_bytes import torch_memory

import tensor_bridge
from tensor_bridge.dlpack import exporter, from_dlpack
from tensor_bridge.testing import tf_data_address, torch_data_address


def aligned(shape: tuple[int, ...] = (4, 6), dtype: Any = np.float32, *, write: bool = True) -> Any:
    """An array of 0, 1, 2, ... at a 64-byte boundary."""
    count = int(np.prod(shape))
    size = np.dtype(dtype).itemsize
    memory = np.zeros(count * size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    array = memory[start : start + count * size].view(dtype).reshape(shape)
    array[...] = np.arange(count).reshape(shape).astype(dtype)
    array.flags.writeable = write
    return array


def read_only(shape: tuple[int, ...] = (4, 6), dtype: Any = np.float32) -> Any:
    return aligned(shape, dtype, write=False)


# ---- read-only memory in torch -------------------------------------------------------------------


@needs.numpy_exports_read_only
def test_read_only_array_is_shared_and_protected() -> None:
    array = read_only()
    with nothing_kept() as added:
        x = from_dlpack(array)
        assert torch_data_address(x) == array.ctypes.data
        assert torch.equal(x, values())
        assert added() == 1
        x.zero_()
        assert torch_data_address(x) != array.ctypes.data
        assert array.sum() == 276
        assert not x.any()
        del x


@needs.numpy_exports_read_only
def test_torch_s_own_from_dlpack_writes_through() -> None:
    """The danger is real. Delete this when torch honours READ_ONLY."""
    array = read_only()
    torch.from_dlpack(array).zero_()
    assert array.sum() == 0


@needs.numpy_exports_read_only
@pytest.mark.parametrize("on_write", ["copy", "raise", "alias"])
def test_write_policies(on_write: str) -> None:
    array = read_only()
    x = from_dlpack(array, on_write=on_write)
    if on_write == "raise":
        with needs.forbidden_write():
            x.zero_()
        assert torch_data_address(x) == array.ctypes.data
    else:
        x.zero_()
    assert array.sum() == (0 if on_write == "alias" else 276)


@needs.numpy_exports_read_only
@pytest.mark.parametrize("copy", [None, False, True])
def test_copy_keyword(copy: bool | None) -> None:
    for array in (read_only(), aligned()):
        x = from_dlpack(array, copy=copy)
        assert (torch_data_address(x) == array.ctypes.data) == (copy is not True)
        assert torch.equal(x, values())
        if copy is True:
            x.zero_()
            assert array.sum() == 276


@needs.numpy_exports_read_only
def test_array_lives_as_long_as_torch_shows_it() -> None:
    array = read_only()
    ended = weakref.ref(array)
    x = from_dlpack(array)
    view = x[1:]
    del array, x
    gc.collect()
    assert ended() is not None
    assert float(view.sum()) == 276 - 15
    del view
    gc.collect()
    assert ended() is None


@needs.numpy_exports_read_only
def test_array_lives_until_the_storage_dies_even_after_the_write() -> None:
    array = read_only()
    ended = weakref.ref(array)
    x = from_dlpack(array)
    x.zero_()
    del array
    gc.collect()
    assert ended() is not None, "another thread's kernel may still read the memory"
    del x
    gc.collect()
    assert ended() is None


WRITABLE = [pytest.param(False, marks=needs.numpy_exports_read_only), True]
NUMPY_DTYPES = [
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
]


@pytest.mark.parametrize(
    "name", [*NUMPY_DTYPES, pytest.param("bool", marks=needs.numpy_exports_bool)]
)
@pytest.mark.parametrize("write", WRITABLE)
def test_every_dtype_of_numpy_s(name: str, write: bool) -> None:
    array = aligned((3, 5), name, write=write)
    x = from_dlpack(array)
    assert str(x.dtype) == f"torch.{name}"
    assert torch_memory(x) == array.tobytes()
    assert torch_data_address(x) == array.ctypes.data
    t = from_dlpack(array, framework="tensorflow")
    assert t.dtype.name == name
    assert tf_bytes(t) == array.tobytes()


STRIDED: dict[str, Any] = {
    "transposed": lambda a: a.T,
    "columns": lambda a: a[:, 1:4],
    "steps": lambda a: a[::2, ::3],
    "row": lambda a: a[2],
    "broadcast": lambda a: np.broadcast_to(a[:, :1], (4, 9)),
    "diagonal": lambda a: a.diagonal(),
    "new axis": lambda a: a[:, None, :],
    "Fortran order": lambda a: np.asfortranarray(a),
}


@pytest.mark.parametrize("name", STRIDED)
@pytest.mark.parametrize("write", WRITABLE)
def test_strides_are_kept(name: str, write: bool) -> None:
    array = STRIDED[name](aligned())
    if array.flags.writeable != write:
        array.flags.writeable = write
    expected = torch.from_numpy(array.copy())
    x = from_dlpack(array)
    assert torch.equal(x, expected)
    assert torch_data_address(x) == array.ctypes.data
    assert list(x.stride()) == [s // 4 for s in array.strides] or 1 in x.shape
    t = from_dlpack(array, framework="tensorflow")
    assert tf_bytes(t) == torch_bytes(expected)
    if not write:
        y = x.add_(1) if name != "broadcast" else x.resolve_neg()
        assert np.array_equal(array, expected.numpy())
        assert y.shape == array.shape


@needs.numpy_exports_read_only
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_negative_strides_are_refused(framework: Any) -> None:
    with nothing_kept():
        for array in (read_only()[::-1], aligned()[:, ::-1]):
            with pytest.raises(tensor_bridge.UnsupportedTypeError, match="negative strides"):
                from_dlpack(array, framework=framework)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (1, 1)], ids=str)
@pytest.mark.parametrize("write", WRITABLE)
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_small_shapes(shape: tuple[int, ...], write: bool, framework: Any) -> None:
    array = aligned(shape, write=write)
    with nothing_kept():
        result = from_dlpack(array, framework=framework)
        assert tuple(result.shape) == shape
        del result


@needs.numpy_exports_read_only
def test_address_that_is_misaligned_for_the_dtype_is_refused() -> None:
    memory = np.zeros(65, np.uint8)
    memory.flags.writeable = False
    array = memory[1:].view(np.float64)
    with pytest.raises((tensor_bridge.InvalidHandleError, BufferError)):
        from_dlpack(array)


# ---- writable memory in torch --------------------------------------------------------------------


@needs.numpy_exports_read_only
def test_writable_memory_is_shared_both_ways() -> None:
    array = aligned()
    x = from_dlpack(array)
    x[0, 0] = 5
    assert array[0, 0] == 5
    array[1, 1] = 7
    assert x[1, 1] == 7
    assert torch_data_address(x) == array.ctypes.data
    # on_write= only applies to read-only memory.
    y = from_dlpack(array, on_write="raise")
    y.zero_()
    assert array.sum() == 0


def test_shared_onwards_with_tensorflow_torch_moves_away() -> None:
    array = aligned()
    x = from_dlpack(array)
    t = tensor_bridge.to_tf(x)
    x.zero_()
    assert tf.reduce_sum(t).numpy() == 276


@needs.numpy_exports_read_only
def test_device_keyword() -> None:
    array = read_only()
    for device in (None, "cpu", torch.device("cpu")):
        assert torch_data_address(from_dlpack(array, device=device)) == array.ctypes.data
    with pytest.raises(tensor_bridge.InvalidOptionError):
        from_dlpack(array, device="nonsense")
    if not torch.cuda.is_available():
        with pytest.raises(tensor_bridge.UnsupportedDeviceError):
            from_dlpack(array, device="cuda")


# ---- TensorFlow ----------------------------------------------------------------------------------


@needs.numpy_exports_read_only
def test_read_only_array_becomes_tensorflow_s_without_a_copy() -> None:
    array = read_only()
    with nothing_kept():
        for copy in (None, False):
            t = from_dlpack(array, framework="tensorflow", copy=copy)
            assert tf_data_address(t) == array.ctypes.data
            assert tf.reduce_sum(t).numpy() == 276
        ended = weakref.ref(array)
        del array
        gc.collect()
        assert ended() is not None
        assert tf.reduce_sum(t + 1).numpy() == 300
        del t
    assert ended() is None


@needs.numpy_exports_read_only
def test_copy_of_read_only_memory_on_request() -> None:
    array = read_only()
    t = from_dlpack(array, framework="tensorflow", copy=True)
    assert tf_data_address(t) != array.ctypes.data
    assert tf.reduce_sum(t).numpy() == 276


@needs.numpy_exports_read_only
def test_writable_memory_is_copied_for_tensorflow() -> None:
    array = aligned()
    with nothing_kept() as added:
        t = from_dlpack(array, framework="tensorflow")
        assert tf_data_address(t) != array.ctypes.data
        assert added() == 0
        array[:] = 0
        assert tf.reduce_sum(t).numpy() == 276
        with pytest.raises(tensor_bridge.CopyRequiredError, match="not marked READ_ONLY"):
            from_dlpack(array, framework="tensorflow", copy=False)


@needs.numpy_exports_read_only
@pytest.mark.parametrize("offset", [4, 16, 60])
def test_misaligned_read_only_memory_is_copied_for_tensorflow(offset: int) -> None:
    memory = aligned((256,), np.uint8)
    array = memory[offset : offset + 96].view(np.float32)
    array.flags.writeable = False
    t = from_dlpack(array, framework="tensorflow")
    assert tf_data_address(t) % 64 == 0
    assert tf_bytes(t) == array.tobytes()
    with pytest.raises(tensor_bridge.CopyRequiredError, match="64 bytes"):
        from_dlpack(array, framework="tensorflow", copy=False)


@needs.numpy_exports_read_only
def test_chain_through_both_frameworks_keeps_the_array() -> None:
    array = read_only()
    with nothing_kept():
        address, ended = array.ctypes.data, weakref.ref(array)
        x = from_dlpack(array)
        del array
        for _ in range(5):
            t = tensor_bridge.to_tf(x)
            assert tf_data_address(t) == address
            x = tensor_bridge.to_torch(t)
            assert torch_data_address(x) == address
        del t
        x.zero_()
        assert ended() is not None
        assert ended().sum() == 276
        del x
    assert ended() is None


def test_options_of_torch_s_are_refused_for_tensorflow() -> None:
    for options in ({"device": "cpu"}, {"on_write": "alias"}, {"on_write": "nonsense"}):
        with pytest.raises(tensor_bridge.InvalidOptionError, match="framework='torch'"):
            from_dlpack(read_only(), framework="tensorflow", **options)
    for framework in (None, "", "Torch", "tf", 3):
        with pytest.raises(tensor_bridge.InvalidOptionError, match="framework must be"):
            from_dlpack(read_only(), framework=framework)


@pytest.mark.parametrize("copy", [0, 1, "copy", object()])
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_copy_is_checked(copy: Any, framework: Any) -> None:
    with nothing_kept():
        for array in (read_only(), aligned()):
            with pytest.raises(tensor_bridge.InvalidOptionError, match="copy must be"):
                from_dlpack(array, framework=framework, copy=copy)


# ---- other producers -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["float32", "int32", "bool", "float16", "bfloat16", "complex64"])
@needs.module("jax")
def test_jax_array(name: str) -> None:
    import jax.numpy as jnp

    a = jnp.arange(24).reshape(4, 6).astype(name)
    x = from_dlpack(a)
    assert str(x.dtype) == f"torch.{name}"
    assert torch_memory(x) == np.asarray(a).tobytes()
    assert torch_data_address(x) == a.unsafe_buffer_pointer()
    t = from_dlpack(a, framework="tensorflow")
    assert t.dtype.name == name
    assert tf_bytes(t) == np.asarray(a).tobytes()
    del a
    gc.collect()
    assert x.shape == (4, 6)
    assert bool((x == x).all())


@needs.module("jax")
def test_write_in_torch_does_not_reach_a_jax_array() -> None:
    import jax.numpy as jnp

    """JAX's arrays are immutable, but it makes older capsules, which have no flag for that."""
    a = jnp.arange(1024.0)
    address = a.unsafe_buffer_pointer()
    x = from_dlpack(a)
    assert torch_data_address(x) == address
    x.zero_()
    assert torch_data_address(x) != address
    assert float(a.sum()) == 1023 * 512
    # torch's own function still writes to the array.
    torch.from_dlpack(a).zero_()
    assert float(a.sum()) == 0, "JAX now sets READ_ONLY: correct the docs"


@needs.module("jax")
def test_jax_array_is_kept_alive() -> None:
    import jax.numpy as jnp

    x = from_dlpack(jnp.full((1 << 12,), 3.0))
    gc.collect()
    garbage = [jnp.zeros((1 << 12,)) for _ in range(10)]
    assert float(x.sum()) == 3 * 4096
    del garbage


@needs.module("tvm_ffi")
def test_tvm_ffi_tensor() -> None:
    import tvm_ffi

    array = aligned()
    z = tvm_ffi.from_dlpack(array)
    x = from_dlpack(z)
    assert torch_data_address(x) == array.ctypes.data
    t = from_dlpack(z, framework="tensorflow")
    array[:] = 1
    assert tf.reduce_sum(t).numpy() == 276
    assert float(x.sum()) == 24


def test_torch_tensor() -> None:
    x = values()
    y = from_dlpack(x)
    assert torch_data_address(y) == torch_data_address(x)
    t = from_dlpack(x, framework="tensorflow")
    x.zero_()
    assert tf.reduce_sum(t).numpy() == 276
    error = BufferError if needs.TORCH_TAKES_VERSIONED else RuntimeError  # raised by torch
    with pytest.raises(error, match="require gradient"):
        from_dlpack(torch.nn.Parameter(values()))


@pytest.mark.parametrize("make", [numbers, lambda: tf.Variable(numbers())])
def test_tensorflow_s_own_tensors_are_protected_too(make: Any) -> None:
    """TensorFlow's own method makes capsules through which torch may write."""
    t = make()
    with nothing_kept():
        x = from_dlpack(t)
        assert torch_data_address(x) == tf_data_address(t)
        x.zero_()
        assert tf.reduce_sum(t).numpy() == 276
        u = from_dlpack(t, framework="tensorflow", copy=False)
        assert tf_data_address(u) == tf_data_address(t)
        del x, u


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_string_tensors_are_refused_and_do_not_abort(framework: Any) -> None:
    with pytest.raises(tensor_bridge.UnsupportedDtypeError):
        from_dlpack(tf.constant("a"), framework=framework)


@needs.numpy_exports_read_only
def test_capsules() -> None:
    array = read_only()
    with nothing_kept():
        x = from_dlpack(array.__dlpack__(max_version=(1, 0)))
        x.zero_()
        assert array.sum() == 276
        capsule = exporter(numbers()).__dlpack__(max_version=(1, 0))
        t = from_dlpack(capsule, framework="tensorflow", copy=False)
        assert tf.reduce_sum(t).numpy() == 276
        assert dl.name_of(capsule) == b"used_dltensor_versioned"
        old = torch.utils.dlpack.to_dlpack(values())
        y = from_dlpack(old, copy=True) if dl.name_of(old) == b"dltensor" else from_dlpack(old)
        assert torch.equal(y, values())
        assert dl.name_of(old).startswith(b"used_dltensor")
        del x, t, y, capsule


def test_float8_of_ml_dtypes_through_a_capsule() -> None:
    producer = dl.Producer((4,), code=10, bits=8, flags=dl.READ_ONLY)
    x = from_dlpack(producer)
    assert x.dtype is torch.float8_e4m3fn
    t = from_dlpack(dl.Producer((4,), code=12, bits=8), framework="tensorflow")
    assert t.dtype.name == "float8_e5m2"


class Old:
    """The protocol before 1.0, whose only keyword is stream."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, stream: Any = None) -> Any:
        assert stream is None
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


def test_producer_of_the_old_protocol() -> None:
    array = aligned()
    x = from_dlpack(Old(array))
    assert torch_data_address(x) == array.ctypes.data
    assert tf.reduce_sum(from_dlpack(Old(array), framework="tensorflow")).numpy() == 276
    x.zero_()
    assert array.sum() == 276
    assert torch_data_address(x) != array.ctypes.data


def test_producer_of_the_old_protocol_is_written_through_on_demand() -> None:
    array = aligned()
    from_dlpack(Old(array), on_write="alias").zero_()
    assert array.sum() == 0
    x = from_dlpack(Old(array), on_write="raise")
    with needs.forbidden_write("DLPack producer"):
        x.add_(1)
    assert array.sum() == 0
    assert torch_data_address(x) == array.ctypes.data


@pytest.mark.parametrize("old", [False, True], ids=["writable", "old kind"])
@pytest.mark.parametrize("on_write", ["copy", "alias", "raise"])
def test_memory_that_the_producer_may_write_to_is_copied_for_tensorflow(
    old: bool, on_write: Any, interface: Any
) -> None:
    with owners():
        array = aligned()
        x = from_dlpack(Old(array) if old else array, on_write=on_write)
        assert torch_data_address(x) == array.ctypes.data
        explained = tensor_bridge.explain(x)
        assert explained.action == "copied"
        assert "others may write to it" in explained.reason
        with pytest.raises(tensor_bridge.CopyRequiredError, match="others may write to it"):
            interface.to_tf(x, copy=False)
        t = interface.to_tf(x)
        view = interface.to_tf(x[1:])
        array[:] = 7
        assert tf_bytes(t) == aligned().tobytes()
        assert tf_bytes(view) == aligned()[1:].tobytes()
        assert float(x.sum()) == 7 * 24
        del x
    # A tensor that was written to has its own memory, which is shared with TensorFlow.
    if old and on_write == "copy" and needs.SHARES_TO_TF:
        y = from_dlpack(Old(array))
        y.add_(1)
        t = interface.to_tf(y)
        assert tf_data_address(t) == torch_data_address(y)
        assert tf.reduce_sum(t).numpy() == 8 * 24


class WithoutCopy:
    """A producer of 1.0 without the keyword copy."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None) -> Any:
        return self.array.__dlpack__(max_version=max_version)


@needs.numpy_exports_read_only
def test_producer_that_cannot_copy_still_says_read_only() -> None:
    array = read_only()
    x = from_dlpack(WithoutCopy(array))
    x.zero_()
    assert array.sum() == 276
    assert tf_data_address(from_dlpack(WithoutCopy(array), framework="tensorflow"))


class Fails:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __dlpack__(self, **_: Any) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [BufferError("no"), ValueError("no"), RuntimeError("no")])
def test_error_of_the_producer_comes_through(error: Exception) -> None:
    for framework in ("torch", "tensorflow"):
        with pytest.raises(type(error), match="no") as caught:
            from_dlpack(Fails(error), framework=framework)
        assert caught.value is error


@pytest.mark.parametrize(
    "value",
    [None, 3, "text", object(), [1.0], tf.constant, np.ndarray],
    ids=lambda v: type(v).__name__,
)
def test_what_is_no_producer(value: Any) -> None:
    with pytest.raises((tensor_bridge.TensorBridgeError, TypeError)):
        from_dlpack(value)


class Answers:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __dlpack__(self, **_: Any) -> Any:
        return self.answer


@pytest.mark.parametrize("answer", [None, 3, "dltensor", object(), [1]])
def test_producer_that_makes_no_capsule(answer: Any) -> None:
    for framework in ("torch", "tensorflow"):
        with pytest.raises((tensor_bridge.InvalidHandleError, tensor_bridge.UnsupportedTypeError)):
            from_dlpack(Answers(answer), framework=framework)


@needs.numpy_exports_read_only
def test_many_threads() -> None:
    arrays = [read_only((64,)) for _ in range(8)]
    with nothing_kept():

        def work(i: int) -> None:
            for k in range(100):
                array = arrays[(i + k) % 8]
                x = from_dlpack(array)
                t = from_dlpack(array, framework="tensorflow")
                x.add_(1)
                assert tf_data_address(t) == array.ctypes.data

        in_threads(*[lambda i=i: work(i) for i in range(4)])
        assert all(array.sum() == 2016 for array in arrays)


@needs.numpy_exports_read_only
def test_first_writes_of_several_threads_to_a_strided_array() -> None:
    for _ in range(30):
        array = read_only((4, 4096))
        x = from_dlpack(array[:, ::2])
        in_threads(*[lambda row=row: row.add_(1) for row in x])
        assert np.array_equal(x.numpy(), array[:, ::2] + 1)
        assert array[3, 4095] == 4 * 4096 - 1
