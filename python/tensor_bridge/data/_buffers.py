"""Reads numbers from objects with the buffer protocol, such as NumPy's arrays and scalars.

Not for: importing NumPy. The numbers are copied, because writes by their owner cannot be detected
and TensorFlow's values must not change.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from tensor_bridge._refusals import class_name, class_names
from tensor_bridge.composite import StringTensor
from tensor_bridge.errors import TensorBridgeError, UnsupportedDtypeError, UnsupportedTypeError

if TYPE_CHECKING:
    import torch

# Objects that become a tensor; str, bytes and tensors have buffers too.
_OWNERS = {"numpy.ndarray", "numpy.generic", "array.array", "builtins.memoryview"}
_MASKED = {"numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray"}

# For each letter of struct, torch's name of the dtype by the size of an element.
_KINDS: tuple[tuple[str, dict[int, str]], ...] = (
    ("?", {1: "bool"}),
    ("bhilqn", {1: "int8", 2: "int16", 4: "int32", 8: "int64"}),
    ("BHILQN", {1: "uint8", 2: "uint16", 4: "uint32", 8: "uint64"}),
    ("efdg", {2: "float16", 4: "float32", 8: "float64"}),
    ("ZfZdZg", {8: "complex64", 16: "complex128"}),
)
_FOREIGN = "!>" if sys.byteorder == "little" else "<"
# Objects, and strings of a fixed length.
_TEXT = "Osw"


def has_buffer(value: Any) -> bool:
    """Whether the value is such an object, with any content."""
    return not _OWNERS.isdisjoint(class_names(value))


def read(value: Any) -> torch.Tensor | StringTensor:
    """Returns a tensor of the same shape, dtype and values, in its own memory.

    Raises:
      UnsupportedTypeError: The value has no buffer, several fields, or masked elements.
      UnsupportedDtypeError: torch has no dtype for the numbers.
    """
    view = _view(value)
    letters = view.format.lstrip("@=^<!>")
    if letters[-1:] in _TEXT:
        return _strings(value, view.shape)
    sizes: dict[int, str] = next((sizes for kind, sizes in _KINDS if letters in kind), {})
    name = sizes.get(view.itemsize)
    if name is None:
        raise UnsupportedDtypeError(
            f"expected numbers of a dtype that torch has, got {_named(value)} (buffer format "
            f"{view.format!r}); convert it first, as with .astype('float64'), or give its fields "
            "one by one"
        )
    if view.format[0] in _FOREIGN and view.itemsize > 1:
        order = "big" if sys.byteorder == "little" else "little"
        raise UnsupportedDtypeError(
            f"expected numbers in this machine's byte order, got {order}-endian ones, "
            f"{_named(value)}; convert them first: x.astype(x.dtype.newbyteorder('='))"
        )
    return _copied(view, name)


def _copied(view: memoryview, name: str) -> torch.Tensor:
    import torch

    dtype = getattr(torch, name)
    if view.nbytes == 0:
        return torch.empty(view.shape, dtype=dtype, device="cpu")
    if view.c_contiguous and not view.readonly:
        return torch.frombuffer(view, dtype=dtype).reshape(view.shape).clone()
    # Row by row for any strides; torch warns about memory to which it could not write.
    return torch.frombuffer(bytearray(view), dtype=dtype).reshape(view.shape)


def _view(value: Any) -> memoryview:
    if not _MASKED.isdisjoint(class_names(value)):
        raise UnsupportedTypeError(
            f"expected plain numbers, got {_named(value)} whose masked elements have no value; "
            "give them one: x.filled(0)"
        )
    try:
        return memoryview(value)
    except (TypeError, ValueError, BufferError) as e:
        raise UnsupportedTypeError(
            f"expected numbers that can be read through the buffer protocol, got {_named(value)}: "
            f"{e}; convert it first, as with .astype('int64') or .astype('float32')"
        ) from None


def _strings(value: Any, shape: Any) -> StringTensor:
    try:
        return StringTensor.from_list(value.tolist()).reshape(shape)
    except TensorBridgeError as e:
        raise UnsupportedTypeError(f"{e}, in {_named(value)}") from None


def _named(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    kind = class_name(value)
    return f"a {kind}" if dtype is None else f"a {kind} of dtype {dtype}"
