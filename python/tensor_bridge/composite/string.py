"""Strings: TensorFlow's `string` tensors, and `StringTensor`, their form in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from math import prod
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _explanation, _options, _refusals
from tensor_bridge.composite._registry import Composite, Conversion, Options, Parts, dense
from tensor_bridge.errors import (
    MismatchError,
    TensorBridgeError,
    UnsupportedDeviceError,
    UnsupportedDtypeError,
    UnsupportedTypeError,
    ValueRangeError,
)

if TYPE_CHECKING:
    import torch

    from tensor_bridge._explanation import Explanation

__all__ = ["COMPOSITES", "StringTensor"]

# Inside the class the name `bytes` means the tensor.
_Bytes = bytes

# repr() shows all strings up to these numbers of strings and bytes, otherwise the first few.
_SHORT_COUNT, _SHORT_BYTES, _FIRST = 100, 4096, 3


@dataclass(frozen=True, eq=False, repr=False)
class StringTensor:
    """Byte strings with a shape, as two torch tensors.

    `convert_tf_to_pytorch` returns it for a TensorFlow tensor of dtype string, and
    `convert_pytorch_to_tf` makes an equal tensor from it. In row-major order, string i is
    ``bytes[offsets[i]:offsets[i + 1]]``, as in Arrow's large_binary. A string becomes a Python
    object only when it is asked for.

    Both are ordinary tensors in torch's own memory. They may be replaced, sliced and moved; the
    offsets are checked whenever strings are read, and need not begin at 0.

    Attributes:
      bytes: All strings concatenated, uint8, of one dimension.
      offsets: Where each string begins, and where the last one ends; int64, one more than strings.
      shape: A torch.Size. By default there is one dimension.

    Raises:
      MismatchError: The number of offsets does not fit the shape, or the two tensors are on
        different devices.
      UnsupportedDtypeError: The dtypes are not uint8 and int64.
      UnsupportedTypeError: They are not torch tensors.

    Example:
      >>> import tensorflow as tf, tensor_bridge
      >>> strings = tensor_bridge.to_torch(tf.constant([["a", "bc"], ["", "d"]]))
      >>> strings
      StringTensor([[b'a', b'bc'], [b'', b'd']])
      >>> strings.bytes, strings.offsets
      (tensor([ 97,  98,  99, 100], dtype=torch.uint8), tensor([0, 1, 3, 3, 4]))
      >>> strings.to_str()
      [['a', 'bc'], ['', 'd']]
    """

    bytes: torch.Tensor
    offsets: torch.Tensor
    shape: torch.Size = None

    def __post_init__(self) -> None:
        import torch

        for name, dtype in (("bytes", torch.uint8), ("offsets", torch.int64)):
            tensor = getattr(self, name)
            if not _C.is_torch_tensor(tensor):
                raise UnsupportedTypeError(
                    f"expected {name} to be a torch.Tensor, got {_refusals.a_class(tensor)}; "
                    "StringTensor.from_list() takes lists of bytes or str"
                )
            if tensor.dtype != dtype:
                raise UnsupportedDtypeError(f"expected {name} of {dtype}, got {tensor.dtype}")
            if tensor.dim() != 1:
                raise MismatchError(f"expected {name} of one dimension, got {tensor.dim()}")
        count = self.offsets.shape[0] - 1
        shape = torch.Size((count,) if self.shape is None else self.shape)
        if count < 0 or prod(shape) != count or any(size < 0 for size in shape):
            raise MismatchError(
                f"expected {prod(shape) + 1} offsets, one more than the shape {tuple(shape)} has "
                f"strings, got {count + 1}"
            )
        if self.bytes.device != self.offsets.device:
            raise MismatchError(
                f"expected bytes and offsets on one device, got {self.bytes.device} and "
                f"{self.offsets.device}"
            )
        object.__setattr__(self, "shape", shape)

    @classmethod
    def _unchecked(
        cls, data: torch.Tensor, offsets: torch.Tensor, shape: torch.Size
    ) -> StringTensor:
        """One of tensors that fit by how they were made: the checks take 5 us."""
        made = object.__new__(cls)
        made.__dict__.update(bytes=data, offsets=offsets, shape=shape)
        return made

    @classmethod
    def from_list(
        cls, strings: Any, *, encoding: str = "utf-8", errors: str = "strict"
    ) -> StringTensor:
        """Makes a StringTensor from strings in nested lists or tuples, or from a single string.

        Args:
          strings: bytes, bytearray or str; all lists of one depth have the same length.
          encoding: The encoding of each str.
          errors: How to handle characters that the encoding lacks, as in `str.encode`.

        Raises:
          MismatchError: The lists are ragged.
          UnsupportedTypeError: An item is neither a list nor a string.
          UnicodeEncodeError: The encoding lacks a character.
        """
        import torch

        items, shape = _flatten(strings)
        encoded = [s.encode(encoding, errors) if isinstance(s, str) else s for s in items]
        offsets = torch.tensor([0, *accumulate(map(len, encoded))], dtype=torch.int64, device="cpu")
        block = bytearray().join(encoded)
        # torch refuses to look at an empty buffer.
        data = (
            torch.frombuffer(block, dtype=torch.uint8)
            if block
            else torch.empty(0, dtype=torch.uint8, device="cpu")
        )
        return cls(data, offsets, torch.Size(shape))

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def device(self) -> torch.device:
        """Where both tensors are."""
        return self.offsets.device

    @property
    def nbytes(self) -> int:
        """Bytes of both tensors."""
        return int(self.bytes.nbytes + self.offsets.nbytes)

    def numel(self) -> int:
        """Number of strings."""
        return int(self.offsets.shape[0]) - 1

    def to(self, device: Any, *, non_blocking: bool = False) -> StringTensor:
        """The same strings with both tensors on ``device``."""
        return self._with(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> StringTensor:
        """The same strings with both tensors in pinned memory."""
        return self._with(lambda x: x.pin_memory())

    def _with(self, function: Callable[[torch.Tensor], torch.Tensor]) -> StringTensor:
        parts, make = _parts_of(self)
        made: StringTensor = make([function(part) for part in parts])
        return made

    def __reduce__(self) -> Any:
        # Unpickling calls the constructor, which checks values from a file.
        return type(self), (self.bytes, self.offsets, self.shape)

    def reshape(self, *shape: Any) -> StringTensor:
        """A StringTensor over the same two tensors with another shape; one size may be -1."""
        import torch

        sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        try:
            new = self.offsets[1:].reshape(tuple(sizes)).shape
        except RuntimeError as e:
            raise MismatchError(str(e)) from e
        return StringTensor(self.bytes, self.offsets, torch.Size(new))

    def tolist(self) -> Any:
        """Nested lists of bytes in the shape of the tensor; plain bytes without dimensions."""
        return self._nested(None, "strict", self.shape)

    def to_bytes(self) -> list[_Bytes]:
        """A flat list of bytes, whatever the shape."""
        strings: list[bytes] = self._nested(None, "strict", (self.numel(),))
        return strings

    def to_str(self, encoding: str = "utf-8", errors: str = "strict") -> Any:
        """Nested lists of str in the shape of the tensor.

        Args:
          encoding: The encoding of the bytes.
          errors: How to handle bytes that are invalid in it, as in `bytes.decode`.

        Raises:
          UnicodeDecodeError: Bytes are invalid, with errors="strict".
        """
        return self._nested(encoding, errors, self.shape)

    def item(self) -> _Bytes:
        """The string of a tensor with exactly one string.

        Raises:
          MismatchError: The number of strings is not 1.
        """
        if self.numel() != 1:
            raise MismatchError(f"expected one string, got {self.numel()}")
        return self.to_bytes()[0]

    def _nested(self, encoding: str | None, errors: str, shape: Sequence[int]) -> Any:
        return _C.torch_strings_list(self.bytes, self.offsets, tuple(shape), encoding, errors)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a StringTensor without dimensions has no length")
        return int(self.shape[0])

    def __iter__(self) -> Iterator[Any]:
        if self.ndim == 1:
            return iter(self.to_bytes())
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> _Bytes | StringTensor:
        """A string, or a StringTensor of some of the strings.

        Takes the indices that torch takes. Integers and plain slices of the first dimension share
        the bytes; all other indices make new tensors.
        """
        import torch

        if self.ndim > 0 and type(index) in (int, slice):
            count = self.shape[0]
            if isinstance(index, int) and not -count <= index < count:
                raise IndexError(f"index {index} is out of range for {count} strings")
            rows = range(count)[index]
            inner = self.shape[1:]
            if isinstance(rows, int):
                if not inner:
                    string: bytes = _C.torch_strings_list(
                        self.bytes, self.offsets[rows : rows + 2], (), None, "strict"
                    )
                    return string
                return self._part(rows, rows + 1, inner)
            if rows.step == 1:
                return self._part(rows.start, rows.stop, (len(rows), *inner))
        where = torch.arange(self.numel(), device=self.device).reshape(self.shape)[index]
        if where.dim() == 0:
            return self.reshape(-1)[int(where)]
        return self._gathered(where)

    def _part(self, begin: int, end: int, shape: Sequence[int]) -> StringTensor:
        """Rows of the first dimension."""
        import torch

        size = prod(self.shape[1:])
        offsets = self.offsets[begin * size : max(begin, end) * size + 1]
        return StringTensor(self.bytes, offsets, torch.Size(shape))

    def _gathered(self, where: torch.Tensor) -> StringTensor:
        """The strings with these numbers, in new tensors."""
        import torch

        begins, ends = self.offsets[:-1], self.offsets[1:]
        if bool(((begins < 0) | (ends < begins) | (ends > self.bytes.shape[0])).any()):
            raise ValueRangeError(
                "expected offsets that do not descend and stay within the bytes; some do not"
            )
        begins = begins[where.reshape(-1)]
        sizes = ends[where.reshape(-1)] - begins
        offsets = torch.nn.functional.pad(sizes.cumsum(0), (1, 0))
        shift = torch.repeat_interleave(begins - offsets[:-1], sizes)
        data = self.bytes[shift + torch.arange(shift.shape[0], device=self.device)]
        return StringTensor(data, offsets, where.shape)

    def _compact(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The bytes that belong to strings, and the size of each string, on the host."""
        offsets = self.offsets.cpu()
        first, last = int(offsets[0]), int(offsets[-1])
        return self.bytes[first:last].cpu(), offsets.diff()

    def __eq__(self, other: object) -> bool:
        """Whether the other is a StringTensor of the same shape and the same strings."""
        import torch

        if not isinstance(other, StringTensor):
            return NotImplemented
        if self.shape != other.shape:
            return False
        pairs = zip(self._compact(), other._compact(), strict=True)
        return all(torch.equal(mine, its) for mine, its in pairs)

    __hash__ = None  # type: ignore[assignment]  # the tensors may change

    def __repr__(self) -> str:
        place = "" if self.device.type == "cpu" else f", device={str(self.device)!r}"
        try:
            if self.numel() <= _SHORT_COUNT and self.nbytes <= _SHORT_BYTES:
                return f"StringTensor({self.tolist()!r}{place})"
            first = [
                string if len(string) <= 40 else string[:37] + b"..."
                for string in self.reshape(-1)[:_FIRST].to_bytes()  # type: ignore[union-attr]
            ]
            more = ", ..." if self.numel() > _FIRST else ""
            shown = f"[{', '.join(map(repr, first))}{more}]"
        except TensorBridgeError as e:
            shown = f"<{e}>"
        return f"StringTensor({shown}, shape={tuple(self.shape)}{place})"


