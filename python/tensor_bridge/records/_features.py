"""The kinds of features in a spec, with TensorFlow's names. Not for: parsing (`_spec_parser`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import prod
from typing import Any, Protocol

from tensor_bridge._options import checks_keywords
from tensor_bridge.errors import InvalidOptionError, UnsupportedDtypeError

__all__ = [
    "Decoder",
    "Feature",
    "FixedLenFeature",
    "FixedLenSequenceFeature",
    "RaggedFeature",
    "SequenceFeatures",
    "SparseFeature",
    "VarLenFeature",
    "as_feature",
]

_DTYPES = {"bytes": "bytes", "string": "bytes", "float32": "float32", "int64": "int64"}
# The list in which values of another dtype are usually stored.
_STORED_AS = {
    **dict.fromkeys(("float64", "float16", "bfloat16", "float"), "float32"),
    **dict.fromkeys(("bool", "int", "int8", "int16", "int32"), "int64"),
    **dict.fromkeys(("uint8", "uint16", "uint32"), "int64"),
}


class Decoder(Protocol):
    """An object for ``decode=`` of a feature of bytes."""

    def decode(self, strings: Any) -> Any:
        """Returns the value that replaces a column of strings.

        Args:
          strings: A StringTensor. Its shape is ``(batch, *shape)`` for a FixedLenFeature, ``shape``
            for a single example, and ``(count,)`` for the values of a VarLenFeature or
            RaggedFeature.
        """


def _dtype_name(dtype: Any) -> str:
    """The name of one of the format's three dtypes."""
    if dtype is bytes:
        return "bytes"
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None)
    if not isinstance(name, str):
        name = dtype.__name__ if isinstance(dtype, type) else str(dtype)
    name = name.removeprefix("torch.")
    if name in _DTYPES:
        return _DTYPES[name]
    stored = _STORED_AS.get(name)
    remedy = (
        f'; such values are stored as {stored}: ask for "{stored}" and convert the result'
        if stored
        else ""
    )
    raise UnsupportedDtypeError(
        f"expected a dtype of tf.train.Example (float32, int64 or bytes), got {name}{remedy}"
    )


def _shape(shape: Any) -> tuple[int, ...]:
    sizes = shape.as_list() if hasattr(shape, "as_list") else shape  # a tf.TensorShape
    if isinstance(sizes, int):
        sizes = (sizes,)
    if not isinstance(sizes, Sequence) or not all(
        isinstance(size, int) and size >= 0 for size in sizes
    ):
        raise InvalidOptionError(
            f"expected a shape of known sizes, got {shape!r}; for another number of rows in each "
            "record use FixedLenSequenceFeature, RaggedFeature or VarLenFeature"
        )
    return tuple(sizes)


class _Feature:
    """The base of all features: a dtype, and a decoder of bytes."""

    dtype: Any
    decode: Decoder | None

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_dtype(self) -> None:
        self._set(dtype=_dtype_name(self.dtype))
        decode = getattr(self, "decode", None)
        if decode is not None and self.dtype != "bytes":
            raise InvalidOptionError(f"decode= is for features of bytes, got {self.dtype}")
        if decode is not None and not hasattr(decode, "decode"):
            raise InvalidOptionError(
                f"expected decode=records.Raw(...), TensorProto() or Image(...), got {decode!r}"
            )

    def __repr__(self) -> str:
        shown = []
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if value != item.default:
                shown.append(f"{item.name}={value!r}")
        return f"records.{type(self).__name__}({', '.join(shown)})"


@checks_keywords
@dataclass(frozen=True, repr=False)
class FixedLenFeature(_Feature):
    """A feature with the same number of values in every record.

    A batch has a torch.Tensor of shape ``(batch, *shape)``, or a StringTensor for bytes.

    Attributes:
      shape: Shape of one record's values; ``()`` for a single value.
      dtype: torch.float32, torch.int64 or bytes, or its name.
      default_value: Values for records without the feature, as many as `shape` has; any other
        number is an InvalidOptionError when the spec is used. Without a default such a record is an
        error.
      decode: A decoder of bytes, for example ``records.Raw(torch.uint8, (28, 28))``.

    Raises:
      UnsupportedDtypeError: The format does not have the dtype.
      InvalidOptionError: The shape has unknown sizes.
    """

    shape: Any
    dtype: Any
    default_value: Any = None
    decode: Decoder | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self._set(shape=_shape(self.shape))
        self._check_dtype()


