"""Tensors whose memory TensorFlow cannot use: an exact copy or a typed error, never an abort.

TensorFlow checks neither strides nor alignment; a later operation would end the process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from fresh import run_forked
from refusals import assert_to_tf_refused, explained
from sharing import (
    SHAPE,
    assert_own,
    misaligned,
    owners,
    shared_to_tf,
    tf_bytes,
    torch_bytes,
    values,
)
from torch.utils._python_dispatch import TorchDispatchMode

import tensor_bridge
from tensor_bridge.testing import (
    live_owners,
    shares_memory,
    tf_data_address,
    torch_data_address,
)

COMPLEX = torch.complex(values(), -values())


def resized_after_the_share() -> torch.Tensor:
    x = values()
    t = tensor_bridge.to_tf(x)
    x.resize_(100)
    del t
    return x


def from_file() -> torch.Tensor:
    """A private mapping of a file, like that of torch.load(mmap=True)."""
    path = Path(__file__)
    return torch.from_file(str(path), shared=False, size=100, dtype=torch.uint8)


COPIED: dict[str, tuple[Callable[[], torch.Tensor], str]] = {
    "conjugate": (lambda: COMPLEX.clone().conj(), "lazy conjugate"),
    "conjugate of a scalar": (lambda: torch.tensor(1 + 2j).conj(), "lazy conjugate"),
    "imaginary part of a conjugate": (lambda: COMPLEX.clone().conj().imag, "lazy negation"),
    "negative view": (lambda: torch._neg_view(values()), "lazy negation"),
    "negative conjugate": (lambda: torch._neg_view(COMPLEX.clone().conj()), "lazy conj|negation"),
    "transposed": (lambda: values().T, "not row-major"),
    "permuted": (lambda: values((2, 3, 4)).permute(2, 0, 1), "not row-major"),
    "columns": (lambda: values()[:, 1:3], "not row-major"),
    "every second row": (lambda: values()[::2], "not row-major"),
    "expanded": (lambda: values((4, 1)).expand(4, 6), "not row-major"),
    "expanded scalar": (lambda: torch.tensor(3.5).expand(2, 3), "not row-major"),
    "diagonal": (lambda: values().diagonal(), "not row-major"),
    "overlapping windows": (lambda: values((24,)).unfold(0, 5, 2), "not row-major"),
    "channels last": (
        lambda: values((2, 3, 4, 5)).to(memory_format=torch.channels_last),
        "not row-major",
    ),
    "real part": (lambda: COMPLEX.clone().real, "not row-major"),
    "row": (lambda: values()[1], "64 bytes"),
    "all but the first": (lambda: values((24,))[1:], "64 bytes"),
    "in shared memory": (lambda: values().share_memory_(), "shared with other processes"),
    "mapped file": (from_file, "shared with other processes"),
    "lazily cloned": (lambda: torch._lazy_clone(values()), "lazy clone"),
    "oneDNN": (lambda: values().to_mkldnn(), "oneDNN"),
    "implicit zero": (lambda: torch._efficientzerotensor((2, 3)), "implicit zero"),
    "complex implicit zero": (
        lambda: torch._efficientzerotensor((2, 3), dtype=torch.complex64),
        "implicit zero",
    ),
    "resized after it was shared": (resized_after_the_share, "resized after it was shared"),
}
COPIED |= {
    f"{offset} bytes after a boundary": (lambda offset=offset: misaligned(offset), "64 bytes")
    for offset in range(4, 64, 4)
}
COPIED |= {
    f"{offset} bytes after a boundary, bytes": (
        lambda offset=offset: misaligned(offset, values((5,), torch.uint8)),
        "64 bytes",
    )
    for offset in (1, 2, 63)
}


def dense(x: torch.Tensor) -> torch.Tensor:
    """A contiguous copy of the values, made by torch."""
    x = x.to_dense() if x.layout is torch._mkldnn else x
    return torch.clone(x.resolve_conj().resolve_neg(), memory_format=torch.contiguous_format)


@needs.shares_to_tf
@pytest.mark.parametrize("name", COPIED)
def test_exact_copy_in_memory_of_tensorflow_s(name: str, interface: Any) -> None:
    make, reason = COPIED[name]
    x = make()
    expected = dense(x)
    before = live_owners()
    for copy in (None, True):
        explanation = explained(interface, x, copy=copy)
        assert explanation.action == "copied"
        assert explanation.shape == tuple(x.shape)
        assert explanation.nbytes == expected.nbytes
        if copy is None:
            assert re.search(reason, explanation.reason)
        t = interface.to_tf(x, copy=copy)
        assert t.shape == x.shape
        assert t.dtype.name == str(x.dtype).removeprefix("torch.")
        assert tf_bytes(t) == torch_bytes(expected)
        assert live_owners() == before
        assert_own(t, x)
        tf.concat([tf.reshape(t, (-1,)), tf.reshape(t + t, (-1,))], 0)


@needs.shares_to_tf
@pytest.mark.parametrize("name", COPIED)
def test_without_a_copy_it_is_refused(name: str, interface: Any) -> None:
    make, reason = COPIED[name]
    x = make()
    assert_to_tf_refused(
        interface, x, tensor_bridge.CopyRequiredError, rf"copy=False, but .*({reason})", copy=False
    )


KEEPS: dict[str, Callable[[torch.Tensor], Any]] = {
    "conjugate": torch.is_conj,
    "negative view": torch.is_neg,
    "transposed": lambda x: not x.is_contiguous(),
    "in shared memory": torch.Tensor.is_shared,
    "oneDNN": lambda x: x.is_mkldnn,
    "implicit zero": lambda x: x._is_zerotensor(),
    "row": lambda x: x.storage_offset() == 6,
}


@pytest.mark.parametrize("name", KEEPS)
def test_source_stays_what_it_was(name: str, interface: Any) -> None:
    x = COPIED[name][0]()
    version = x._version
    assert KEEPS[name](x)
    interface.to_tf(x)
    explained(interface, x)
    assert KEEPS[name](x)
    assert x._version == version


def test_shared_memory_of_the_other_kind() -> None:
    """Shared by name, not by file descriptor: only torch's Python extension has its allocator."""
    run_forked("""
        torch.multiprocessing.set_sharing_strategy("file_system")
        x = torch.ones(64).share_memory_()
        assert tensor_bridge.explain(x).action == "copied"
        t = tensor_bridge.to_tf(x)
        assert x.is_shared() and not testing.shares_memory(t, x)
        y = torch.ones(64)
        u = tensor_bridge.to_tf(y)
        y.share_memory_().add_(1)
        assert y.is_shared() and float(u[0]) == 1
    """).check()


