"""Drawn specs and messages, and the comparison with TensorFlow's parsers."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import example_bytes
import tensorflow as tf
import torch

import tensor_bridge
from tensor_bridge import Ragged, StringTensor, records
from tensor_bridge.errors import RecordError

DTYPES = ("bytes", "float32", "int64")
TF_DTYPES = {"bytes": tf.string, "float32": tf.float32, "int64": tf.int64}
TF_ERRORS = (tf.errors.OpError, ValueError, TypeError)


@dataclass
class Case:
    """A spec in both forms, and records."""

    ours: dict[str, Any]
    theirs: dict[str, Any]
    serialized: list[bytes]


def drawn_values(rng: Random, dtype: str, count: int) -> list[Any]:
    # The bytes of these floats are not long varints. TensorFlow trusts a damaged length, which must
    # not make it allocate gigabytes.
    if dtype == "float32":
        return [float(rng.randrange(-8, 8)) for _ in range(count)]
    if dtype == "int64":
        return [rng.choice((0, 1, -1, 127, 128, -(2**63), 2**63 - 1)) for _ in range(count)]
    return [bytes(rng.randrange(128) for _ in range(rng.randrange(5))) for _ in range(count)]


def _drawn_default(rng: Random, dtype: str, shape: tuple[int, ...]) -> Any:
    values = drawn_values(rng, dtype, torch.Size(shape).numel())
    for size in reversed(shape[1:]):
        values = [values[i : i + size] for i in range(0, len(values), size)]
    return values if shape else values[0]


def _drawn_feature(rng: Random, dtype: str, lists: bool, sequence: bool) -> tuple[str, Any]:
    """A kind and its arguments."""
    kinds = ["var", "ragged"]
    if not lists:
        kinds += ["fixed", "fixed"]
    if lists == sequence:
        kinds.append("padded")
    kind = rng.choice(kinds)
    if kind == "fixed":
        shape = rng.choice([(), (1,), (3,), (2, 2), (0,)])
        default = (
            _drawn_default(rng, dtype, shape) if 0 not in shape and rng.random() < 0.5 else None
        )
        return "FixedLenFeature", {"shape": shape, "default_value": default}
    if kind == "padded":
        shape = rng.choice([(), (2,), (1, 3)])
        if lists:
            return "FixedLenSequenceFeature", {
                "shape": shape,
                "allow_missing": rng.random() < 0.5,
            }
        default = _drawn_default(rng, dtype, ()) if rng.random() < 0.5 else None
        return "FixedLenSequenceFeature", {
            "shape": shape,
            "allow_missing": True,
            "default_value": default,
        }
    if kind == "ragged":
        return "RaggedFeature", {"row_splits_dtype": rng.choice(("int32", "int64"))}
    return "VarLenFeature", {}


def _in_both(kind: str, dtype: str, arguments: dict[str, Any]) -> tuple[Any, Any]:
    ours = getattr(records, kind)(dtype=dtype, **arguments)
    theirs = dict(arguments)
    if "row_splits_dtype" in theirs:
        theirs["row_splits_dtype"] = tf.as_dtype(theirs["row_splits_dtype"])
    return ours, getattr(tf.io, kind)(dtype=TF_DTYPES[dtype], **theirs)


def _drawn_count(rng: Random, kind: str, arguments: dict[str, Any]) -> int:
    stride = torch.Size(arguments.get("shape", ())).numel()
    return int(stride if kind == "FixedLenFeature" else stride * rng.randrange(4))


class Drawing:
    """Features of drawn specs and messages."""

    def __init__(self, rng: Random, *, sequence: bool, faults: float) -> None:
        self.rng, self.sequence, self.faults = rng, sequence, faults

    def fault(self) -> bool:
        return self.rng.random() < self.faults

    def spec(self, count: int, *, lists: bool) -> tuple[dict[str, Any], dict[str, Any], list[Any]]:
        ours: dict[str, Any] = {}
        theirs: dict[str, Any] = {}
        kinds = []
        for i in range(count):
            key, dtype = f"k{i}", self.rng.choice(DTYPES)
            kind, arguments = _drawn_feature(self.rng, dtype, lists, self.sequence)
            ours[key], theirs[key] = _in_both(kind, dtype, arguments)
            kinds.append((key, dtype, kind, arguments))
        return ours, theirs, kinds

    def feature(self, dtype: str, kind: str, arguments: dict[str, Any]) -> bytes:
        rng = self.rng
        if self.fault():
            dtype = rng.choice(DTYPES)
        count = _drawn_count(rng, kind, arguments)
        packed = rng.random() < 0.6
        if self.fault():
            # For too many unpacked floats, TensorFlow writes past the end of its memory.
            count, packed = max(0, count + rng.choice((-1, 1, 2))), True
        if self.fault():
            return b""
        return example_bytes.feature(dtype, drawn_values(rng, dtype, count), packed=packed)

    def entries(self, kinds: list[Any], *, lists: bool) -> list[tuple[str, bytes]]:
        """The entries of a record's map: some missing, some twice, some not in the spec."""
        rng = self.rng
        made = []
        for key, dtype, kind, arguments in kinds:
            copies = 0 if rng.random() < 0.05 else 2 if rng.random() < 0.1 else 1
            for _ in range(copies):
                if not lists:
                    feature = self.feature(dtype, kind, arguments)
                    # TensorFlow's two parsers of Examples differ if an empty entry follows another.
                    if feature or copies == 1:
                        made.append((key, feature))
                    continue
                row = "FixedLenFeature" if kind == "FixedLenSequenceFeature" else kind
                rows = [self.feature(dtype, row, arguments) for _ in range(rng.randrange(4))]
                made.append((key, example_bytes.feature_list(rows)))
        if rng.random() < 0.3:
            made.append(("unknown", example_bytes.feature("int64", [1])))
        if rng.random() < 0.5:
            rng.shuffle(made)
        return made

    def record(self, context: list[Any], lists: list[Any]) -> bytes:
        rng = self.rng
        unknown = b"" if rng.random() < 0.8 else example_bytes.delimited(9, b"xyz")
        if not self.sequence:
            made = self.entries(context, lists=False)
            cut = rng.randrange(len(made) + 1) if rng.random() < 0.1 else 0
            # Two concatenated messages are one message.
            parts = [example_bytes.example(part) for part in (made[:cut], made[cut:]) if part]
            return b"".join(parts) + unknown
        return unknown + example_bytes.sequence_example(
            self.entries(context, lists=False), self.entries(lists, lists=True)
        )


