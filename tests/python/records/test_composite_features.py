"""RaggedFeature with partitions and SparseFeature, compared with TensorFlow's."""

from __future__ import annotations

from random import Random
from typing import Any

import example_bytes
import pytest
import tensorflow as tf
from drawn_examples import TF_DTYPES, assert_same, drawn_values

from tensor_bridge import records
from tensor_bridge.errors import (
    InvalidOptionError,
    RecordError,
    UnsupportedDtypeError,
    ValueRangeError,
)

KINDS = ("RowSplits", "RowLengths", "RowStarts", "RowLimits", "ValueRowIds", "UniformRowLength")


def _numbers(kind: str, lengths: list[int]) -> list[int]:
    """The values of the partition's feature for rows of these lengths."""
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    if kind == "RowSplits":
        return [0, *ends]
    if kind == "RowStarts":
        return [end - length for end, length in zip(ends, lengths, strict=True)]
    if kind == "RowLimits":
        return ends
    if kind == "ValueRowIds":
        return [i for i, length in enumerate(lengths) for _ in range(length)]
    return lengths


def _rows(rng: Random, kind: str, count: int) -> list[int]:
    """Lengths of rows that divide `count` items."""
    if count == 0:
        return [0] * (rng.randrange(3) if kind not in ("ValueRowIds", "UniformRowLength") else 0)
    if kind == "UniformRowLength":
        return [2] * (count // 2)
    cuts = sorted(rng.randrange(count + 1) for _ in range(rng.randrange(9)))
    ends = [*cuts, count]
    lengths = [end - begin for begin, end in zip([0, *cuts], ends, strict=True)]
    if kind == "ValueRowIds":
        # The last row must have values, because the last id gives the number of rows.
        while lengths and lengths[-1] == 0:
            lengths.pop()
    return lengths


class _Drawn:
    """A ragged feature with partitions, and records."""

    def __init__(self, seed: int) -> None:
        rng = Random(seed)
        self.dtype = rng.choice(("bytes", "float32", "int64"))
        self.kinds = [rng.choice(KINDS) for _ in range(rng.randrange(1, 4))]
        self.splits = rng.choice(("int32", "int64"))
        self.rng = rng

    def features(self) -> tuple[Any, Any]:
        made = []
        for module in (records.RaggedFeature, tf.io.RaggedFeature):
            partitions = [
                module.UniformRowLength(2)
                if kind == "UniformRowLength"
                else getattr(module, kind)(f"p{i}")
                for i, kind in enumerate(self.kinds)
            ]
            ours = module is records.RaggedFeature
            made.append(
                module(
                    self.dtype if ours else TF_DTYPES[self.dtype],
                    value_key="v",
                    partitions=partitions,
                    row_splits_dtype=self.splits if ours else tf.as_dtype(self.splits),
                )
            )
        return made[0], made[1]

    def pairs(self) -> list[tuple[str, bytes]]:
        """The values and the partitions of one record."""
        # Enough factors for all uniform partitions.
        count = self.rng.randrange(4) * 2 ** self.kinds.count("UniformRowLength")
        while True:
            made = [("v", self._feature(self.dtype, drawn_values(self.rng, self.dtype, count)))]
            items = count
            for i in reversed(range(len(self.kinds))):
                kind = self.kinds[i]
                lengths = _rows(self.rng, kind, items)
                if kind == "UniformRowLength" and items % 2:
                    break
                if kind != "UniformRowLength":
                    made.append((f"p{i}", self._feature("int64", _numbers(kind, lengths))))
                items = len(lengths)
            else:
                return made

    def _feature(self, dtype: str, values: list[Any]) -> bytes:
        return example_bytes.feature(dtype, values)


@pytest.mark.parametrize("chunk", range(4))
def test_partitions_are_what_tensorflow_makes(chunk: int) -> None:
    for seed in range(40 * chunk, 40 * chunk + 40):
        drawn = _Drawn(seed)
        ours, theirs = drawn.features()
        batch = [example_bytes.example(drawn.pairs()) for _ in range(drawn.rng.randrange(1, 5))]
        what = f"seed {seed}, {drawn.kinds}"
        want = tf.io.parse_example(batch, {"x": theirs})
        assert_same(records.parse_example(batch, {"x": ours})["x"], want["x"], what)
        single = tf.io.parse_single_example(batch[0], {"x": theirs})
        got = records.parse_single_example(batch[0], {"x": ours})
        assert_same(got["x"], single["x"], f"{what}, single")


@pytest.mark.parametrize("chunk", range(2))
def test_partitions_of_rows_are_what_tensorflow_makes(chunk: int) -> None:
    for seed in range(40 * chunk, 40 * chunk + 40):
        drawn = _Drawn(seed)
        ours, theirs = drawn.features()
        batch = []
        for _ in range(drawn.rng.randrange(1, 4)):
            rows = [dict(drawn.pairs()) for _ in range(drawn.rng.randrange(1, 3))]
            lists = [(key, example_bytes.feature_list(row[key] for row in rows)) for key in rows[0]]
            batch.append(example_bytes.sequence_example([], lists))
        _, got, _ = records.parse_sequence_example(batch, {}, {"x": ours})
        _, want, _ = tf.io.parse_sequence_example(batch, {}, {"x": theirs})
        assert_same(got["x"], want["x"], f"seed {seed}, {drawn.kinds}")


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("RowSplits", [0, 2]),
        ("RowSplits", [1, 3]),
        ("RowSplits", [0, 2, 1, 3]),
        ("RowLengths", [1, 1]),
        ("RowLengths", [4, -1]),
        ("RowStarts", [1, 2]),
        ("RowLimits", [1, 4]),
        ("ValueRowIds", [0, 0]),
        ("ValueRowIds", [0, 1, 0]),
        ("ValueRowIds", [-1, 0, 1]),
        ("ValueRowIds", [0, 0, 2**62]),
    ],
)
def test_a_partition_that_does_not_divide_its_values_is_refused(
    kind: str, numbers: list[int]
) -> None:
    serialized = example_bytes.example(
        [
            ("v", example_bytes.feature("int64", [7, 8, 9])),
            ("p", example_bytes.feature("int64", numbers)),
        ]
    )
    partition = getattr(records.RaggedFeature, kind)("p")
    spec = {"v": records.RaggedFeature("int64", partitions=[partition])}
    with pytest.raises(RecordError, match=kind):
        records.parse_example([serialized], spec)