@needs.shares_to_tf
def test_lazy_clone_stays_lazy() -> None:
    x = values()
    y = torch._lazy_clone(x)
    address = torch_data_address(x)
    t, u = tensor_bridge.to_tf(x), tensor_bridge.to_tf(y)
    assert torch_data_address(x) == torch_data_address(y) == address
    x.add_(1)
    y.mul_(2)
    assert tf_bytes(t) == tf_bytes(u) == torch_bytes(values())
    # Both are ordinary tensors now.
    shared_to_tf(x)
    shared_to_tf(y)


@needs.shares_to_tf
def test_lazy_clone_of_a_shared_tensor_is_torchs_to_refuse() -> None:
    """torch's copy-on-write needs a storage without a context. Delete this when it does not."""
    kept = shared_to_tf()
    with pytest.raises(RuntimeError, match="storage != nullptr"):
        torch._lazy_clone(kept.torch)
    kept.assert_shared()


@pytest.mark.parametrize("name", ["transposed", "row", "conjugate", "in shared memory"])
def test_copy_and_source_are_independent(name: str) -> None:
    x = COPIED[name][0]()
    t = tensor_bridge.to_tf(x)
    bytes_ = tf_bytes(t)
    x.zero_()
    assert tf_bytes(t) == bytes_


def test_large_strided_tensors_are_exact() -> None:
    """Larger than the size from which torch copies in parallel and the GIL is released."""
    x = torch.randn(600, 700)
    for view in (x.T, x[:, 1:], x.expand(2, 600, 700), x.view(600, 7, 100).permute(2, 1, 0)):
        t = tensor_bridge.to_tf(view)
        assert tf_bytes(t) == torch_bytes(view.contiguous())
        assert_own(t, x)