def size_type() -> Any:
    """The class of shapes. The extension asks for it once."""
    import torch

    return torch.Size


def _flatten(strings: Any) -> tuple[list[Any], list[int]]:
    """The strings in nested lists row by row, and their shape."""
    level: list[Any] = [strings]
    shape: list[int] = []
    while level and isinstance(level[0], (list, tuple)):
        sizes = {len(part) if isinstance(part, (list, tuple)) else None for part in level}
        if len(sizes) != 1:
            raise MismatchError(
                f"expected lists of one length at depth {len(shape)}, got "
                f"{', '.join(sorted('a string' if s is None else str(s) for s in sizes))}; "
                "ragged strings are a Ragged of a StringTensor"
            )
        shape.append(len(level[0]))
        level = list(chain.from_iterable(level))
    for item in level:
        if not isinstance(item, (str, bytes, bytearray)):
            raise UnsupportedTypeError(
                "expected bytes, bytearray or str in lists or tuples of one shape, got "
                f"{_refusals.a_class(item)}"
            )
    return level, shape


# ---- the composite -------------------------------------------------------------------------------

# By hand in both directions: the library converts all strings of a tensor in one call.


def _to_torch(t: Any, options: Options) -> Any:
    if options.get("strings") != "list":
        return _C.strings_to_torch(t, **(dense(options) if options else {}))
    _refusals.require_copy_allowed(options.get("copy"), _explanation.LIST_REASON)
    return _C.tf_strings_list(t)


