"""Makes the values of TFDS features from Examples. Not for: features.json, files."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

from tensor_bridge.composite import StringTensor, ragged
from tensor_bridge.errors import InvalidOptionError, RecordError
from tensor_bridge.records._features import FixedLenFeature, FixedLenSequenceFeature
from tensor_bridge.records._images import decode_image
from tensor_bridge.records._tfds_features import Feature, Features, Leaf, Repeated, leaves

if TYPE_CHECKING:
    import torch

__all__ = ["Plan", "Steps", "stack"]

# A few compressed bytes may claim any size, so the decompressed size has a limit.
_MOST_UNPACKED = 1 << 31


@dataclass(frozen=True)
class Stored:
    """The stored values of a leaf in an Example, and their division into nested sequences.

    Attributes:
      items: The value if the leaf is in no sequence; otherwise values with a leading dimension.
      shapes: The shape of each item if a Tensor has more than one unknown size; otherwise None.
      splits: Row splits, the outermost first. A leaf in n sequences has n - 1 of them.
    """

    items: Any
    shapes: torch.Tensor | None
    splits: tuple[torch.Tensor, ...] = ()

    def __getitem__(self, i: int) -> Stored:
        """The stored values of the i-th element of the outermost sequence."""
        if not self.splits:
            return Stored(self.items[i], None if self.shapes is None else self.shapes[i])
        begin, end = self.splits[0][i : i + 2].tolist()
        inner = []
        for splits in self.splits[1:]:
            rows = splits[begin : end + 1]
            begin, end = int(rows[0]), int(rows[-1])
            inner.append(rows - begin)
        shapes = None if self.shapes is None else self.shapes[begin:end]
        return Stored(self.items[begin:end], shapes, tuple(inner))

    def __len__(self) -> int:
        if self.splits:
            return int(self.splits[0].shape[0]) - 1
        return int(self.items.shape[0])


@dataclass(frozen=True)
class _Column:
    """A leaf with its key in Examples and the lengths of the sequences around it."""

    key: str
    leaf: Leaf
    lengths: tuple[int | None, ...]

    @property
    def is_dynamic(self) -> bool:
        """Whether its shape is stored in another feature."""
        return self.leaf.encoding in ("bytes", "zlib") and self.leaf.shape.count(None) > 1

    def spec(self) -> dict[str, Any]:
        """The spec of the Example's features that store the leaf."""
        leaf = self.leaf
        if leaf.encoding == "none":
            return self._part(self.key, _stored_as(leaf.dtype), leaf.shape, _default(leaf))
        if not self.is_dynamic:
            return self._part(self.key, "bytes", (), b"" if leaf.optional else None)
        return {
            **self._part(f"{self.key}/shape", "int64", (len(leaf.shape),), None),
            **self._part(f"{self.key}/value", "bytes", (), None),
        }

    def _part(
        self, key: str, dtype: str, shape: tuple[int | None, ...], default: Any
    ) -> dict[str, Any]:
        if len(self.lengths) > 1:
            self._check(None not in shape)
            lengths = FixedLenSequenceFeature((), "int64", allow_missing=True)
            return {
                f"{key}/ragged_flat_values": _rows(shape, dtype),
                **{f"{key}/ragged_row_lengths_{i}": lengths for i in range(len(self.lengths) - 1)},
            }
        shape = (*self.lengths, *shape)
        if None not in shape:
            return {key: FixedLenFeature(shape, dtype, default)}
        self._check(shape.count(None) == 1)
        return {key: _rows(tuple(size for size in shape if size is not None), dtype)}

    def _check(self, good: bool) -> None:
        if not good:
            raise RecordError(
                f"feature {self.key!r}: expected at most one unknown size, got "
                f"{(*self.lengths, *self.leaf.shape)}; TFDS does not write such features"
            )

    def stored(self, parsed: dict[str, Any]) -> Stored:
        """The leaf's stored values from a parsed Example."""
        if not self.is_dynamic:
            shape = self.leaf.shape if self.leaf.encoding == "none" else ()
            return Stored(*self._take(parsed, self.key, shape))
        shapes, _, splits = self._take(parsed, f"{self.key}/shape", (len(self.leaf.shape),))
        items, _, own = self._take(parsed, f"{self.key}/value", ())
        same = len(own) == len(splits) and all(a.equal(b) for a, b in zip(own, splits, strict=True))
        if not same or (self.lengths and len(shapes) != len(items)):
            raise RecordError(f"feature {self.key!r}: expected a shape for each value")
        return Stored(items, shapes, own)

    def _take(
        self, parsed: dict[str, Any], key: str, shape: tuple[int | None, ...]
    ) -> tuple[Any, None, tuple[torch.Tensor, ...]]:
        if len(self.lengths) > 1:
            return self._take_ragged(parsed, key)
        values = parsed[key]
        full = (*self.lengths, *shape)
        if None in full:
            # The parsed values are rows with the other sizes.
            rows = int(values.shape[0])
            full = tuple(rows if size is None else size for size in full)
            values = values.reshape(full)
        return values, None, ()

    def _take_ragged(
        self, parsed: dict[str, Any], key: str
    ) -> tuple[Any, None, tuple[torch.Tensor, ...]]:
        import torch

        values = parsed[f"{key}/ragged_flat_values"]
        splits: list[torch.Tensor] = []
        for i in range(len(self.lengths) - 1):
            lengths = parsed[f"{key}/ragged_row_lengths_{i}"]
            made = torch.zeros(lengths.shape[0] + 1, dtype=torch.int64, device="cpu")
            torch.cumsum(lengths, 0, out=made[1:])
            if lengths.numel() and int(lengths.min()) < 0:
                raise RecordError(f"feature {key!r}: expected lengths of rows, got a negative one")
            splits.append(made)
        counts = [int(each.shape[0]) - 1 for each in splits[1:]] + [int(values.shape[0])]
        if [int(each[-1]) for each in splits] != counts:
            raise RecordError(f"feature {key!r}: expected lengths of rows that divide the values")
        return values, None, tuple(splits)


