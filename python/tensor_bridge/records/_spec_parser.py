"""SpecParser: compiles a spec once, and parses batches of records to torch values.

Not for: sources of records (`_batch`), the public functions (`_parse`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from tensor_bridge import _C
from tensor_bridge.composite import Ragged, StringTensor, coo, ragged
from tensor_bridge.errors import (
    CheckpointError,
    InvalidOptionError,
    MismatchError,
    OutOfMemoryError,
    RecordError,
)
from tensor_bridge.records._batch import RecordBatch
from tensor_bridge.records._features import (
    FixedLenFeature,
    FixedLenSequenceFeature,
    RaggedFeature,
    SequenceFeatures,
    SparseFeature,
    VarLenFeature,
    as_feature,
)
from tensor_bridge.records._partitions import Values, assembled, finished, partitioned
from tensor_bridge.records._shared import SharedBlock, packed, size_in_block

if TYPE_CHECKING:
    import torch

__all__ = ["SpecParser"]

# As in formats/feature.h and formats/example.h.
_TYPES = {"bytes": 1, "float32": 2, "int64": 3}
_FIXED, _PADDED, _SPARSE, _RAGGED = range(4)
# As in extension/example_plan.h.
_COLUMNS, _DICT, _FIRST = range(3)


class _Asked(NamedTuple):
    """A column that the spec needs. Several features may use the same column."""

    in_lists: bool
    key: str
    dtype: str
    kind: int
    shape: tuple[int, ...] = ()
    required: bool = False
    defaults: bytes = b""
    default_ends: tuple[int, ...] = ()

    def shape_of(self, count: int, number: int, max_rows: int) -> tuple[int, ...]:
        """The shape of the values: of `count` records, or of `number` values."""
        if self.kind == _FIXED:
            return (count, *self.shape)
        return (count, max_rows, *self.shape) if self.kind == _PADDED else (number,)


class _Column(NamedTuple):
    """A parsed column, in the form that `_C.example_fill` documents."""

    values: Any
    index: Any
    lengths: Any
    max_rows: int
    max_values: int


@dataclass(frozen=True)
class _Parsed:
    """A parsed batch: its columns, its number of records, and whether it is a single example."""

    columns: list[_Column]
    count: int
    single: bool


# Raw records as a column.
_RAW = _Asked(False, "", "bytes", _FIXED)

# Makes a feature's value from a batch.
_Make = Callable[[_Parsed], Any]


class SpecParser:
    """Parses records by a spec.

    Several threads may use a parser at once. It is pickled as its spec.
    """

    def __init__(self, spec: Any) -> None:
        """Compiles a spec.

        Args:
          spec: A dict of features by key, for tf.train.Example; a `SequenceFeatures`, for
            tf.train.SequenceExample; or None for raw records.

        Raises:
          InvalidOptionError: A feature is invalid, or features contradict each other.
          UnsupportedDtypeError: The format does not have a dtype.
        """
        self.spec = spec
        self._asked: list[_Asked] = []
        self._index: dict[tuple[bool, str], int] = {}
        self._parts: dict[str, dict[str, _Make]] = {}
        self._native: Any = None
        self._decodes = False
        # How often row splits are made of each column: for ragged values, and for partitions.
        self._splits: Counter[int] = Counter()
        self._divides: Counter[int] = Counter()
        self._plan: Any = None
        # Whether every value is a column, of the same shape in all records.
        self._plain = False
        if spec is None:
            return
        sequence = isinstance(spec, SequenceFeatures)
        if sequence:
            self._parts["context"] = self._compile(spec.context, sequence, in_lists=False)
            self._parts["sequence"] = self._compile(spec.sequence, sequence, in_lists=True)
        elif isinstance(spec, Mapping):
            self._parts[""] = self._compile(spec, sequence, in_lists=False)
        else:
            raise InvalidOptionError(
                "expected a spec: a dict of features, records.SequenceFeatures(...) or None, got a "
                f"{type(spec).__name__}"
            )
        if not self._asked:
            raise InvalidOptionError("expected a spec with at least one feature, got none")
        fixed = all(asked.kind == _FIXED for asked in self._asked)
        self._plain = fixed and not sequence and not self._decodes
        self._native = _C.example_spec(
            tuple(
                (
                    int(asked.in_lists),
                    asked.key.encode("utf-8", "surrogateescape"),
                    _TYPES[asked.dtype],
                    asked.kind,
                    prod(asked.shape),
                    int(asked.required),
                    asked.defaults,
                    asked.default_ends,
                )
                for asked in self._asked
            ),
            int(sequence),
        )

    def __reduce__(self) -> Any:
        return type(self), (self.spec,)

    def parse(self, batch: RecordBatch) -> Any:
        """Parses a batch to values that own their memory.

        Args:
          batch: Any number of records.

        Returns:
          The dict of `parse_example`; for a SequenceFeatures a dict of three such dicts, "context",
          "sequence" and "lengths"; without a spec a StringTensor of shape ``(count,)``.

        Raises:
          RecordError: A record is not such a message, lacks a feature, or has another dtype or
            another number of values than the spec.
        """
        value, _ = self._parse(batch, shared=False)
        return value

    def parse_to_share(self, batch: RecordBatch) -> Any:
        """As `parse`, in shared memory: one block for all tensors of the batch.

        Raises:
          OutOfMemoryError: There is not enough shared memory.
          RecordError: As `parse`.
        """
        return packed(*self._parse(batch, shared=True))

    def _parse(self, batch: RecordBatch, *, shared: bool) -> tuple[Any, SharedBlock | None]:
        """The values, and the block that they are in if they were parsed into one."""
        if self._native is None:
            return batch.to_strings(), None
        # What decoders make is in other memory.
        columns, block = self._columns(batch, shared=shared and not self._decodes)
        return self._values(_Parsed(columns, len(batch), single=False)), block

    def parse_one(self, batch: RecordBatch) -> Any:
        """Parses a batch of one record, without the leading dimension.

        Raises:
          RecordError: As for `parse`.
          MismatchError: There is not exactly one record.
        """
        if len(batch) != 1:
            raise MismatchError(f"expected one record, got {len(batch)}")
        if self._native is None:
            return batch.to_bytes()[0]
        if made := self.singles(batch, 0, 1):
            return made[0]
        columns, _ = self._columns(batch, shared=False)
        return self._values(_Parsed(columns, 1, single=True))

    def singles(self, batch: RecordBatch, begin: int, end: int) -> list[Any]:
        """The values of each of these records, as from `parse_one`, in memory of its own.

        Returns:
          The records before the first one that does not match the spec. None at all if the values
          of the spec's features are more than columns.
        """
        if not self._plain:
            return []
        made: list[Any] = _C.example_singles(
            self._native,
            self.plan,
            batch.address,
            batch.begins.data_ptr() + 8 * begin,
            batch.sizes.data_ptr() + 8 * begin,
            end - begin,
        )
        return made

    @property
    def native(self) -> Any:
        """The spec for `_C.example_queue`; None for raw records."""
        return self._native

    @property
    def plan(self) -> Any:
        """What `_C.example_queue_take` makes of a batch, for `taken`."""
        if self._plan is None:
            import torch

            asked = [_RAW] if self._native is None else self._asked
            columns = tuple(
                (column.key, column.kind, column.in_lists, column.shape) for column in asked
            )
            form = _FIRST if self._native is None else _DICT if self._plain else _COLUMNS
            self._plan = _C.example_plan(columns, form, StringTensor, torch.Size)
        return self._plan

    def taken(self, made: Any, count: int) -> Any:
        """The batch that `_C.example_queue_take` made by the plan, as from `parse`."""
        if self._plain or self._native is None:
            return made
        columns = [_Column(*column) for column in made]
        return self._values(_Parsed(columns, count, single=False))

    # ---- compiling -------------------------------------------------------------------------------

    def _compile(
        self, features: Mapping[str, Any], sequence: bool, *, in_lists: bool
    ) -> dict[str, _Make]:
        makes: dict[str, _Make] = {}
        for key, given in features.items():
            if not isinstance(key, str):
                raise InvalidOptionError(f"expected str as keys of features, got {key!r}")
            feature = as_feature(given, key)
            make = self._feature(key, feature, sequence, in_lists)
            decode = getattr(feature, "decode", None)
            self._decodes |= decode is not None
            makes[key] = make if decode is None else _decoding(make, decode)
        return makes

    def _feature(self, key: str, feature: Any, sequence: bool, in_lists: bool) -> _Make:
        if isinstance(feature, VarLenFeature):
            # torch has no sparse tensors of strings; ragged columns have the same values.
            strings = feature.dtype == "bytes"
            kind = _RAGGED if strings else _SPARSE
            at = self._column(_Asked(in_lists, key, feature.dtype, kind))
            self._splits[at] += strings
            return (_ragged_strings if strings else _sparse)(at, in_lists)
        if isinstance(feature, RaggedFeature):
            return self._ragged(key, feature, in_lists)
        if isinstance(feature, FixedLenFeature) and not in_lists:
            return self._fixed(key, feature)
        if isinstance(feature, FixedLenSequenceFeature) and sequence == in_lists:
            return self._padded(key, feature, in_lists)
        if isinstance(feature, SparseFeature) and not sequence:
            return self._sparse_feature(key, feature)
        where = "sequence" if in_lists else "context" if sequence else "an Example"
        raise InvalidOptionError(
            f"feature {key!r}: {type(feature).__name__} is not for features of {where}"
        )

    def _column(self, asked: _Asked) -> int:
        key = (asked.in_lists, asked.key)
        at = self._index.setdefault(key, len(self._asked))
        if at == len(self._asked):
            self._asked.append(asked)
        elif self._asked[at] != asked or asked.kind < _SPARSE:
            raise InvalidOptionError(
                f"feature {asked.key!r} is requested in two ways that differ in kind or dtype; "
                "request it once and convert the result"
            )
        return at

    def _fixed(self, key: str, feature: FixedLenFeature) -> _Make:
        count = prod(feature.shape)
        # TensorFlow treats an empty default like no default.
        required = feature.default_value is None or count == 0
        given = () if required else feature.default_value
        defaults, ends = _defaults(key, given, feature.dtype, 0 if required else count)
        at = self._column(
            _Asked(False, key, feature.dtype, _FIXED, feature.shape, required, defaults, ends)
        )
        return _dense(at)

    def _padded(self, key: str, feature: FixedLenSequenceFeature, in_lists: bool) -> _Make:
        if in_lists:
            if feature.default_value is not None:
                raise InvalidOptionError(
                    f"feature {key!r}: feature lists are padded with 0 or b''; leave "
                    "default_value out"
                )
        elif not feature.allow_missing:
            raise InvalidOptionError(
                f"feature {key!r}: FixedLenSequenceFeature needs allow_missing=True in Examples"
            )
        given = feature.default_value
        if given is None:
            given = b"" if feature.dtype == "bytes" else 0
        defaults, ends = _defaults(key, given, feature.dtype, 1)
        required = in_lists and not feature.allow_missing
        at = self._column(
            _Asked(in_lists, key, feature.dtype, _PADDED, feature.shape, required, defaults, ends)
        )
        return _dense(at)

    def _ragged(self, key: str, feature: RaggedFeature, in_lists: bool) -> _Make:
        value_key = feature.value_key or key
        at = self._column(_Asked(in_lists, value_key, feature.dtype, _RAGGED))
        partitions = [
            (
                partition,
                None
                if isinstance(partition, RaggedFeature.UniformRowLength)
                else self._column(_Asked(in_lists, partition.key, "int64", _RAGGED)),
            )
            for partition in reversed(feature.partitions)
        ]
        self._splits[at] += 1
        self._divides.update(column for _, column in partitions if column is not None)
        dtype = feature.row_splits_dtype

        def make(parsed: _Parsed) -> Any:
            values, outer = _divided(parsed.columns[at], parsed, in_lists)
            for partition, column in partitions:
                divides = None
                if column is not None:
                    divides, its_outer = _divided(parsed.columns[column], parsed, in_lists)
                    _check_aligned(key, outer, its_outer)
                values = partitioned(values, partition, divides, key)
            if parsed.single and not in_lists:
                return assembled(values.values, values.splits, values.uniform, dtype)
            return finished(values, [] if parsed.single else outer, dtype)

        return make

    def _sparse_feature(self, key: str, feature: SparseFeature) -> _Make:
        at = self._column(_Asked(False, feature.value_key, feature.dtype, _SPARSE))
        keys = [
            self._column(_Asked(False, index_key, "int64", _SPARSE))
            for index_key in feature.index_key
        ]

        def make(parsed: _Parsed) -> Any:
            import torch

            values = parsed.columns[at]
            indices = [parsed.columns[column] for column in keys]
            if not all(torch.equal(values.index, column.index) for column in indices):
                raise RecordError(
                    f"feature {key!r}: expected as many indices as values in each record; the "
                    "numbers in a record differ"
                )
            rows = [] if parsed.single else [values.index[0]]
            stacked = torch.stack([*rows, *(column.values for column in indices)], 1)
            shape = (*(() if parsed.single else (parsed.count,)), *feature.size)
            coo.check_range(stacked, shape)
            dense_shape = torch.tensor(shape, dtype=torch.int64, device="cpu")
            if feature.already_sorted:
                return coo.assemble_coo(stacked, values.values, dense_shape)
            order = _lexicographic(stacked, shape)
            return coo.assemble_coo(stacked[order], values.values[order], dense_shape)

        return make

    # ---- parsing ---------------------------------------------------------------------------------

    def _columns(
        self, batch: RecordBatch, *, shared: bool
    ) -> tuple[list[_Column], SharedBlock | None]:
        """The columns of a batch, each in new memory, or all in one block to share."""
        count = len(batch)
        asked = self._asked
        block = None
        try:
            native, sizes = _C.example_scan(
                self._native,
                batch.address,
                batch.begins.data_ptr(),
                batch.sizes.data_ptr(),
                count,
                len(asked),
            )
            split = [sizes[5 * i : 5 * i + 5] for i in range(len(asked))]
            if shared:
                block = SharedBlock(self._size_in_block(count, split))
            columns: list[_Column] = []
            addresses: list[int] = []
            for column, size in zip(asked, split, strict=True):
                columns.append(_allocate(column, count, size, block, addresses))
            _C.example_fill(native, addresses)
        except CheckpointError as e:
            raise _record_error(e, batch) from None
        return columns, block

    def _size_in_block(self, count: int, sizes: Sequence[Any]) -> int:
        """The number of bytes that the columns take in a block, and row splits made of them."""
        total = 0
        for at, (asked, each) in enumerate(zip(self._asked, sizes, strict=True)):
            number, _, rows, *_ = each
            parts = [part for part in _parts(asked, count, each) if part is not None]
            total += sum(size_in_block(prod(shape), dtype.itemsize) for shape, dtype in parts)
            splits = size_in_block(count + 1, 8) + (size_in_block(rows + 1, 8) if rows else 0)
            total += self._splits[at] * splits
            # A partition of row ids has no more rows than ids if none of the rows is empty.
            total += self._divides[at] * (splits + size_in_block(number + 1, 8))
        return total

    def _values(self, parsed: _Parsed) -> Any:
        parts = {
            name: {key: make(parsed) for key, make in makes.items()}
            for name, makes in self._parts.items()
        }
        if "" in parts:
            return parts[""]
        parts["lengths"] = {
            asked.key: column.lengths[0] if parsed.single else column.lengths
            for asked, column in zip(self._asked, parsed.columns, strict=True)
            if column.lengths is not None
        }
        return parts


def _record_error(error: CheckpointError, batch: RecordBatch) -> RecordError:
    place = f"{batch.path}, byte {error.offset}: " if batch.path and error.offset >= 0 else ""
    made = RecordError(f"{place}{error}")
    made.path, made.offset = batch.path, error.offset if batch.path else -1
    return made


# Shape and dtype of a part of a column.
_Part = tuple[tuple[int, ...], Any]


def _parts(asked: _Asked, count: int, sizes: Any) -> list[_Part | None]:
    """The parts of a column: values (bytes, of strings), offsets, index, lengths."""
    import torch

    number, nbytes, rows, max_rows, _ = sizes
    parts: list[_Part | None] = [None] * 4
    if asked.dtype == "bytes":
        parts[:2] = ((nbytes,), torch.uint8), ((number + 1,), torch.int64)
    else:
        parts[0] = asked.shape_of(count, number, max_rows), getattr(torch, asked.dtype)
    if asked.kind == _SPARSE:
        parts[2] = (3 if asked.in_lists else 2, number), torch.int64
    elif asked.kind == _RAGGED:
        parts[2] = (count + 1 + (rows + 1 if asked.in_lists else 0),), torch.int64
    elif asked.in_lists:
        parts[3] = (count,), torch.int64
    return parts


def _allocate(
    asked: _Asked, count: int, sizes: Any, block: SharedBlock | None, addresses: list[int]
) -> _Column:
    """Allocates a column, and appends the addresses for `_C.example_fill` to `addresses`."""
    import torch

    def empty(part: _Part | None) -> torch.Tensor | None:
        if part is None:
            return None
        if block is not None:
            return block.empty(*part)
        return torch.empty(part[0], dtype=part[1], device="cpu")

    try:
        made = [empty(part) for part in _parts(asked, count, sizes)]
    except RuntimeError as e:
        raise OutOfMemoryError(f"feature {asked.key!r} of a batch of {count} records: {e}") from e
    addresses += [0 if tensor is None else tensor.data_ptr() for tensor in made]
    values: Any
    values, offsets, index, lengths = made
    number, _, _, max_rows, max_values = sizes
    if offsets is not None:
        shape = torch.Size(asked.shape_of(count, number, max_rows))
        values = StringTensor._unchecked(values, offsets, shape)
    return _Column(values, index, lengths, max_rows, max_values)


def _defaults(key: str, given: Any, dtype: str, count: int) -> tuple[bytes, tuple[int, ...]]:
    """Default values as bytes in memory; for strings also the end of each string."""
    import torch

    if dtype == "bytes":
        strings = given if isinstance(given, StringTensor) else StringTensor.from_list(given)
        items = strings.to_bytes() if count else []
        ends = tuple(torch.tensor([len(s) for s in items], dtype=torch.int64).cumsum(0).tolist())
        made, number = b"".join(items), len(items)
    else:
        target = torch.float32 if dtype == "float32" else torch.int64
        try:
            values = torch.as_tensor(given, device="cpu").reshape(-1)
        except (TypeError, ValueError, RuntimeError) as e:
            raise InvalidOptionError(f"feature {key!r}: expected default values, got {e}") from e
        if dtype == "int64" and values.is_floating_point() and values.numel():
            raise InvalidOptionError(f"feature {key!r}: expected integers as default values")
        ends, number = (), values.numel()
        made = bytes(values.to(target).contiguous().view(torch.uint8).tolist())
    if number != count:
        raise InvalidOptionError(
            f"feature {key!r}: expected {count} default values, as many as the shape has, got "
            f"{number}"
        )
    return made, ends


# ---- values ------------------------------------------------------------------------------------


def _decoding(make: _Make, decode: Any) -> _Make:
    def decoded(parsed: _Parsed) -> Any:
        value = make(parsed)
        if isinstance(value, Ragged):
            inner = decode.decode(value.values)
            if isinstance(inner, list):  # images of several sizes
                return ragged.nest(inner, [splits.tolist() for splits in value.row_splits])
            return ragged.assemble(inner, value.row_splits, value.uniform_row_lengths)
        return decode.decode(value)

    return decoded


def _dense(at: int) -> _Make:
    def make(parsed: _Parsed) -> Any:
        values = parsed.columns[at].values
        if not parsed.single:
            return values
        if isinstance(values, StringTensor):
            return values.reshape(tuple(values.shape)[1:])
        return values[0]

    return make


def _sparse(at: int, in_lists: bool) -> _Make:
    def make(parsed: _Parsed) -> Any:
        import torch

        column = parsed.columns[at]
        sizes = [parsed.count, column.max_rows, column.max_values]
        if not in_lists:
            del sizes[1]
        index = column.index
        if parsed.single:
            index = index[1:]
            del sizes[0]
        return torch.sparse_coo_tensor(
            index,
            column.values,
            sizes,
            is_coalesced=True,  # in order, each once
            check_invariants=False,
        )

    return make


def _ragged_strings(at: int, in_lists: bool) -> _Make:
    def make(parsed: _Parsed) -> Any:
        column = parsed.columns[at]
        values, outer = _divided(column, parsed, in_lists)
        if parsed.single and not in_lists:
            return values.values
        return finished(values, [] if parsed.single else outer, "int64")

    return make


def _divided(column: _Column, parsed: _Parsed, in_lists: bool) -> tuple[Values, list[Any]]:
    """A ragged column, and the splits of records into rows if records have rows."""
    split = parsed.count + 1
    if not in_lists:
        return Values(column.values, column.index.diff(), [], []), []
    return Values(column.values, column.index[split:].diff(), [], []), [column.index[:split]]


def _check_aligned(key: str, outer: list[Any], its: list[Any]) -> None:
    import torch

    if not all(torch.equal(mine, other) for mine, other in zip(outer, its, strict=True)):
        raise RecordError(
            f"feature {key!r}: expected a partition for each row of the values; the numbers of "
            "rows in a record differ"
        )


def _lexicographic(indices: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The order that sorts the rows of `indices`, which lie within `shape`."""
    import torch

    order = torch.arange(indices.shape[0], device="cpu")
    for axis in reversed(range(len(shape))):
        order = order[indices[order, axis].argsort(stable=True)]
    return order