def _explain(t: Any, options: Options) -> Explanation:
    native = _C.explain_strings_to_torch(t, **dense(options))
    explanation = _explanation.from_native(native, "to_torch")
    return _explanation.of_strings(explanation, as_list=options.get("strings") == "list")


def _arguments(x: StringTensor) -> tuple[Any, Any, tuple[int, ...]]:
    return x.bytes, x.offsets, tuple(x.shape)


def _without_device(options: Options) -> dict[str, Any]:
    """The keywords of `to_tf` without ``device``: TensorFlow keeps strings in host memory."""
    kept = dense(options)
    device = kept.pop("device", None)
    if device is not None and "/device:CPU:" not in _options.tf_device_name(device):
        raise UnsupportedDeviceError(
            f"device={device!r}: TensorFlow keeps strings in host memory. Leave device= out"
        )
    return kept


def _to_tf(x: StringTensor, options: Options) -> Any:
    return _C.strings_to_tf(*_arguments(x), **_without_device(options))


def _explain_to_tf(x: StringTensor, options: Options) -> Explanation:
    native = _C.explain_strings_to_tf(*_arguments(x), **_without_device(options))
    return _explanation.of_strings(_explanation.from_native(native, "to_tf"))


def _parts_of(x: StringTensor) -> Parts:
    return (x.bytes, x.offsets), lambda parts: StringTensor(parts[0], parts[1], x.shape)


COMPOSITES = (
    Composite(
        name="string",
        tf_keys=("tf.dtype:string",),
        torch_keys=(f"{__name__}.StringTensor",),
        to_torch=Conversion(_to_torch, _explain),
        to_tf=Conversion(_to_tf, _explain_to_tf),
        parts=_parts_of,
    ),
)