# ---- still shared --------------------------------------------------------------------------------

SHARED: dict[str, Callable[[], torch.Tensor]] = {
    "scalar": lambda: torch.tensor(3.5),
    "one element": lambda: torch.ones(1),
    "row at a boundary": lambda: values((4, 1024))[2],
    "size-1 dimensions of any stride": lambda: values((24,)).as_strided((1, 24, 1), (7, 1, 99)),
    "254 dimensions": lambda: values((24,)).view(*[1] * 253, 24),
    "inference tensor": lambda: torch.inference_mode()(lambda: values() + 0)(),
    "parameter": lambda: torch.nn.Parameter(values()),
    "buffer": lambda: torch.nn.Buffer(values()),
    "result of autograd": lambda: torch.nn.Parameter(values()) * 2,
    "view of a parameter": lambda: torch.nn.Parameter(values()).view(-1),
    "resolved conjugate": lambda: COMPLEX.conj().resolve_conj(),
    "double conjugate": lambda: COMPLEX.clone().conj().conj(),
    "as a dtype of the same size": lambda: values().view(torch.int32),
    "shared already": lambda: [x := values(), tensor_bridge.to_tf(x)][0],
    "written after it was shared": lambda: [x := values(), tensor_bridge.to_tf(x), x.add_(1)][0],
}


@needs.shares_to_tf
@pytest.mark.parametrize("name", SHARED)
def test_needs_no_copy(name: str, interface: Any) -> None:
    x = SHARED[name]()
    for copy in (None, False):
        assert explained(interface, x, copy=copy).action == "shared"
        kept = shared_to_tf(x, interface.to_tf, copy=copy)
        assert kept.tf.shape == x.shape
        tf.reduce_sum(tf.cast(kept.tf, tf.complex64))
        kept.assert_shared()


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2), (0, 2**62), (2**62, 0)], ids=str)
@pytest.mark.parametrize("copy", [None, False, True])
def test_empty_tensor(shape: tuple[int, ...], copy: bool | None, interface: Any) -> None:
    x = torch.empty(shape[::-1]).T if shape[0] == 2**62 else torch.empty(shape)
    with owners():
        t = interface.to_tf(x, copy=copy)
        assert tuple(t.shape) == shape
    assert not shares_memory(t, x)
    assert explained(interface, x, copy=copy).nbytes == 0
    assert tf.reduce_sum(t).numpy() == 0


# ---- refused -------------------------------------------------------------------------------------