def test_a_row_never_takes_values_of_another_record() -> None:
    # The partitions cover the whole batch, so in TensorFlow the second record's row gets a value of
    # the first record.
    batch = [
        example_bytes.example(
            [
                ("v", example_bytes.feature("int64", values)),
                ("p", example_bytes.feature("int64", lengths)),
            ]
        )
        for values, lengths in (([1, 2, 3], [2]), ([4], [2]))
    ]
    spec = {"v": records.RaggedFeature("int64", partitions=[records.RaggedFeature.RowLengths("p")])}
    with pytest.raises(RecordError, match="divides the values of each record"):
        records.parse_example(batch, spec)


def test_uniform_rows_need_a_multiple_of_their_length() -> None:
    serialized = example_bytes.example([("v", example_bytes.feature("int64", [7, 8, 9]))])
    partition = records.RaggedFeature.UniformRowLength(2)
    spec = {"v": records.RaggedFeature("int64", partitions=[partition])}
    with pytest.raises(RecordError, match="multiple of 2"):
        records.parse_example([serialized], spec)
    with pytest.raises(InvalidOptionError, match="uniform row length"):
        records.RaggedFeature("int64", partitions=[records.RaggedFeature.UniformRowLength(0)])


# ---- SparseFeature -------------------------------------------------------------------------------


def _sparse_records(rng: Random, rank: int, dtype: str, *, ordered: bool) -> list[bytes]:
    made = []
    for _ in range(rng.randrange(1, 4)):
        count = rng.randrange(4)
        points: list[tuple[int, ...]] = rng.sample(
            [(i, j) for i in range(4) for j in range(3)], count
        )
        points = (
            sorted({point[:rank] for point in points})
            if ordered
            else list(dict.fromkeys(point[:rank] for point in points))
        )
        pairs = [
            (f"i{axis}", example_bytes.feature("int64", [point[axis] for point in points]))
            for axis in range(rank)
        ]
        values = drawn_values(rng, dtype, len(points))
        made.append(example_bytes.example([*pairs, ("v", example_bytes.feature(dtype, values))]))
    return made


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("ordered", [False, True])
def test_sparse_features_are_what_tensorflow_makes(rank: int, ordered: bool) -> None:
    for seed in range(20):
        rng = Random(seed)
        dtype = rng.choice(("float32", "int64"))
        batch = _sparse_records(rng, rank, dtype, ordered=ordered)
        keys: Any = "i0" if rank == 1 else ["i0", "i1"]
        size: Any = 4 if rank == 1 else [4, 3]
        ours = {"x": records.SparseFeature(keys, "v", dtype, size, already_sorted=ordered)}
        theirs = {
            "x": tf.io.SparseFeature(keys, "v", TF_DTYPES[dtype], size, already_sorted=ordered)
        }
        want = tf.io.parse_example(batch, theirs)
        assert_same(records.parse_example(batch, ours)["x"], want["x"], f"seed {seed}")
        single = tf.io.parse_single_example(batch[0], theirs)
        got = records.parse_single_example(batch[0], ours)
        assert_same(got["x"], single["x"], f"seed {seed}, single")


def test_sparse_features_whose_parts_do_not_fit_are_refused() -> None:
    def serialized(indices: list[int], values: list[float]) -> bytes:
        return example_bytes.example(
            [
                ("i", example_bytes.feature("int64", indices)),
                ("v", example_bytes.feature("float32", values)),
            ]
        )

    spec = {"x": records.SparseFeature("i", "v", "float32", 3)}
    # The numbers of indices and of values are equal in the batch, but not in each record.
    with pytest.raises(RecordError, match="as many indices as values"):
        records.parse_example([serialized([0, 1], [1.0]), serialized([0], [1.0, 2.0])], spec)
    with pytest.raises(ValueRangeError, match="from 0 to 2"):
        records.parse_example([serialized([3], [1.0])], spec)
    with pytest.raises(UnsupportedDtypeError, match="VarLenFeature"):
        records.SparseFeature("i", "v", bytes, 3)
    with pytest.raises(InvalidOptionError, match="a size for each index_key"):
        records.SparseFeature(["i", "j"], "v", "float32", 3)


def test_one_key_may_serve_several_features_of_one_kind() -> None:
    batch = [
        example_bytes.example(
            [
                ("v", example_bytes.feature("int64", [1, 2, 3])),
                ("p", example_bytes.feature("int64", [2, 1])),
            ]
        )
    ]
    lengths = records.RaggedFeature.RowLengths("p")
    got = records.parse_example(
        batch,
        {
            "v": records.RaggedFeature("int64"),
            "rows": records.RaggedFeature("int64", value_key="v", partitions=[lengths]),
            "p": records.RaggedFeature("int64"),
        },
    )
    assert got["rows"].to_list() == [[[1, 2], [3]]]
    assert got["p"].to_padded_tensor(0).tolist() == [[2, 1]]
    with pytest.raises(InvalidOptionError, match="in two ways"):
        records.parse_example(
            batch, {"v": records.VarLenFeature("int64"), "p": records.RaggedFeature("int64", "v")}
        )
