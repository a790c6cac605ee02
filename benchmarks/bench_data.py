"""Times the cost of a tf.data pipeline in a PyTorch training loop, compared with other ways.

All numbers of one pipeline come from one interleaved run: each round makes one pass with each
contender, in an order drawn anew, timed from the first element to the last. Values are compared
before anything is timed. Writes the numbers, with machine and versions, to `results/data.json`.

    python benchmarks/bench_data.py [--quick] [--only-records] [--output FOLDER]
"""

from __future__ import annotations

import datetime
import gc
import json
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
import torch
from _allocated import allocated
from _machine import describe_machine, describe_versions
from _records import time_records
from _report import WrongResultError, options_parser, write_json
from rich import box
from rich.console import Console
from rich.table import Table
from tensorflow.python.ops import gen_dataset_ops

import tensor_bridge
from tensor_bridge.data import loader

OURS = "tensor_bridge"
NUMPY = "NumPy"
DLPACK = "DLPack pair"
RAW = "raw"
REDUCE = "ds.reduce"

LEGEND = {
    OURS: "for x in tensor_bridge.data.loader(ds)",
    NUMPY: "for x in ds.as_numpy_iterator(): torch.from_numpy of each array",
    DLPACK: "for x in ds: torch.utils.dlpack.from_dlpack(tf.experimental.dlpack.to_dlpack(t))",
    RAW: "TensorFlow's iterator_get_next, the values stay TensorFlow's",
    REDUCE: "ds.reduce(0, ...): tf.data drains itself",
}
ROUNDS = 9