def mutated(rng: Random, data: bytes) -> bytes:
    """The bytes with a few changes."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(out) + 1)
        change = rng.randrange(5)
        if change == 0:
            del out[at : at + rng.randrange(1, 4)]
        elif change == 1:
            out[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 4)))
        elif change == 2 and rng.random() < 0.3:
            del out[at:]
        elif at < len(out):
            out[at] = rng.randrange(256) if change == 3 else out[at] ^ 1 << rng.randrange(8)
    return bytes(out)


# ---- comparison ----------------------------------------------------------------------------------


def _strings_of_sparse(sparse: Any) -> Any:
    """A tf.SparseTensor of strings as nested lists of its rows."""
    shape = [int(size) for size in sparse.dense_shape]
    values = sparse.values.numpy().tolist()
    if len(shape) == 1:
        return values
    rows: list[Any] = [[] for _ in range(shape[0])]
    for index, value in zip(sparse.indices.numpy().tolist(), values, strict=True):
        inner = rows[index[0]]
        for i in index[1:-1]:
            while len(inner) <= i:
                inner.append([])
            inner = inner[i]
        inner.append(value)
    return rows


def _without_empty_ends(rows: Any) -> Any:
    """Nested lists without empty rows at the end, which a sparse tensor does not keep."""
    if not isinstance(rows, list):
        return rows
    rows = [_without_empty_ends(row) for row in rows]
    while rows and rows[-1] == []:
        rows.pop()
    return rows


def assert_same(got: Any, want: Any, what: str) -> None:
    """Asserts that `got` equals `to_torch(want)`, for a TensorFlow value `want`."""
    if isinstance(want, tf.SparseTensor) and want.dtype == tf.string:
        if isinstance(got, Ragged):
            got = got.to_list()
        elif isinstance(got, StringTensor):
            got = got.to_bytes()
        assert _without_empty_ends(got) == _without_empty_ends(_strings_of_sparse(want)), what
        return
    assert_equal(got, tensor_bridge.to_torch(want), what)


def assert_equal(got: Any, want: Any, what: str) -> None:
    """Asserts that two torch values have the same class, dtype, shape and values."""
    assert type(got) is type(want), what
    if isinstance(want, StringTensor):
        assert got == want, what
    elif isinstance(want, Ragged):
        assert got.uniform_row_lengths == want.uniform_row_lengths, what
        assert_equal(got.values, want.values, what)
        for mine, other in zip(got.row_splits, want.row_splits, strict=True):
            assert_equal(mine, other, what)
    elif want.layout == torch.sparse_coo:
        assert got.layout == want.layout, what
        assert got.shape == want.shape, what
        assert got.is_coalesced() == want.is_coalesced(), what
        assert_equal(got._indices(), want._indices(), what)
        assert_equal(got._values(), want._values(), what)
    elif want.is_nested:
        assert_equal(got.offsets(), want.offsets(), what)
        assert_equal(got.values(), want.values(), what)
    else:
        assert got.dtype == want.dtype, what
        assert torch.equal(got, want), what


def outcome(call: Any, errors: tuple[type[Exception], ...]) -> Any:
    """The result of a call, or the error that it raises."""
    try:
        return call()
    except errors as e:
        return e


def assert_agree(ours: Any, theirs: Any, what: str) -> bool:
    """Asserts that both parsers refuse, or return the same dict. Returns whether they did."""
    assert isinstance(ours, Exception) == isinstance(theirs, Exception), (what, ours, theirs)
    if isinstance(ours, Exception):
        return False
    assert set(ours) == set(theirs), what
    for key in ours:
        assert_same(ours[key], theirs[key], f"{what}, {key}")
    return True


def parsed(call: Any) -> Any:
    """The result or the error of one of our functions."""
    return outcome(call, (RecordError,))


def parsed_by_tf(call: Any) -> Any:
    """The result or the error of one of TensorFlow's functions."""
    return outcome(call, TF_ERRORS)
