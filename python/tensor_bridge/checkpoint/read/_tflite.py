"""TensorFlow Lite's models: the tensors whose values are in the file, found by C++."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C
from tensor_bridge._dtypes import DtypeRow, row_of
from tensor_bridge._stored_dtypes import decoder_of, stored_dtype
from tensor_bridge.checkpoint.read._damage import reading
from tensor_bridge.checkpoint.read._elements import known_row
from tensor_bridge.checkpoint.read._entry import Entry, Extent
from tensor_bridge.checkpoint.read._mapped import MappedFile
from tensor_bridge.checkpoint.read._quantization import Quantization, quantized
from tensor_bridge.checkpoint.read._stored import (
    StoredEntry,
    UniqueNames,
    kind_of,
    read_whole,
    text,
)
from tensor_bridge.composite import StringTensor
from tensor_bridge.errors import UnsupportedDtypeError

if TYPE_CHECKING:
    import torch

# Why the bytes of a tensor are not its values, by the number that C++ has for it.
_STORAGE = {
    1: "a sparse tensor, of which the file holds a part; let TensorFlow Lite make it dense",
    2: "its values are in another file",
    3: "quantized in blocks or by a scheme of its own, which only its operators understand",
}


class Tflite:
    """The tensors of a model, under their names.

    If the name of a tensor of a further subgraph is taken, the subgraph's name is put before it; a
    name that is still taken gets a number.

    Attributes:
      entries: In the order of the file.
    """

    format = "tflite"

    def __init__(self, file: MappedFile) -> None:
        """Reads a file that begins as a model.

        Raises:
          CheckpointError: It is damaged.
        """
        unique, taken = UniqueNames(), set[str]()
        self.entries: list[Entry] = []
        for key, subgraph, number, dtype, bits, shape, extent, storage, scales in read_whole(
            file, _C.tflite_tensors
        ):
            row = row_of(dtype)
            name = text(key)
            if name in taken and subgraph[0]:
                name = f"{text(subgraph[1]) or subgraph[0]}/{name}"
            taken.add(name)
            how = _quantization(*scales)
            dtype_name = row.name if row is not None else f"number {number}"
            offset, nbytes = extent or (-1, 0)
            self.entries.append(
                TensorEntry(
                    name=unique(name),
                    kind=kind_of(dtype_name, [how is not None]),
                    key=text(key),
                    dtype=dtype_name,
                    shape=shape,
                    nbytes=nbytes,
                    file=file.path,
                    offset=offset,
                    mapped=file,
                    row=row,
                    plain=storage == 0 and bits % 8 == 0 and row is not None,
                    bits=bits,
                    storage=storage,
                    how=how,
                )
            )

    def problems(self) -> Iterator[Exception]:
        """Nothing: a model has no checksums."""
        return iter(())


def _quantization(
    scales: tuple[float, ...], zero_points: tuple[int, ...], axis: int
) -> Quantization | None:
    if not scales:
        return None
    return Quantization(scales, zero_points, axis if len(scales) > 1 else None)


@dataclass(frozen=True)
class TensorEntry(StoredEntry):
    """A tensor of a model.

    ``bits`` is the size of an element in the file, ``how`` the quantization that the file states.
    """

    bits: int = field(repr=False)
    storage: int = field(repr=False)
    how: Quantization | None

    @property
    def quantization(self) -> Quantization | None:
        # Some converters leave a scale on float tensors, where it has no meaning.
        return None if self.dtype.startswith(("float", "bfloat", "complex")) else self.how

    def _read(self, raw: bool) -> Any:
        row = known_row(self)
        if self.storage:
            raise self.unsupported(_STORAGE[self.storage])
        if row.name == "string":
            return self._strings()
        try:
            if self.quantization is None:
                return self._values(row, raw)
            if raw:
                return self._values(row, raw=False)
            return quantized(self._values(row, raw=False, copy=True), self.quantization)
        except UnsupportedDtypeError as e:
            advice = (
                ""
                if self.quantization is None
                else (
                    "; load(..., raw=True) gives the plain integers, and entries their quantization"
                )
            )
            raise self.unsupported(f"{e}{advice}") from None

    def _values(self, row: DtypeRow, raw: bool, copy: bool = False) -> torch.Tensor:
        import torch

        if self.plain and copy and decoder_of(row, raw) is None:
            stored = self.mapped.copied(self.offset, self.nbytes)
            return stored.view(stored_dtype(row, raw)).view(self.shape)
        if self.plain:
            x: torch.Tensor = self.plain_values(row, raw)
            return x
        x = torch.empty(self.shape, dtype=torch.uint8, device="cpu")
        if self.count:
            packed = self.mapped.copied(self.offset, self.nbytes)
            _C.tflite_unpack(packed.data_ptr(), self.bits, self.count, x.data_ptr())
        decode = decoder_of(row, raw)
        return x if decode is None else decode(self.shape, [x])

    def _strings(self) -> StringTensor:
        import torch

        if 4 * (self.count + 2) > self.nbytes:
            raise self.damaged(
                f"expected {self.nbytes} bytes to hold {self.count} strings, they cannot",
                offset=self.offset,
            )
        data = self.mapped.bytes(self.offset, self.nbytes)
        offsets = torch.empty(self.count + 1, dtype=torch.int64, device="cpu")
        with reading(self.file, self.key, self.offset):
            _C.tflite_strings(data.data_ptr(), self.nbytes, self.count, offsets.data_ptr())
        return StringTensor(data, offsets, torch.Size(self.shape))

    def _extent(self) -> Extent | None:
        return None if self.storage or self.quantization is not None else super()._extent()
