"""DLPack 1.x: exporting TensorFlow tensors, and importing from any producer with write protection.

TensorFlow's own ``__dlpack__`` (2.20 and newer) makes capsules of the old kind, which cannot say
that the memory is read-only; it ignores ``max_version``, refuses streams and copies, and aborts the
process for strings. `exporter` has none of these faults. torch ignores the READ_ONLY flag when it
imports; `from_dlpack` honours it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from tensor_bridge import _C, _devices, _refusals
from tensor_bridge._options import checks_keywords
from tensor_bridge.errors import (
    InvalidOptionError,
    UnsupportedDeviceError,
    UnsupportedTypeError,
)

if TYPE_CHECKING:
    import torch

__all__ = ["Exporter", "exporter", "from_dlpack"]

_CPU = 1  # DLDeviceType.kDLCPU
_CUDA = 2  # DLDeviceType.kDLCUDA
_ROCM = 10  # DLDeviceType.kDLROCM


class Exporter:
    """An eager tf.Tensor with the DLPack 1.x protocol; made by `exporter`.

    Attributes:
      tensor: The tf.Tensor.
    """

    __slots__ = ("__weakref__", "tensor")

    # For consumers that use the C exchange API (tvm-ffi), which look it up on the type.
    __dlpack_c_exchange_api__ = _C.dlpack_exchange_api()

    def __init__(self, tensor: Any) -> None:
        if not _C.is_eager_tensor(tensor):
            raise _refusals.refusal_to_torch(tensor)
        self.tensor = tensor

    def __dlpack__(
        self,
        *,
        stream: int | Any | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule of the tensor's memory, marked READ_ONLY, or of a copy of it.

        Args:
          stream: Any stream: exporting waits until TensorFlow has produced the values. On the host
            it must be None or -1.
          max_version: The newest version the consumer knows. Without it, or below 1.0, the capsule
            is of the old kind, which cannot say READ_ONLY, and holds a copy.
          dl_device: Where the consumer wants the memory: None, or the device that it is on.
          copy: None shares if possible, True copies, False never copies.

        Returns:
          A capsule that keeps TensorFlow's buffer, or the copy, alive until its consumer's deleter
          runs. Shape and dtype are the tensor's.

        Raises:
          BufferError: the combination needs a copy and ``copy`` is False, or another device.
          UnsupportedDtypeError: DLPack has no such dtype.
        """
        device = self.__dlpack_device__()
        if dl_device is not None and tuple(dl_device) != device:
            raise BufferError(
                f"expected dl_device None or {device}, where the tensor is, got {dl_device!r}"
            )
        if device[0] == _CPU and stream not in (None, -1):
            raise BufferError(f"expected no stream for a tensor on the host, got {stream!r}")
        versioned = max_version is not None and tuple(max_version) >= (1, 0)
        if not versioned:
            _refusals.require_copy_allowed(
                copy,
                "a DLPack capsule below version 1.0 cannot say that the memory is read-only",
                "Ask with max_version=(1, 0) or newer",
            )
        return _C.dlpack_capsule(self.tensor, versioned, copy is True)

    def __dlpack_device__(self) -> tuple[int, int]:
        """(device type, ordinal) as DLPack numbers them."""
        kind, _, index = self.tensor.backing_device.rsplit("/device:", 1)[-1].partition(":")
        # Every logical CPU device is the one host.
        if kind == "CPU":
            return _CPU, 0
        if kind == "GPU":
            return _CUDA, _devices.gpu_of_logical(int(index))
        raise UnsupportedDeviceError(
            f"expected a tensor on a CPU or GPU of this process, got one on "
            f"{self.tensor.backing_device}"
        )

    def __repr__(self) -> str:
        return f"Exporter({self.tensor!r})"


def exporter(t: Any) -> Exporter:
    """An object with the DLPack 1.x protocol over an eager tf.Tensor or a tf.Variable's value.

    torch's own importer ignores READ_ONLY and writes through to TensorFlow: use `from_dlpack`.

    Args:
      t: A dense tensor of any shape, of a dtype that DLPack has, on a CPU or GPU of this process.

    Returns:
      The exporter, which keeps the tensor alive. Its capsules share memory and are READ_ONLY.

    Raises:
      UnsupportedTypeError: ``t`` is neither of them.

    Example:
      >>> import tensorflow as tf, tensor_bridge.dlpack
      >>> exporter = tensor_bridge.dlpack.exporter(tf.constant([1, 2]))
      >>> exporter.__dlpack_device__()
      (1, 0)
      >>> tensor_bridge.dlpack.from_dlpack(exporter)
      tensor([1, 2], dtype=torch.int32)
    """
    if _refusals.is_resource_variable(t):
        t = t.read_value()
    return Exporter(t)