def _rows(shape: tuple[int | None, ...], dtype: str) -> FixedLenSequenceFeature:
    return FixedLenSequenceFeature(shape, dtype, allow_missing=True)


def _stored_as(dtype: str) -> str:
    if dtype == "string":
        return "bytes"
    return "float32" if "float" in dtype else "int64"


def _default(leaf: Leaf) -> Any:
    """TFDS' values for an optional feature that a record lacks."""
    import torch

    if not leaf.optional:
        return None
    count = prod(size or 0 for size in leaf.shape)
    if leaf.dtype == "string":
        return [b""] * count
    if leaf.dtype == "bool":
        return [0] * count
    dtype = getattr(torch, leaf.dtype)
    info = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    return [info.min] * count


# ---- decoding ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Decoding:
    """Decodes stored leaves to values."""

    decode: bool
    decoder: str | None

    def value(self, column: _Column, stored: Stored, sequences: int) -> Any:
        """The value of a leaf that is in this number of nested sequences."""
        leaf = column.leaf
        if leaf.encoding == "none" or not self.decode:
            values = stored.items if leaf.encoding != "none" else _cast(stored.items, leaf.dtype)
        elif not sequences:
            return self._item(column, _bytes(stored.items), stored.shapes)
        else:
            shapes = stored.shapes
            decoded = [
                self._item(column, item, None if shapes is None else shapes[i])
                for i, item in enumerate(stored.items.to_bytes())
            ]
            values = _stacked(decoded, leaf)
            if isinstance(values, list) and stored.splits:
                return ragged.nest(values, [splits.tolist() for splits in stored.splits])
        if not sequences:
            return values if not isinstance(values, StringTensor) or values.ndim else values.item()
        if stored.splits:
            return ragged.assemble(values, stored.splits, [None] * len(stored.splits))
        return values

    def _item(self, column: _Column, item: bytes, shape: torch.Tensor | None) -> Any:
        try:
            if column.leaf.encoding == "image":
                return _image(column.leaf, item, self.decoder)
            return _tensor(column.leaf, item, shape)
        except RecordError as e:
            raise RecordError(f"feature {column.key!r}: {e}") from e


def _bytes(value: Any) -> bytes:
    return value.item() if isinstance(value, StringTensor) else bytes(value)


def _cast(values: Any, dtype: str) -> Any:
    """Converts values from an Example's dtype to the feature's dtype."""
    import torch

    if dtype == "string":
        return values
    if dtype == "uint64":  # its bits are stored as int64
        return values.view(torch.uint64)
    return values.to(getattr(torch, dtype))


def _image(leaf: Leaf, item: bytes, decoder: str | None) -> torch.Tensor:
    import torch

    if leaf.dtype == "float32":  # its bits are stored as four channels
        bits = decode_image(item, channels=4, decoder=decoder)
        image = bits.permute(1, 2, 0).contiguous().view(torch.float32).permute(2, 0, 1)
    else:
        image = decode_image(
            item, channels=leaf.shape[2] or None, dtype=leaf.dtype, decoder=decoder
        )
    sizes = (*image.shape[1:], image.shape[0])
    if any(known and known != size for known, size in zip(leaf.shape, sizes, strict=True)):
        raise RecordError(f"expected an image of {leaf.shape}, got {sizes}")
    return image


