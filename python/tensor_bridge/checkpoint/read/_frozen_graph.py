"""Frozen graphs: the constants of a GraphDef, which C++ finds in .pb and .meta files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C
from tensor_bridge._dtypes import DtypeRow, row_of
from tensor_bridge._stored_dtypes import decoder_of, stored_dtype
from tensor_bridge.checkpoint.read._damage import reading
from tensor_bridge.checkpoint.read._elements import known_row
from tensor_bridge.checkpoint.read._entry import Entry
from tensor_bridge.checkpoint.read._mapped import MappedFile
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

# A constant of one repeated value takes a few bytes in the file, whatever its shape. These are the
# limits of its size in memory: this many bytes, or this multiple of its bytes in the file if that
# is more (an int64 stored in one byte becomes eight).
_MAX_MADE, _MAX_RATIO = 1 << 30, 16


class FrozenGraph:
    """The constants of a graph, under the names of their nodes.

    A node in a function has the name "function/node".

    Attributes:
      entries: In the order of the file.
    """

    format = "frozen_graph"

    def __init__(self, file: MappedFile) -> None:
        """Reads a file that `_C.stored_format` takes for a graph.

        Raises:
          CheckpointError: It is damaged.
        """
        unique = UniqueNames()
        self.entries: list[Entry] = []
        for key, dtype, shape, extent, message, is_read in read_whole(file, _C.graph_constants):
            row = row_of(dtype)
            name = row.name if row is not None else f"number {dtype}"
            offset, nbytes = extent or message
            self.entries.append(
                ConstantEntry(
                    name=unique(text(key)),
                    kind=kind_of(name, [is_read]),
                    key=text(key),
                    dtype=name,
                    shape=shape,
                    nbytes=nbytes,
                    file=file.path,
                    offset=offset,
                    mapped=file,
                    row=row,
                    plain=extent is not None,
                    number=dtype,
                    message=message,
                )
            )

    def problems(self) -> Iterator[Exception]:
        """Nothing: a graph has no checksums."""
        return iter(())


@dataclass(frozen=True)
class ConstantEntry(StoredEntry):
    """A constant; ``message`` is (offset, size) of its TensorProto."""

    number: int = field(repr=False)
    message: tuple[int, int] = field(repr=False)

    def _read(self, raw: bool) -> Any:
        row = known_row(self)
        if row.name == "string":
            return self._strings()
        try:
            if self.plain:
                return self.plain_values(row, raw)
            return self._made(row, raw)
        except UnsupportedDtypeError as e:
            raise self.unsupported(str(e)) from None

    def _made(self, row: DtypeRow, raw: bool) -> torch.Tensor:
        import torch

        dtype, decode = stored_dtype(row, raw), decoder_of(row, raw)
        self._check_size(self.count * row.itemsize)
        x = torch.empty(self.shape, dtype=dtype, device="cpu")
        if self.count:
            with reading(self.file, self.key, self.message[0]):
                message = self._message()
                at = message.data_ptr()
                _C.tensor_values(at, len(message), self.number, self.count, x.data_ptr())
        return x if decode is None else decode(self.shape, [x])

    def _strings(self) -> StringTensor:
        import torch

        self._check_size(8 * (self.count + 1))
        message = self._message()
        at, size = message.data_ptr(), len(message)
        with reading(self.file, self.key, self.message[0]):
            total = _C.tensor_strings(at, size, self.count, 0, 0)
        self._check_size(8 * (self.count + 1) + total)
        offsets = torch.empty(self.count + 1, dtype=torch.int64, device="cpu")
        data = torch.empty(max(total, 1), dtype=torch.uint8, device="cpu")[:total]
        _C.tensor_strings(at, size, self.count, offsets.data_ptr(), data.data_ptr())
        return StringTensor(data, offsets, torch.Size(self.shape))

    def _message(self) -> torch.Tensor:
        return self.mapped.copied(*self.message)

    def _check_size(self, size: int) -> None:
        limit = max(_MAX_MADE, _MAX_RATIO * self.message[1])
        if size > limit:
            raise self.damaged(
                f"expected a constant of at most {limit} bytes, got one of {self.message[1]} bytes "
                f"that stands for {size}, one value repeated for the shape {self.shape}",
                offset=self.message[0],
            )
