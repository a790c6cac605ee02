"""Named tensors in a file with other content: common to graphs and TensorFlow Lite models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeVar

from tensor_bridge._dtypes import DtypeRow
from tensor_bridge._stored_dtypes import decoder_of, stored_dtype
from tensor_bridge.checkpoint.read._damage import reading
from tensor_bridge.checkpoint.read._elements import known_row
from tensor_bridge.checkpoint.read._entry import Entry, Extent
from tensor_bridge.checkpoint.read._mapped import MappedFile

T = TypeVar("T")


@dataclass(frozen=True)
class StoredEntry(Entry):
    """An entry whose values may be stored as in memory."""

    mapped: MappedFile = field(repr=False)
    row: DtypeRow | None = field(repr=False)
    plain: bool = field(repr=False)

    def plain_values(self, row: DtypeRow, raw: bool) -> Any:
        """The tensor of an entry whose values are stored as in memory."""
        dtype, decode = stored_dtype(row, raw), decoder_of(row, raw)
        if decode is None:
            return self.mapped.tensor(self.offset, self.shape, dtype)
        return decode(self.shape, self.mapped.parts(self.offset, self.count))

    def _extent(self) -> Extent | None:
        row = known_row(self)
        if not self.plain or row.kind != "shared" or row.name == "bool":
            return None
        return Extent(self.mapped, self.offset, self.nbytes)

    @property
    def count(self) -> int:
        """Elements."""
        return prod(self.shape)


def read_whole(file: MappedFile, call: Callable[[int, int], T]) -> T:
    """The result of a call into C++ with address and size of the whole file.

    Raises:
      CheckpointError: The file is damaged.
    """
    import torch

    try:
        with reading(file.path):
            return call(file.stored(0, (file.size,), torch.uint8).data_ptr(), file.size)
    finally:
        file.drop()


def text(name: bytes) -> str:
    """A name as a string, for any bytes: surrogates represent those that are not UTF-8."""
    return name.decode("utf-8", "surrogateescape")


class UniqueNames:
    """Makes names unique: a name that exists already gets a number, "name#2"."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        while (count := self._count.get(name, 0) + 1) > 1:
            self._count[name] = count
            name = f"{name}#{count}"
        self._count[name] = 1
        return name


def kind_of(dtype: str, signs: Sequence[bool]) -> str:
    """The kind of a constant in a graph: "variable" or "metadata".

    Neither format says which constants were variables. Floats, complex and quantized numbers of any
    shape count as variables; other numbers (shapes, axes, sizes) and strings only if one of
    ``signs`` says so.
    """
    number = dtype.startswith(("float", "bfloat", "complex", "qint", "quint"))
    return "variable" if number or any(signs) else "metadata"
