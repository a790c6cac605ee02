"""TFRecord files that others wrote, beside TensorFlow's own reading of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import torch
from published import installed

import tensor_bridge
from tensor_bridge import Ragged, StringTensor, records
from tensor_bridge.errors import RecordError

FILES = sorted((Path(__file__).parents[2] / "data/records").glob("*.gz"))


def _flat(value: Any) -> Any:
    """What can be compared: values, dtype and shape."""
    if isinstance(value, tf.SparseTensor) and value.dtype == tf.string:
        rows = [[[] for _ in range(n)] if n else [] for n in _inner(value)]
        for at, item in zip(value.indices.numpy().tolist(), value.values.numpy(), strict=True):
            row = rows[at[0]][at[1]] if len(at) == 3 else rows[at[0]]
            row.append(item)
        return rows
    if isinstance(value, (tf.Tensor, tf.SparseTensor)):
        value = tensor_bridge.to_torch(value)
    if isinstance(value, Ragged):
        return value.to_list()
    if isinstance(value, StringTensor):
        return value.shape, value.tolist()
    if value.is_sparse:
        value = value.coalesce()
        return value.shape, value.indices().tolist(), _flat(value.values())
    bits = value.view(torch.int32) if value.dtype == torch.float32 else value
    return value.shape, value.dtype, bits.tolist()


def _inner(value: tf.SparseTensor) -> list[int]:
    shape = value.dense_shape.numpy().tolist()
    return [shape[1] if len(shape) == 3 else 0] * int(shape[0])


def _theirs(spec: Any) -> dict[str, Any]:
    dtypes = {"float32": tf.float32, "int64": tf.int64, "bytes": tf.string}
    made = {}
    for key, feature in spec.items():
        shape = () if isinstance(feature, records.VarLenFeature) else (feature.shape,)
        more = {}
        if isinstance(feature, records.FixedLenSequenceFeature):
            more["allow_missing"] = feature.allow_missing
        made[key] = getattr(tf.io, type(feature).__name__)(*shape, dtypes[feature.dtype], **more)
    return made


def compare(path: Path) -> int:
    """Compares records and values; returns how many records have values."""
    packed = path.read_bytes()[:2] == b"\x1f\x8b"
    stored = list(tf.data.TFRecordDataset(str(path), "GZIP" if packed else "").as_numpy_iterator())
    assert list(records.RecordFile(path)) == stored
    try:
        spec = records.infer(path, records=len(stored))
    except RecordError:  # other messages, of which only the bytes are compared
        return 0
    begin = 0
    for batch in records.loader(path, spec, batch_size=64):
        chunk = stored[begin : begin + 64]
        begin += len(chunk)
        if isinstance(spec, records.SequenceFeatures):
            context, lists, _ = tf.io.parse_sequence_example(
                chunk, _theirs(spec.context), _theirs(spec.sequence)
            )
            pairs = [(batch["context"], context), (batch["sequence"], lists)]
        else:
            pairs = [(batch, tf.io.parse_example(chunk, _theirs(spec)))]
        for ours, theirs in pairs:
            assert ours.keys() == theirs.keys()
            for key, value in theirs.items():
                assert _flat(ours[key]) == _flat(value), key
    assert begin == len(stored)
    return begin


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_published_file_has_the_values_that_tensorflow_reads(path: Path) -> None:
    assert compare(path) in (100, 205, 234)


@pytest.mark.exhaustive
def test_files_of_tfx_have_the_values_that_tensorflow_reads() -> None:
    """Examples, SequenceExamples, and events of TensorBoard, which are TFRecord files too."""
    folder = installed("tfx", "components", "testdata")
    paths = [*folder.rglob("*.gz"), *folder.rglob("events.out.tfevents.*")]
    counts = [compare(path) for path in paths if path.stat().st_size]
    assert sum(1 for count in counts if count) > 40
    assert counts.count(0) == 4