def _tensor(leaf: Leaf, item: bytes, sizes: torch.Tensor | None) -> torch.Tensor:
    import torch

    dtype = getattr(torch, leaf.dtype)
    width = torch.empty((), dtype=dtype).element_size()
    shape = list(leaf.shape)
    if sizes is not None:
        pairs = zip(shape, sizes.tolist(), strict=True)
        shape = [int(size) if known is None else known for known, size in pairs]
    known = prod(size for size in shape if size is not None)
    if any(size is not None and size < 0 for size in shape):
        raise RecordError(f"expected a shape, got {shape}")
    raw = item
    if leaf.encoding == "zlib":
        raw = _unpacked(item, _MOST_UNPACKED if None in shape else known * width)
    count, rest = divmod(len(raw), width)
    if None in shape:
        rest = rest or (count % known if known else count)
        shape[shape.index(None)] = count // known if known else 0
    if rest or prod(size or 0 for size in shape) != count:
        raise RecordError(f"expected {leaf.dtype} of {leaf.shape}, got {len(raw)} bytes")
    if not count:
        return torch.empty(shape, dtype=dtype, device="cpu")
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(dtype).reshape(shape)


def _unpacked(item: bytes, most: int) -> bytes:
    """The decompressed bytes, cut to `most` + 1 bytes if there are more."""
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(item, min(most, _MOST_UNPACKED) + 1)
    except zlib.error as e:
        raise RecordError(f"expected bytes that zlib unpacks: {e}") from e
    if not unpacker.eof and len(raw) <= most:
        raise RecordError("expected bytes that zlib unpacks; they are truncated")
    return raw


def _stacked(items: list[torch.Tensor], leaf: Leaf) -> Any:
    """One tensor, or a list if shapes differ. Without items, unknown sizes are 0, as in TFDS."""
    import torch

    if not items:
        shape = [size or 0 for size in leaf.shape]
        if leaf.encoding == "image":
            shape = [shape[2], *shape[:2]]
        return torch.empty(0, *shape, dtype=getattr(torch, leaf.dtype), device="cpu")
    if any(item.shape != items[0].shape for item in items):
        return items
    return torch.stack(items)


# ---- structures ----------------------------------------------------------------------------------


class Steps(Sequence[Any]):
    """The elements of a Dataset feature, a sequence that decodes an element on each access.

    ``steps[i]`` is an element, ``steps[a:b]`` is a `Steps`, and `stacked` stacks all elements.
    """

    def __init__(self, build: _Build, columns: dict[str, Stored], where: range) -> None:
        self._build = build
        self._columns = columns
        self._where = where

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Steps(self._build, self._columns, self._where[index])
        i = self._where[index]
        return self._build({key: stored[i] for key, stored in self._columns.items()})

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Steps({len(self)} elements)"

    def stacked(self) -> Any:
        """All elements in the structure of one element, with values that have a leading dimension.

        Tensors of one shape are stacked, which copies them; bytes become a StringTensor. Values
        that cannot be stacked are a list.
        """
        return stack(list(self))


def stack(elements: list[Any]) -> Any:
    """Stacks the values of elements that have the same structure; see `Steps.stacked`."""
    import torch

    first = elements[0] if elements else {}
    if isinstance(first, dict):
        return {key: stack([element[key] for element in elements]) for key in first}
    if isinstance(first, torch.Tensor) and not first.is_nested:
        same = all(element.shape == first.shape for element in elements)
        return torch.stack(elements) if same else elements
    if isinstance(first, bytes):
        return StringTensor.from_list(elements)
    return elements


# Functions that build a value from the stored leaves, by key. They are instances of classes, since
# workers of a DataLoader send Steps, which have one.
_Build: TypeAlias = "Callable[[dict[str, Stored]], Any]"


@dataclass(frozen=True)
class _BuildLeaf:
    decoding: _Decoding
    column: _Column
    sequences: int

    def __call__(self, columns: dict[str, Stored]) -> Any:
        return self.decoding.value(self.column, columns[self.column.key], self.sequences)


@dataclass(frozen=True)
class _BuildDict:
    builds: dict[str, _Build]

    def __call__(self, columns: dict[str, Stored]) -> Any:
        return {name: build(columns) for name, build in self.builds.items()}