class Dispatching(torch.Tensor):
    """A wrapper without its own memory, like LoggingTensor, DTensor and others."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Dispatching:
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, *_: Any) -> Any:
        raise AssertionError("the conversion ran the subclass's code")


def resized(nbytes: int, view: Callable[[torch.Tensor], torch.Tensor] = torch.detach) -> Any:
    x = values()
    y = view(x)
    x.untyped_storage().resize_(nbytes)
    return y


REFUSED: dict[str, tuple[Callable[[], torch.Tensor], type[Exception], str]] = {
    "meta": (lambda: torch.empty(2, device="meta"), tensor_bridge.UnsupportedDeviceError, "meta"),
    "wrapper subclass": (
        lambda: Dispatching(values()),
        tensor_bridge.UnsupportedTypeError,
        "the plain tensor inside",
    ),
    "subclass with dispatch and memory": (
        lambda: torch.Tensor._make_subclass(Dispatching, values()),
        tensor_bridge.UnsupportedTypeError,
        "the plain tensor inside",
    ),
    "255 dimensions": (
        lambda: torch.ones([1] * 255),
        tensor_bridge.UnsupportedTypeError,
        "up to 254 dimensions, got 255",
    ),
    "complex32": (
        lambda: torch.ones(2, dtype=torch.complex32),
        tensor_bridge.UnsupportedDtypeError,
        "convert to complex64 in torch",
    ),
    "float8_e8m0fnu": (
        lambda: torch.ones(2).to(torch.float8_e8m0fnu),
        tensor_bridge.UnsupportedDtypeError,
        "convert to float32 in torch",
    ),
    "packed float4": (
        lambda: torch.zeros(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        tensor_bridge.UnsupportedDtypeError,
        "two elements a byte",
    ),
    "bits": (
        lambda: torch.empty(2, dtype=torch.bits8),
        tensor_bridge.UnsupportedDtypeError,
        "Bits8",
    ),
    "storage resized to nothing": (
        lambda: resized(0),
        tensor_bridge.InvalidHandleError,
        "resize the storage back",
    ),
    "storage resized to less": (
        lambda: resized(40),
        tensor_bridge.InvalidHandleError,
        "resize the storage back",
    ),
    "transposed over a storage resized to less": (
        lambda: resized(40, torch.t),
        tensor_bridge.InvalidHandleError,
        "resize the storage back",
    ),
    "expanded to more than there is": (
        lambda: torch.ones(1).expand(2**50),
        tensor_bridge.OutOfMemoryError,
        "could not allocate 4503599627370496 bytes",
    ),
    "expanded to more than can be counted": (
        lambda: torch.ones(1).expand(2**62),
        tensor_bridge.OutOfMemoryError,
        "could not allocate",
    ),
}


# Dtypes that not every torch has.
NEW = {
    "float8_e8m0fnu": needs.torch_dtype("float8_e8m0fnu"),
    "packed float4": needs.torch_dtype("float4_e2m1fn_x2"),
}


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("name", needs.parameters(REFUSED, NEW))
@pytest.mark.parametrize("copy", [None, False, True])
def test_refused_with_advice(name: str, copy: bool | None, interface: Any) -> None:
    make, error, advice = REFUSED[name]
    x = make()
    if error is tensor_bridge.OutOfMemoryError:
        # Whether there is enough memory shows only in an attempt.
        if copy is not False:
            with pytest.raises(MemoryError, match=advice):
                interface.to_tf(x, copy=copy)
        assert explained(interface, x).action == "copied"
        return
    assert_to_tf_refused(interface, x, error, advice, copy=copy)


@pytest.mark.filterwarnings("ignore:torch.quantize")
@pytest.mark.parametrize("dtype", [torch.qint8, torch.quint8, torch.qint32])
def test_quantized_tensor_loses_no_scale_silently(dtype: torch.dtype, interface: Any) -> None:
    x = torch.quantize_per_tensor(torch.ones(3), 0.5, 3, dtype)
    assert_to_tf_refused(
        interface, x, tensor_bridge.UnsupportedDtypeError, r"int_repr\(\).*dequantize"
    )
    integers = interface.to_tf(x.int_repr(), dtype=str(dtype).removeprefix("torch."))
    assert integers.dtype.name == str(dtype).removeprefix("torch.")
    assert tf_bytes(integers) == torch_bytes(x.int_repr())


TRANSFORMS: dict[str, Callable[[Callable[[Any], Any]], Any]] = {
    "vmap": lambda f: torch.vmap(f)(torch.ones(2, 3)),
    "grad": lambda f: torch.func.grad(lambda v: f(v).sum())(torch.ones(3)),
    "vmap of grad": lambda f: torch.vmap(torch.func.grad(lambda v: f(v).sum()))(torch.ones(2, 3)),
    "jvp": lambda f: torch.func.jvp(f, (torch.ones(3),), (torch.ones(3),)),
    "functionalize": lambda f: torch.func.functionalize(f)(torch.ones(3)),
}


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_tensor_inside_a_transform(transform: str, interface: Any) -> None:
    seen = []

    def function(v: torch.Tensor) -> torch.Tensor:
        assert_to_tf_refused(
            interface, v, tensor_bridge.UnsupportedTypeError, "convert outside the transform"
        )
        seen.append(1)
        return v

    TRANSFORMS[transform](function)
    assert seen


@needs.shares_to_tf
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_plain_tensor_while_a_transform_is_on(transform: str, interface: Any) -> None:
    x, y = values(), values().T
    transposed = torch_bytes(y.contiguous())

    def function(v: torch.Tensor) -> torch.Tensor:
        shared_to_tf(x, interface.to_tf)
        assert tf_bytes(interface.to_tf(y)) == transposed
        return v

    TRANSFORMS[transform](function)


@needs.shares_to_tf
def test_fake_tensor_and_plain_tensors_beside_it(interface: Any) -> None:
    from torch._subclasses import FakeTensorMode

    x, y, complex_ = values(), values().T, COMPLEX.conj()
    with FakeTensorMode():
        fake = torch.ones(3)
        assert_to_tf_refused(interface, fake, tensor_bridge.UnsupportedTypeError, "FakeTensor")
        kept = shared_to_tf(x, interface.to_tf)
        copied, resolved = interface.to_tf(y), interface.to_tf(complex_)
    kept.assert_shared()
    assert tf_bytes(copied) == torch_bytes(values().T.contiguous())
    assert tf_bytes(resolved) == torch_bytes(COMPLEX.conj().resolve_conj())


class Forbidding(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, *_: Any, **__: Any) -> Any:
        raise AssertionError(f"the conversion called {func} through the mode")


class ForbiddingFunctions(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, func: Any, *_: Any, **__: Any) -> Any:
        raise AssertionError(f"the conversion called {func} through the mode")


class Quiet(torch.Tensor):
    """A subclass with ordinary memory: it is converted, and its code does not run."""

    @classmethod
    def __torch_function__(cls, func: Any, *_: Any, **__: Any) -> Any:
        raise AssertionError(f"the conversion called {func}")


@pytest.fixture(params=["share", "copy", "conjugate", "oneDNN", "zero"])
def sample(request: pytest.FixtureRequest) -> Iterator[tuple[torch.Tensor, bytes]]:
    x = {
        "share": values,
        "copy": lambda: values().T,
        "conjugate": lambda: COMPLEX.conj(),
        "oneDNN": lambda: values().to_mkldnn(),
        "zero": lambda: torch._efficientzerotensor(SHAPE),
    }[request.param]()
    return x, torch_bytes(dense(x))


@pytest.mark.parametrize("mode", [Forbidding, ForbiddingFunctions])
def test_modes_of_the_caller_see_nothing(
    mode: type[Any], sample: tuple[torch.Tensor, bytes]
) -> None:
    x, expected = sample
    with mode():
        t = tensor_bridge.to_tf(x)
    assert tf_bytes(t) == expected


@needs.shares_to_tf
def test_code_of_a_subclass_does_not_run(interface: Any) -> None:
    x = values().as_subclass(Quiet)
    t = interface.to_tf(x)
    assert tf_bytes(t) == torch_bytes(values())
    assert tf_data_address(t) == torch_data_address(x.as_subclass(torch.Tensor))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_every_grad_mode(
    context: Callable[[], Any], sample: tuple[torch.Tensor, bytes], interface: Any
) -> None:
    x, expected = sample
    with context():
        assert tf_bytes(interface.to_tf(x)) == expected
        assert tf_bytes(interface.to_tf(x, copy=True)) == expected


def test_default_device_and_dtype_of_torch_do_not_matter(
    sample: tuple[torch.Tensor, bytes],
) -> None:
    x, expected = sample
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert tf_bytes(tensor_bridge.to_tf(x)) == expected
    finally:
        torch.set_default_dtype(dtype)


def test_deterministic_algorithms_fill_no_memory() -> None:
    x = values().T
    torch.use_deterministic_algorithms(True)
    try:
        assert tf_bytes(tensor_bridge.to_tf(x)) == torch_bytes(x.contiguous())
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_sparse_layouts_without_a_twin_are_refused_by_the_dense_conversion() -> None:
    bridge = tensor_bridge.TensorBridge()
    for x in (torch.eye(3).to_sparse(), torch.eye(3).to_sparse_csr()):
        assert_to_tf_refused(bridge, x, tensor_bridge.UnsupportedTypeError, r"to_dense\(\)")


@pytest.mark.filterwarnings("ignore")
def test_nested_tensor_is_refused_by_the_dense_conversion() -> None:
    bridge = tensor_bridge.TensorBridge()
    for layout in (torch.strided, torch.jagged):
        x = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=layout)
        assert_to_tf_refused(bridge, x, tensor_bridge.UnsupportedTypeError, "values|transform")