def exporter_of_capsule(capsule: Any) -> Exporter:
    """The exporter of a tf.Tensor made from a capsule; the C exchange API calls it."""
    return Exporter(_to_tensorflow(capsule, copy=None))


def _stream(x: Any) -> dict[str, int]:
    """The keyword with the stream that will read: the producer makes it wait for the values.

    Without it producers use no stream, or the legacy default stream, which torch's other streams do
    not wait for.
    """
    if getattr(type(x), "__dlpack_device__", None) is None:
        return {}
    kind, index = (int(number) for number in x.__dlpack_device__())
    if kind not in (_CUDA, _ROCM):
        return {}
    _C.require_torch_cuda()
    import torch

    if not torch.cuda.is_available():
        return {}  # refused later, when the kind of memory is known
    stream = int(torch.cuda.current_stream(index).cuda_stream)
    # DLPack's number of CUDA's default stream; 0 could mean two of them.
    return {"stream": 1 if stream == 0 and kind == _CUDA else stream}


def _capsule(x: Any) -> Any:
    """A capsule from a producer, of the newest version it can make."""
    if type(x).__name__ == "PyCapsule":
        return x
    if _C.is_eager_tensor(x) or _refusals.is_resource_variable(x):
        # TensorFlow's own method would export its memory as writable.
        x = exporter(x)
    method = getattr(type(x), "__dlpack__", None)
    if method is None:
        raise UnsupportedTypeError(
            f"expected an object with __dlpack__ or a DLPack capsule, got {_refusals.a_class(x)}"
        )
    stream = _stream(x)
    try:
        # Without copy=, which the producer may not know: copies are made here.
        return x.__dlpack__(max_version=(1, 3), **stream)
    except TypeError:
        # The protocol before 1.0: no keywords but stream.
        return x.__dlpack__(**stream)


def _to_torch(capsule: Any, **options: Any) -> torch.Tensor:
    return _C.torch_from_dlpack(capsule, **options)


def _to_tensorflow(capsule: Any, copy: bool | None) -> Any:
    read_only = _C.capsule_is_read_only(capsule)
    if not read_only:
        _refusals.require_copy_allowed(
            copy,
            "TensorFlow takes its tensors to be immutable and the producer may write to this "
            "memory (it is not marked READ_ONLY)",
        )
    return _C.tensor_to_tf(_to_torch(capsule), copy=copy if read_only else True)


@checks_keywords
def from_dlpack(
    x: Any,
    *,
    framework: Literal["torch", "tensorflow"] = "torch",
    copy: bool | None = None,
    device: Any = None,
    on_write: Literal["copy", "raise", "alias"] = "copy",
) -> Any:
    """Takes the memory of any DLPack producer into torch or TensorFlow.

    Memory that the producer marks READ_ONLY is shared and protected: the first write moves the
    torch tensor onto memory of its own. Memory in a capsule of the old kind, which cannot say
    READ_ONLY, is protected too: JAX, whose arrays never change, makes such capsules up to 0.10.
    Writable memory is shared with torch, and both sides see writes, as DLPack specifies.
    TensorFlow, whose tensors never change, shares READ_ONLY memory and copies the rest.

    Args:
      x: An object with ``__dlpack__`` (JAX, CuPy, NumPy, tvm-ffi, ...) or a capsule, which is
        consumed.
      framework: "torch" gives a torch.Tensor, "tensorflow" an eager tf.Tensor.
      copy: None shares if possible, True copies, False never copies.
      device: For torch, where the result lives.
      on_write: For torch, as in `convert_tf_to_pytorch`; memory that the producer calls writable is
        always written through.

    Returns:
      A tensor of the producer's shape and dtype. Where it shares memory, it keeps the producer's
      memory alive until it is released.

    Raises:
      CopyRequiredError: ``copy=False`` and sharing is not possible.
      InvalidHandleError: ``x`` is a consumed capsule, or its description is inconsistent.
      InvalidOptionError: a keyword has a value that it does not take.
      UnsupportedDtypeError: the framework has no such dtype.
      UnsupportedTypeError: ``x`` is no DLPack producer, or has strides that torch lacks.
    """
    if copy is not None and not isinstance(copy, bool):
        raise InvalidOptionError(f"copy must be None, True or False, got {copy!r}")
    if framework == "torch":
        return _to_torch(_capsule(x), copy=copy, device=device, on_write=on_write)
    if framework != "tensorflow":
        raise InvalidOptionError(f"framework must be 'torch' or 'tensorflow', got {framework!r}")
    if device is not None or on_write != "copy":
        raise InvalidOptionError("device and on_write are for framework='torch'")
    from tensor_bridge import _frameworks

    _frameworks.ensure_tensorflow()
    return _to_tensorflow(_capsule(x), copy)