@dataclass(frozen=True)
class _BuildSteps:
    path: str
    element: _Build
    keys: list[str]

    def __call__(self, columns: dict[str, Stored]) -> Steps:
        own = {key: columns[key] for key in self.keys}
        counts = {len(stored) for stored in own.values()}
        if len(counts) != 1:
            raise RecordError(
                f"feature {self.path!r}: expected the same number of each, got {counts}"
            )
        return Steps(self.element, own, range(counts.pop()))


class Plan:
    """The selected features of a tree, compiled to a spec and a function that builds values.

    Attributes:
      spec: The spec of the Examples.
      build: Builds a value from the stored leaves, by key.
    """

    spec: dict[str, Any]
    build: _Build

    def __init__(
        self,
        tree: Feature,
        wanted: Collection[str] | None = None,
        *,
        decode: bool = True,
        decoder: str | None = None,
        prefix: str = "",
    ) -> None:
        """Compiles a tree of features.

        Args:
          tree: The tree.
          wanted: Paths of features, names joined by "/"; a path includes everything below it. All
            features if left out.
          decode: Whether to decode images and encoded tensors; otherwise they are bytes.
          decoder: As for `decode_image`.
          prefix: Path of the tree within another tree.

        Raises:
          InvalidOptionError: There is no such feature.
          RecordError: A wanted feature is not supported.
        """
        self._decoding = _Decoding(decode, decoder)
        self._columns: list[_Column] = []
        self._wanted = None if wanted is None else set(wanted)
        paths = [path for path, _ in leaves(tree, prefix)]
        for path in self._wanted or ():
            if not any(_within(found, path) for found in paths):
                raise InvalidOptionError(
                    f"there is no feature {path!r}; there are: {', '.join(paths)}"
                )
        build = self._compile(tree, prefix, ())
        if build is None:
            raise InvalidOptionError("expected at least one feature, got none")
        self.build = build
        self.spec = {}
        for column in self._columns:
            for key, feature in column.spec().items():
                if self.spec.setdefault(key, feature) is not feature:
                    raise RecordError(f"expected features of different names, got {key!r} twice")

    @property
    def paths(self) -> list[str]:
        """The paths of the selected leaves."""
        return [column.key for column in self._columns]

    def example(self, parsed: dict[str, Any]) -> Any:
        """The value of an Example that was parsed with `spec`."""
        return self.build({column.key: column.stored(parsed) for column in self._columns})

    def _compile(self, tree: Feature, path: str, lengths: tuple[int | None, ...]) -> _Build | None:
        if isinstance(tree, Leaf):
            return self._compile_leaf(tree, path, lengths)
        if isinstance(tree, Features):
            builds = {}
            for name, inner in tree.features.items():
                build = self._compile(inner, f"{path}/{name}" if path else name, lengths)
                if build is not None:
                    builds[name] = build
            return _BuildDict(builds) if builds else None
        if tree.kind == "Dataset":
            return self._compile_dataset(tree, path, lengths)
        return self._compile(tree.feature, path, (*lengths, tree.length))

    def _compile_leaf(
        self, leaf: Leaf, path: str, lengths: tuple[int | None, ...]
    ) -> _Build | None:
        if self._wanted is not None and not any(_within(path, want) for want in self._wanted):
            return None
        if leaf.encoding == "unsupported":
            raise RecordError(
                f"feature {path!r}: {leaf.kind} is not read; name other features in features="
            )
        column = _Column(path, leaf, lengths)
        self._columns.append(column)
        return _BuildLeaf(self._decoding, column, len(lengths))

    def _compile_dataset(
        self, tree: Repeated, path: str, lengths: tuple[int | None, ...]
    ) -> _Build | None:
        if lengths:
            raise RecordError(f"feature {path!r}: a Dataset within a sequence is not read")
        before = len(self._columns)
        # Builds one element from its stored leaves, which are in one sequence fewer.
        build = self._compile_element(tree, path)
        if build is None:
            return None
        return _BuildSteps(path, build, [column.key for column in self._columns[before:]])

    def _compile_element(self, tree: Repeated, path: str) -> _Build | None:
        first = len(self._columns)
        build = self._compile(tree.feature, path, ())
        for i in range(first, len(self._columns)):
            column = self._columns[i]
            self._columns[i] = _Column(column.key, column.leaf, (tree.length, *column.lengths))
        return build


def _within(path: str, want: str) -> bool:
    return path == want or path.startswith(f"{want}/") or not want
