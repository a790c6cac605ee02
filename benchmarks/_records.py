"""How fast tf.train.Example records become torch tensors, by the form in which they are parsed."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
import torch
from _report import WrongResultError

import tensor_bridge
from tensor_bridge.data import loader

BATCH = 64
SPEC = {
    "label": tf.io.FixedLenFeature([], tf.int64),
    "floats": tf.io.FixedLenFeature([128], tf.float32),
    "ids": tf.io.FixedLenFeature([16], tf.int64),
    "blob": tf.io.FixedLenFeature([], tf.string),
}


def time_records(folder: Path, count: int, rounds: int) -> dict[str, object]:
    """Examples a second of each form: one interleaved run, after a pass that is not timed."""
    path = folder / "examples.tfrecord"
    write_examples(path, count)
    forms = _forms(tf.data.TFRecordDataset(str(path)))
    _check(forms)
    rates: dict[str, list[float]] = {form: [] for form in forms}
    order = list(forms)
    for i in range(rounds + 1):
        random.Random(i).shuffle(order)
        for form in order:
            start = time.perf_counter()
            for _ in forms[form]():
                pass
            if i:
                rates[form].append(count / (time.perf_counter() - start))
    return {
        "examples": count,
        "bytes": path.stat().st_size,
        "rounds": rounds,
        "forms": [
            {
                "form": form,
                "median_per_s": round(statistics.median(rates[form])),
                "fastest_per_s": round(max(rates[form])),
                "slowest_per_s": round(min(rates[form])),
            }
            for form in forms
        ],
    }


def write_examples(path: Path, count: int) -> None:
    """One number, 128 floats, 16 integers and 3 kB of bytes an example."""
    draw = random.Random(0)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for i in range(count):
            feature = {
                "label": _integers([i]),
                "floats": tf.train.Feature(
                    float_list=tf.train.FloatList(value=[draw.random() for _ in range(128)])
                ),
                "ids": _integers(draw.sample(range(30_000), 16)),
                "blob": tf.train.Feature(
                    bytes_list=tf.train.BytesList(value=[draw.randbytes(3000)])
                ),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())


def _integers(values: list[int]) -> Any:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _forms(records: tf.data.Dataset) -> dict[str, Callable[[], Iterator[Any]]]:
    def many(batch: Any) -> Any:
        return tf.io.parse_example(batch, SPEC)

    def one(record: Any) -> Any:
        return tf.io.parse_single_example(record, SPEC)

    batched = records.batch(BATCH).map(many)
    parallel = records.batch(BATCH).map(many, tf.data.AUTOTUNE)
    single = records.map(one)
    single_parallel = records.map(one, tf.data.AUTOTUNE)
    return {
        f"loader(ds.batch({BATCH}).map(parse_example))": lambda: iter(loader(batched)),
        f"loader(ds.batch({BATCH}).map(parse_example, AUTOTUNE))": lambda: iter(loader(parallel)),
        f"loader(ds.map(parse_single_example).batch({BATCH}))": lambda: iter(
            loader(single.batch(BATCH))
        ),
        f"loader(ds.map(parse_single_example, AUTOTUNE).batch({BATCH}))": lambda: iter(
            loader(single_parallel.batch(BATCH))
        ),
        "loader(ds.map(parse_single_example))": lambda: iter(loader(single)),
        f"ds.batch({BATCH}).map(parse_example).as_numpy_iterator(), torch.from_numpy": lambda: (
            _by_numpy(batched)
        ),
    }


def _by_numpy(ds: tf.data.Dataset) -> Iterator[Any]:
    for element in ds.as_numpy_iterator():
        # Strings have no form in torch.
        yield {
            name: array if array.dtype == object else torch.from_numpy(array)
            for name, array in element.items()
        }


def _check(forms: dict[str, Callable[[], Iterator[Any]]]) -> None:
    """Raises unless the first example is the same in every form."""
    first = {form: _first(next(iterate())) for form, iterate in forms.items()}
    expected = next(iter(first.values()))
    for form, values in first.items():
        if values != expected:
            raise WrongResultError(f"{form}: the first example differs")


def _first(element: Any) -> dict[str, Any]:
    rows = {name: x[0] if len(element["ids"].shape) == 2 else x for name, x in element.items()}
    return {
        name: row.item() if isinstance(row, tensor_bridge.StringTensor) else _plain(row)
        for name, row in rows.items()
    }


def _plain(row: Any) -> Any:
    return row.tolist() if isinstance(row, torch.Tensor) else row