@dataclass(frozen=True)
class Case:
    """One pipeline.

    Attributes:
        name: What the table calls it.
        dataset: The pipeline.
        count: Its elements.
        contenders: Who runs it.
    """

    name: str
    dataset: tf.data.Dataset
    count: int
    contenders: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints the table, writes the JSON."""
    parser = options_parser(__doc__, quick="few elements, for a smoke test")
    parser.add_argument(
        "--only-records", action="store_true", help="the records alone; other numbers are kept"
    )
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

    machine, versions = describe_machine(), describe_versions()
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(
        f"tensor_bridge {versions['tensor_bridge']}, TensorFlow {versions['tensorflow']}, "
        f"torch {versions['torch']}, Python {versions['python']}\n"
        f"{machine['cpu']}, {machine['cpus']} CPUs, load {machine['load_average_1m']}\n"
    )
    records = _records(console, machine, count=2_000 if options.quick else 20_000)
    if options.only_records:
        report = json.loads((options.output / "data.json").read_text()) | {"records": records}
        console.print(f"Written: {write_json(options.output, 'data', report)}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        cases = _cases(Path(folder), scale=20 if options.quick else 1)
        rows = [row for case in cases for row in _run(case, console, rounds=ROUNDS)]
    memory = _memory(5_000 if options.quick else 100_000)
    _print(console, rows, memory)
    report = {
        "schema": 1,
        "date": datetime.date.today().isoformat(),
        "machine": machine,
        "versions": versions,
        "rounds": ROUNDS,
        "contenders": LEGEND,
        "results": rows,
        "memory": memory,
        "records": records,
    }
    console.print(f"Written: {write_json(options.output, 'data', report)}")
    return 0


# --- pipelines ------------------------------------------------------------------------------------


def _cases(folder: Path, scale: int) -> list[Case]:
    everyone = (OURS, NUMPY, DLPACK, RAW)
    count = 2000 // scale
    pair = {"x": tf.random.normal([32, 8]), "y": tf.zeros([32], tf.int64)}
    features = tf.random.normal([count * 8, 64])
    labels = tf.range(count * 8)
    table = tf.data.Dataset.from_tensor_slices({"x": features, "y": labels})
    words = tf.data.Dataset.from_tensor_slices(tf.strings.as_string(tf.range(count * 8)))
    images = 1024 // scale // 16
    return [
        Case("repeated pair", tf.data.Dataset.from_tensors(pair).repeat(count), count, everyone),
        Case("batches of 8", table.batch(8), count, everyone),
        Case(
            "shuffled batches",
            table.shuffle(1000, 1, reshuffle_each_iteration=False).batch(8),
            count,
            everyone,
        ),
        Case("parallel map", table.batch(8).map(_scaled, tf.data.AUTOTUNE), count, everyone),
        Case("strings", words.batch(8), count, (OURS, RAW)),
        Case("JPEG", _jpeg(folder, images * 16), images, (OURS, NUMPY, REDUCE)),
    ]


def _scaled(row: Any) -> Any:
    return {"x": row["x"] * 2.0 + 1.0, "y": row["y"]}


def _jpeg(folder: Path, count: int) -> tf.data.Dataset:
    """Images of 128 x 128 in TFRecords of tf.train.Example, decoded and augmented, in 16s."""
    path = str(folder / "images.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for i in range(count):
            noise = tf.random.stateless_uniform((16, 16, 3), (i, 1), maxval=256, dtype=tf.int32)
            image = tf.cast(tf.image.resize(noise, (128, 128)), tf.uint8)
            feature = {
                "image": tf.train.Feature(
                    bytes_list=tf.train.BytesList(value=[tf.io.encode_jpeg(image).numpy()])
                ),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[i % 10])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())
    spec = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }

    def parse(record: Any) -> Any:
        example = tf.io.parse_single_example(record, spec)
        image = tf.cast(tf.io.decode_jpeg(example["image"], channels=3), tf.float32) / 255
        image = tf.image.stateless_random_flip_left_right(image, (example["label"], 0))
        return {"x": tf.transpose(image, [2, 0, 1]), "y": example["label"]}

    return tf.data.TFRecordDataset(path).map(parse, tf.data.AUTOTUNE).batch(16)


# --- contenders -----------------------------------------------------------------------------------


def _by_numpy(ds: tf.data.Dataset) -> Iterator[Any]:
    for element in ds.as_numpy_iterator():
        yield {name: torch.from_numpy(array) for name, array in element.items()}


def _by_dlpack(ds: tf.data.Dataset) -> Iterator[Any]:
    to_dlpack, from_dlpack = tf.experimental.dlpack.to_dlpack, torch.utils.dlpack.from_dlpack
    for element in ds:
        yield {name: from_dlpack(to_dlpack(t)) for name, t in element.items()}


def _raw(ds: tf.data.Dataset) -> Iterator[Any]:
    iterator = iter(ds)
    resource = iterator._iterator_resource
    types, shapes = iterator._flat_output_types, iterator._flat_output_shapes
    get_next = gen_dataset_ops.iterator_get_next
    while True:
        try:
            yield get_next(resource, types, shapes)
        except tf.errors.OutOfRangeError:
            return


PASSES: dict[str, Callable[[tf.data.Dataset], Iterable[Any]]] = {
    OURS: loader,
    NUMPY: _by_numpy,
    DLPACK: _by_dlpack,
    RAW: _raw,
}


def _time(name: str, ds: tf.data.Dataset, *, whole: bool) -> float:
    """Seconds of a pass: of the whole pass, or from the first element on."""
    start = time.perf_counter()
    if name == REDUCE:
        ds.reduce(tf.constant(0, tf.int64), lambda count, _: count + 1)
        return time.perf_counter() - start
    elements = iter(PASSES[name](ds))
    next(elements)
    if not whole:
        start = time.perf_counter()
    for _ in elements:
        pass
    return time.perf_counter() - start


def _run(case: Case, console: Console, *, rounds: int) -> list[dict[str, object]]:
    _check(case)
    # tf.data's own drain includes the start of the pipeline, so all contenders include it there.
    whole = REDUCE in case.contenders
    console.print(f"  {case.name}: {case.count} elements ...")
    samples: dict[str, list[float]] = {name: [] for name in case.contenders}
    order = list(case.contenders)
    shuffle = random.Random(0).shuffle
    for name in order:
        _time(name, case.dataset, whole=whole)  # caches, and TensorFlow's tuning
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            samples[name].append(_time(name, case.dataset, whole=whole) / case.count * 1e6)
    gc.enable()
    return [
        {
            "case": case.name,
            "contender": name,
            "elements": case.count,
            "median_us": round(statistics.median(samples[name]), 2),
            "fastest_us": round(min(samples[name]), 2),
            "slowest_us": round(max(samples[name]), 2),
        }
        for name in case.contenders
    ]


def _check(case: Case) -> None:
    """Raises unless ours yields the same values as TensorFlow."""
    count = 0
    for ours, theirs in zip(loader(case.dataset), case.dataset, strict=True):
        count += 1
        if count > 20:
            continue
        if isinstance(ours, tensor_bridge.StringTensor):
            same = ours.tolist() == theirs.numpy().tolist()
        else:
            same = all(torch.equal(ours[k], tensor_bridge.to_torch(theirs[k])) for k in theirs)
        if not same:
            raise WrongResultError(f"{case.name}: element {count - 1} differs")
    if count != case.count:
        raise WrongResultError(f"{case.name}: {count} elements, expected {case.count}")


def _memory(count: int) -> dict[str, object]:
    """Bytes that malloc has handed out, at ten points of a long pass over elements of 64 KB."""
    ds = tf.data.Dataset.range(count).map(lambda i: tf.fill([8192], i))
    points = []
    for i, _ in enumerate(loader(ds)):
        if (i + 1) % (count // 10) == 0:
            gc.collect()
            points.append(allocated())
    return {"elements": count, "element_bytes": 65536, "allocated_bytes": points}


def _records(console: Console, machine: dict[str, Any], count: int) -> dict[str, object]:
    console.print(f"  records: {count} examples ...")
    with tempfile.TemporaryDirectory() as folder:
        found = time_records(Path(folder), count, rounds=5)
    forms: Any = found["forms"]
    for form in forms:
        console.print(f"    {form['median_per_s']:>8,} examples a second  {form['form']}")
    today = datetime.date.today().isoformat()
    return {"date": today, "load_average_1m": machine["load_average_1m"], **found}


# --- the table ------------------------------------------------------------------------------------


def _print(console: Console, rows: list[dict[str, object]], memory: dict[str, Any]) -> None:
    median: dict[tuple[str, str], float] = {
        (str(row["case"]), str(row["contender"])): float(str(row["median_us"])) for row in rows
    }
    table = Table(
        title="Microseconds an element (medians)",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("pipeline", no_wrap=True)
    for name in LEGEND:
        table.add_column(name, justify="right", no_wrap=True)
    for name in (NUMPY, DLPACK):
        table.add_column(f"{name} / ours", justify="right", style="cyan", no_wrap=True)
    table.add_column("ours - raw", justify="right", style="cyan", no_wrap=True)
    for case in dict.fromkeys(str(row["case"]) for row in rows):
        ours = median[case, OURS]
        cells = [f"{median[case, n]:,.1f}" if (case, n) in median else "" for n in LEGEND]
        for name in (NUMPY, DLPACK):
            known = (case, name) in median
            cells.append(f"{median[case, name] / ours:.1f}" if known else "")
        cells.append(f"{ours - median[case, RAW]:+.1f}" if (case, RAW) in median else "")
        table.add_row(case, *cells)
    console.print(table)
    for name, meaning in LEGEND.items():
        console.print(f"  [bold]{name:<13}[/]  {meaning}", highlight=False, markup=True)
    drain = median["JPEG", REDUCE] / median["JPEG", OURS]
    points = memory["allocated_bytes"]
    console.print(
        f"\nJPEG: {drain:.2f} of the rate at which tf.data drains itself.\n"
        f"Memory over {memory['elements']:,} elements of 64 KB: grows by "
        f"{(points[-1] - points[0]) / 1024:,.0f} KB from the first tenth to the last."
    )


if __name__ == "__main__":
    sys.exit(main())
