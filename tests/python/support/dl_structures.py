"""DLPack structures in ctypes: the content of a capsule, and capsules of any or false content."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

READ_ONLY = 1
IS_COPIED = 2
VERSIONED = b"dltensor_versioned"
UNVERSIONED = b"dltensor"


class DLDevice(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("id", ctypes.c_int32))


class DLDataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", DLDevice),
        ("ndim", ctypes.c_int32),
        ("dtype", DLDataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class Managed(ctypes.Structure):
    """DLManagedTensor, before 1.0."""

    _fields_ = (("tensor", DLTensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class ManagedVersioned(ctypes.Structure):
    """DLManagedTensorVersioned."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", DLTensor),
    )


DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_new = ctypes.pythonapi.PyCapsule_New
_new.restype = ctypes.py_object
_new.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
_name = ctypes.pythonapi.PyCapsule_GetName
_name.restype = ctypes.c_char_p
_name.argtypes = (ctypes.py_object,)


def name_of(capsule: Any) -> bytes:
    name: bytes = _name(capsule)
    return name


def read(capsule: Any) -> Any:
    """The structure in a fresh capsule; valid while nobody consumes or frees it."""
    name = name_of(capsule)
    kind = ManagedVersioned if name == VERSIONED else Managed
    return kind.from_address(_pointer(capsule, name))


def shape_of(tensor: DLTensor) -> tuple[int, ...]:
    return tuple(tensor.shape[: tensor.ndim])


def strides_of(tensor: DLTensor) -> tuple[int, ...]:
    return tuple(tensor.strides[: tensor.ndim])


class Producer:
    """A structure over 4096 bytes of zeros, made for a test, which counts its deletions.

    Attributes:
      managed: The structure; a test may change any field.
      memory: The memory that it points to.
      deleted: How often its deleter ran.
    """

    def __init__(
        self,
        shape: Sequence[int] = (2, 3),
        *,
        code: int = 2,
        bits: int = 32,
        strides: Sequence[int] | None = None,
        versioned: bool = True,
        flags: int = 0,
        deleter: bool = True,
    ) -> None:
        self.memory = (ctypes.c_uint8 * (4096 + 256))()
        start = ctypes.addressof(self.memory)
        self.address = start + -start % 256
        self.deleted = 0
        self.versioned = versioned
        self.managed: Any = ManagedVersioned() if versioned else Managed()
        if versioned:
            self.managed.major, self.managed.minor = 1, 0
            self.managed.flags = flags
        self._delete = DELETER(self._count)
        if deleter:
            self.managed.deleter = ctypes.cast(self._delete, ctypes.c_void_p)
        tensor = self.managed.tensor
        tensor.data = self.address
        tensor.device = DLDevice(1, 0)
        tensor.dtype = DLDataType(code, bits, 1)
        tensor.ndim = len(shape)
        self._shape = (ctypes.c_int64 * max(len(shape), 1))(*shape)
        tensor.shape = ctypes.cast(self._shape, ctypes.POINTER(ctypes.c_int64))
        if strides is not None:
            self._strides = (ctypes.c_int64 * max(len(strides), 1))(*strides)
            tensor.strides = ctypes.cast(self._strides, ctypes.POINTER(ctypes.c_int64))

    def _count(self, address: int) -> None:
        assert address == ctypes.addressof(self.managed)
        self.deleted += 1

    @property
    def tensor(self) -> DLTensor:
        tensor: DLTensor = self.managed.tensor
        return tensor

    def bytes(self, count: int = 24) -> bytes:
        return ctypes.string_at(self.address, count)

    def capsule(self, name: bytes | None = None) -> Any:
        """A capsule without a destructor: one that nobody consumes is never deleted."""
        if name is None:
            name = VERSIONED if self.versioned else UNVERSIONED
        self._names = [*getattr(self, "_names", []), name]
        return _new(ctypes.addressof(self.managed), self._names[-1], None)

    def __dlpack__(self, **_: Any) -> Any:
        return self.capsule()

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0
