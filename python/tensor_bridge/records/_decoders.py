"""Raw and TensorProto, decoders for ``decode=`` of a feature of bytes.

Not for: images (`_images`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C
from tensor_bridge._dtypes import named, row_of
from tensor_bridge._options import checks_keywords
from tensor_bridge._stored_dtypes import decoder_of, stored_dtype
from tensor_bridge.composite import StringTensor
from tensor_bridge.errors import (
    CheckpointError,
    InvalidOptionError,
    OutOfMemoryError,
    RecordError,
    UnsupportedDtypeError,
)

if TYPE_CHECKING:
    import torch

__all__ = ["Raw", "TensorProto"]

# A TensorProto that repeats one value takes a few bytes, whatever its shape. A decoded tensor may
# take _MAX_MADE bytes of memory, or _MAX_RATIO times the message's size if that is more.
_MAX_MADE, _MAX_RATIO = 1 << 28, 16


@checks_keywords
@dataclass(frozen=True)
class Raw:
    """Decodes values stored as in memory, little-endian, like `tf.io.decode_raw`.

    Attributes:
      dtype: Dtype of the values: a torch.dtype that TensorFlow also has, or its name.
      shape: Shape of the values in one string.

    Raises:
      UnsupportedDtypeError: torch and TensorFlow do not share the dtype.
      InvalidOptionError: The shape has unknown sizes.
    """

    dtype: Any
    shape: Any = ()

    def __post_init__(self) -> None:
        row = row_of(self.dtype if isinstance(self.dtype, str) else str(self.dtype))
        if row is None or row.kind != "shared":
            raise UnsupportedDtypeError(
                f"expected a dtype that torch and TensorFlow share, got {self.dtype}"
            )
        sizes = (self.shape,) if isinstance(self.shape, int) else tuple(self.shape)
        if not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise InvalidOptionError(f"expected a shape of known sizes, got {self.shape!r}")
        object.__setattr__(self, "dtype", row.torch_name.removeprefix("torch."))
        object.__setattr__(self, "shape", sizes)

    def decode(self, strings: StringTensor) -> torch.Tensor:
        """Decodes strings to a tensor of shape ``(*strings.shape, *shape)`` and dtype `dtype`.

        The tensor shares the strings' memory. It is a copy if that memory is not aligned for the
        dtype, or if the dtype is bool.

        Raises:
          RecordError: A string has another size than the values need.
        """
        import torch

        dtype = named(f"torch.{self.dtype}")
        size = prod(self.shape) * dtype.itemsize
        sizes = strings.offsets.diff()
        wrong = (sizes != size).nonzero()
        if wrong.numel():
            first = int(wrong[0])
            raise RecordError(
                f"string {first}: expected {size} bytes for {self.dtype} of shape {self.shape}, "
                f"got {int(sizes[first])}"
            )
        begin = int(strings.offsets[0])
        data = strings.bytes[begin : int(strings.offsets[-1])]
        if data.data_ptr() % dtype.itemsize or not data.is_contiguous():
            data = data.clone(memory_format=torch.contiguous_format)
        shape = (*strings.shape, *self.shape)
        if dtype == torch.bool:
            return (data != 0).reshape(shape)
        return data.view(dtype).reshape(shape)


@checks_keywords
@dataclass(frozen=True)
class TensorProto:
    """Decodes tensors that `tf.io.serialize_tensor` wrote.

    With `dtype` and `shape` the tensors of a batch are stacked. Without them each tensor may have
    another dtype and shape, so the value is a list of tensors, nested like the strings.

    Attributes:
      dtype: Dtype of each tensor: a torch.dtype or its name.
      shape: Shape of each tensor. Give both or neither.

    Raises:
      InvalidOptionError: Only one of `dtype` and `shape` is given.
    """

    dtype: Any = None
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if (self.dtype is None) != (self.shape is None):
            raise InvalidOptionError("expected dtype and shape, or neither of them")
        if self.shape is not None:
            object.__setattr__(self, "shape", tuple(self.shape))
            object.__setattr__(self, "dtype", str(self.dtype).removeprefix("torch."))

    def decode(self, strings: StringTensor) -> Any:
        """Decodes strings to tensors that own their memory.

        Returns:
          With a dtype and a shape: one tensor of shape ``(*strings.shape, *shape)``. Without them:
          nested lists of tensors, or a single tensor if `strings` has no dimensions. Tensors of
          strings are StringTensors.

        Raises:
          RecordError: A string is not a TensorProto, or has another dtype or shape.
          UnsupportedDtypeError: torch has no such dtype.
          OutOfMemoryError: A few bytes claim to be a very large tensor.
        """
        import torch

        data = strings.bytes
        ends = strings.offsets.tolist()
        tensors = [
            self._tensor(i, data[begin:end]) for i, (begin, end) in enumerate(pairwise(ends))
        ]
        if self.shape is None:
            return _nested(tensors, strings.shape)
        shape = (*strings.shape, *self.shape)
        if tensors:
            return torch.stack(tensors).reshape(shape)
        return torch.empty(shape, dtype=named(f"torch.{self.dtype}"), device="cpu")

    def _tensor(self, number: int, message: torch.Tensor) -> Any:
        import torch

        data = message if message.numel() else torch.zeros(1, dtype=torch.uint8)
        at, size = data.data_ptr(), message.numel()
        try:
            dtype, shape = _C.tensor_describe(at, size)
            row = row_of(dtype)
            if row is None:
                raise RecordError(f"string {number}: expected a dtype of TensorFlow, got {dtype}")
            count = prod(shape)
            room = max(_MAX_MADE, _MAX_RATIO * size)
            if count * max(row.itemsize, 8) > room:
                raise OutOfMemoryError(
                    f"string {number}: a tensor of shape {shape} out of {size} bytes"
                )
            if row.name == "string":
                return self._strings(at, size, shape, room)
            made = torch.empty(
                shape, dtype=stored_dtype(row, False, "cast them before"), device="cpu"
            )
            if count:
                _C.tensor_values(at, size, dtype, count, made.data_ptr())
        except CheckpointError as e:
            raise RecordError(f"string {number}: {e}") from None
        decode = decoder_of(row, False)
        if decode is not None:
            made = decode(shape, [made])
        if self.shape is not None and (
            tuple(shape) != self.shape or str(made.dtype) != f"torch.{self.dtype}"
        ):
            raise RecordError(
                f"string {number}: expected {self.dtype} of shape {self.shape}, got "
                f"{made.dtype} of shape {tuple(shape)}"
            )
        return made

    def _strings(self, at: int, size: int, shape: tuple[int, ...], room: int) -> StringTensor:
        import torch

        if self.shape is not None:
            raise RecordError(f"expected {self.dtype} of shape {self.shape}, got strings")
        count = prod(shape)
        total = _C.tensor_strings(at, size, count, 0, 0)
        if total > room:
            raise OutOfMemoryError(f"{total} bytes of strings out of {size}")
        offsets = torch.empty(count + 1, dtype=torch.int64, device="cpu")
        data = torch.empty(max(total, 1), dtype=torch.uint8, device="cpu")[:total]
        _C.tensor_strings(at, size, count, offsets.data_ptr(), data.data_ptr())
        return StringTensor(data, offsets, torch.Size(shape))


def _nested(items: list[Any], shape: tuple[int, ...]) -> Any:
    if not shape:
        return items[0]
    for size in reversed(shape[1:]):
        items = [items[i : i + size] for i in range(0, len(items), size or 1)]
    return items