@checks_keywords
@dataclass(frozen=True, repr=False)
class FixedLenSequenceFeature(_Feature):
    """A feature with any number of rows of one shape.

    A batch has a torch.Tensor, or a StringTensor for bytes, of shape ``(batch, rows, *shape)``,
    padded to the most rows of any record. A single example has the shape ``(rows, *shape)``.

    Attributes:
      shape: Shape of one row.
      dtype: torch.float32, torch.int64 or bytes, or its name.
      allow_missing: Whether records may lack the feature. Must be True for Examples, as in
        TensorFlow.
      default_value: The value of the padding; 0 or b"" if left out. Not for the feature lists of
        SequenceExamples.
      decode: A decoder of bytes.

    Raises:
      UnsupportedDtypeError: The format does not have the dtype.
      InvalidOptionError: The shape has unknown sizes, or rows without values.
    """

    shape: Any
    dtype: Any
    allow_missing: bool = False
    default_value: Any = None
    decode: Decoder | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self._set(shape=_shape(self.shape))
        if prod(self.shape) == 0:
            raise InvalidOptionError(
                f"expected rows that have values, got the shape {self.shape}, whose rows cannot be "
                "counted"
            )
        self._check_dtype()


@checks_keywords
@dataclass(frozen=True, repr=False)
class VarLenFeature(_Feature):
    """A feature with any number of values.

    A batch of numbers is a sparse COO tensor of shape ``(batch, most values of a record)``, and a
    single example is one of shape ``(values,)``. torch has no sparse tensors of strings: a batch of
    strings is a `Ragged` of a StringTensor, and a single example is a StringTensor. Feature lists
    of SequenceExamples have one more dimension, the rows.

    Attributes:
      dtype: torch.float32, torch.int64 or bytes, or its name.
      decode: A decoder of bytes.

    Raises:
      UnsupportedDtypeError: The format does not have the dtype.
    """

    dtype: Any
    decode: Decoder | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self._check_dtype()


@dataclass(frozen=True)
class _Partition:
    key: str

    def __repr__(self) -> str:
        return f"records.{type(self).__qualname__}({self.key!r})"


@checks_keywords
@dataclass(frozen=True, repr=False)
class RaggedFeature(_Feature):
    """A feature with any number of values, which other features may divide into rows.

    A batch has a nested tensor of jagged layout, or a `Ragged` for strings and for more than one
    ragged dimension. A single example without partitions has a tensor of its values. Each record's
    partition must cover its values exactly; TensorFlow checks that only for the whole batch.

    Attributes:
      dtype: torch.float32, torch.int64 or bytes, or its name.
      value_key: Key of the values; the feature's own key if left out.
      partitions: Partitions of the values, the outermost first: ``RaggedFeature.RowSplits(key)``,
        ``RowLengths``, ``RowStarts``, ``RowLimits``, ``ValueRowIds``, ``UniformRowLength(length)``.
      row_splits_dtype: Dtype of the row splits: torch.int32 or torch.int64, or its name.
      validate: Accepted for TensorFlow's sake; partitions are always validated.
      decode: A decoder of bytes.

    Raises:
      UnsupportedDtypeError: The format does not have the dtype, or `row_splits_dtype` is another
        one.
      InvalidOptionError: A partition is invalid.
    """

    @dataclass(frozen=True, repr=False)
    class RowSplits(_Partition):
        """The beginning of each row, and the end of the last one."""

    @dataclass(frozen=True, repr=False)
    class RowLengths(_Partition):
        """The length of each row."""

    @dataclass(frozen=True, repr=False)
    class RowStarts(_Partition):
        """The beginning of each row."""

    @dataclass(frozen=True, repr=False)
    class RowLimits(_Partition):
        """The end of each row."""

    @dataclass(frozen=True, repr=False)
    class ValueRowIds(_Partition):
        """The row of each value, ascending."""

    @dataclass(frozen=True)
    class UniformRowLength:
        """The same length for all rows, without a feature that stores it."""

        length: int

        def __repr__(self) -> str:
            return f"records.{type(self).__qualname__}({self.length})"

    dtype: Any
    value_key: str | None = None
    partitions: Sequence[Any] = ()
    row_splits_dtype: Any = "int32"
    validate: bool = False
    decode: Decoder | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self._check_dtype()
        name = getattr(self.row_splits_dtype, "name", None) or str(self.row_splits_dtype)
        name = name.removeprefix("torch.")
        if name not in ("int32", "int64"):
            raise UnsupportedDtypeError(f"expected row_splits_dtype int32 or int64, got {name}")
        self._set(row_splits_dtype=name, partitions=tuple(map(_as_partition, self.partitions)))


def _as_partition(partition: Any) -> Any:
    if isinstance(partition, _Partition):
        return partition
    name = type(partition).__name__
    if name == "UniformRowLength":
        length = getattr(partition, "length", None)
        if isinstance(length, int) and length > 0:
            return RaggedFeature.UniformRowLength(length)
        raise InvalidOptionError(f"expected a uniform row length of at least 1, got {length!r}")
    own = getattr(RaggedFeature, name, None)
    if isinstance(own, type) and _is_tensorflow(partition):
        return own(partition.key)
    raise InvalidOptionError(
        "expected partitions as RaggedFeature.RowSplits(key), RowLengths, RowStarts, RowLimits, "
        f"ValueRowIds or UniformRowLength(length), got {partition!r}"
    )


@checks_keywords
@dataclass(frozen=True, repr=False)
class SparseFeature(_Feature):
    """A sparse tensor whose indices and values are stored in separate features.

    A batch has a sparse COO tensor of shape ``(batch, *size)``.

    Attributes:
      index_key: Key of the indices, or one key for each dimension.
      value_key: Key of the values.
      dtype: Dtype of the values: torch.float32 or torch.int64, or its name.
      size: Size of the dimension, or of each dimension.
      already_sorted: Whether the indices are stored in order and need no sorting.

    Raises:
      UnsupportedDtypeError: The dtype is bytes, of which torch has no sparse tensors, or the format
        does not have it.
      InvalidOptionError: A key or a size is missing or invalid.
    """

    index_key: Any
    value_key: str
    dtype: Any
    size: Any
    already_sorted: bool = False

    def __post_init__(self) -> None:
        self._check_dtype()
        if self.dtype == "bytes":
            raise UnsupportedDtypeError(
                "torch has no sparse tensors of bytes; ask for index_key and value_key as "
                "VarLenFeature"
            )
        keys = (self.index_key,) if isinstance(self.index_key, str) else tuple(self.index_key)
        size = (self.size,) if isinstance(self.size, int) else tuple(map(int, self.size))
        if not keys or not self.value_key or len(keys) != len(size) or min(size) < 0:
            raise InvalidOptionError(
                f"expected a value_key, and a size for each index_key, got {keys} and {size}"
            )
        self._set(index_key=keys, size=size)


Feature = FixedLenFeature | FixedLenSequenceFeature | VarLenFeature | RaggedFeature | SparseFeature
_CLASSES: dict[str, type[Feature]] = {
    cls.__name__: cls
    for cls in (
        FixedLenFeature,
        FixedLenSequenceFeature,
        VarLenFeature,
        RaggedFeature,
        SparseFeature,
    )
}


@checks_keywords
@dataclass(frozen=True, repr=False)
class SequenceFeatures:
    """The spec of a tf.train.SequenceExample.

    Attributes:
      context: The features of a record, by key: FixedLenFeature, VarLenFeature, RaggedFeature.
      sequence: The feature lists, by key: FixedLenSequenceFeature, VarLenFeature, RaggedFeature.
    """

    context: Mapping[str, Any] = field(default_factory=dict)
    sequence: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"records.SequenceFeatures(context={self.context!r}, sequence={self.sequence!r})"


def _is_tensorflow(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "tensorflow"


def as_feature(value: Any, key: str) -> Feature:
    """Returns a feature of a spec, converted if it is a class of TensorFlow.

    Raises:
      InvalidOptionError: `value` is neither TensorFlow's feature nor ours.
    """
    if type(value) in _CLASSES.values():
        feature: Feature = value
        return feature
    cls = _CLASSES.get(type(value).__name__)
    if cls is None or not _is_tensorflow(value):
        raise InvalidOptionError(
            f"expected {', '.join(_CLASSES)} for feature {key!r}, got {value!r}"
        )
    return cls(**value._asdict())
