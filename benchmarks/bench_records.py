"""Times reading TFRecord files of tf.train.Example to torch tensors, compared with other readers.

All rates of a table come from one interleaved run on warm files. A turn takes several passes,
because one takes a few milliseconds. Our datasets and loaders are made once and iterated again,
like the epochs of a training; "made anew" maps its files again in each pass. Values are compared
before anything is timed. The other readers differ in what they do: tfrecord and rustfrecord do not
compare checksums, tfrecords and grain return raw records.

Writes the numbers, with machine and versions, to `results/records.json`. `make bench` installs the
other readers in a separate folder, because their requirements contradict those of other packages.
"""

from __future__ import annotations

import ctypes
import io
import mmap
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from _report import Report, WrongResultError, parse_options

PEERS = Path(sys.prefix) / "record-peers"
sys.path.append(str(PEERS))

import tensorflow as tf  # noqa: E402
import torch  # noqa: E402
from _allocated import allocated  # noqa: E402
from _records import SPEC as TF_SPEC  # noqa: E402
from _records import write_examples  # noqa: E402
from crc32c import crc32c  # noqa: E402

from tensor_bridge import data, records  # noqa: E402

BATCH = 64
PASSES = 5
# A pass of a DataLoader begins with its workers.
PASSES_OF_WORKERS = 10
SPEC = {
    "label": records.FixedLenFeature((), "int64"),
    "floats": records.FixedLenFeature((128,), "float32"),
    "ids": records.FixedLenFeature((16,), "int64"),
    "blob": records.FixedLenFeature((), "bytes"),
}
UNIT = "records/s"
LEGEND = {
    "records.loader": "for batch in records.loader(path, SPEC, batch_size=64)",
    "records.loader, made anew": "the same, in each pass a new loader",
    "data.loader": "for batch in data.loader(TFRecordDataset.batch(64).map(parse_example))",
    "records.IterableRecordDataset": "for x in records.IterableRecordDataset(path, SPEC)",
    "records.RecordDataset": "random access: dataset[i], or __getitems__ of 64",
    "rustfrecord": "rustfrecord.Reader: a dict of NumPy arrays an example; no checksums",
    "tfrecord": "tfrecord.reader.tfrecord_loader: a dict of NumPy arrays; no checksums",
    "tfrecords": "tfrecords: raw records",
    "grain": "grain.experimental.TFRecordIterDataset: raw records",
    "CRC and copy": "checksum and copy of the same bytes, from and into warm memory: the limit",
    "empty tensors": "a DataLoader that yields empty tensors of the same shapes",
    "the decoder": "the image decoder alone",
}

Way = Callable[[], Iterable[Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints the tables, writes the JSON."""
    options = parse_options(__doc__, arguments)
    count = 2_000 if options.quick else 20_000
    rounds = 2 if options.quick else 7
    report = Report("records", LEGEND, examples=count, batch=BATCH, rounds=rounds)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "examples.tfrecord")
        write_examples(Path(path), count)
        _check(path)
        _race(report, "parsed, batches of 64", count, rounds, _parsed(path))
        _race(report, "parsed, one by one", count, rounds, _single(path))
        _race(report, "raw, batches of 64", count, rounds, _raw(path))
        _race(report, "random access", count, rounds, _random(path, count))
        for size in (BATCH, 1024):
            ways = _workers([path] * 2 * PASSES_OF_WORKERS, size, count * PASSES_OF_WORKERS)
            _race(
                report,
                f"2 workers, batches of {size}",
                2 * count * PASSES_OF_WORKERS,
                rounds,
                ways,
                passes=1,
            )
        _images(report, Path(folder), 200 if options.quick else 1_000, rounds)
        _opening(report, Path(folder), 100 if options.quick else 1_000)
        _memory(report, path, count, passes=5 if options.quick else 50)
        _first(report, path, rounds)
    return report.finish(options)


# ---- one interleaved run -------------------------------------------------------------------------


def _drain(way: Way, passes: int) -> float:
    """Seconds of one pass."""
    start = time.perf_counter()
    for _ in range(passes):
        for _ in way():
            pass
    return (time.perf_counter() - start) / passes


def _race(
    report: Report,
    group: str,
    count: int,
    rounds: int,
    ways: dict[str, Way],
    passes: int = PASSES,
) -> None:
    """Adds the rates of all ways. The first turn of each way is not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for turn in range(rounds + 1):
        random.Random(turn).shuffle(order)
        for name in order:
            took = _drain(ways[name], passes)
            if turn:
                seconds[name].append(took)
    for name, took in seconds.items():
        report.add_value(
            group,
            "rate",
            name,
            round(count / statistics.median(took)),
            UNIT,
            fastest=round(count / min(took)),
            slowest=round(count / max(took)),
        )


# ---- ways ----------------------------------------------------------------------------------------


def _parsed(path: str) -> dict[str, Way]:
    pipeline = tf.data.TFRecordDataset(path).batch(BATCH)
    parsed = pipeline.map(lambda batch: tf.io.parse_example(batch, TF_SPEC))
    one, two = (records.loader(path, SPEC, batch_size=BATCH, threads=n) for n in (1, 2))
    theirs = data.loader(parsed)
    return (
        {
            "records.loader, 1 thread": lambda: one,
            "records.loader, 2 threads": lambda: two,
            "records.loader, made anew": lambda: records.loader(path, SPEC, batch_size=BATCH),
        }
        | _limits(path)
        | {
            "data.loader": lambda: theirs,
            "rustfrecord": _Peer("rustfrecord", path),
            "tfrecord": _Peer("tfrecord", path),
        }
    )


def _single(path: str) -> dict[str, Way]:
    ours = records.IterableRecordDataset(path, SPEC)
    return {
        "records.IterableRecordDataset": lambda: ours,
        "rustfrecord": _Peer("rustfrecord", path),
    }


def _raw(path: str) -> dict[str, Way]:
    one, two = (records.loader(path, None, batch_size=BATCH, threads=n) for n in (1, 2))
    return _limits(path) | {
        "records.loader, 1 thread": lambda: one,
        "records.loader, 2 threads": lambda: two,
        "tfrecords": _Peer("tfrecords", path),
        "grain": _Peer("grain", path),
    }


def _random(path: str, count: int) -> dict[str, Way]:
    order = random.Random(0).sample(range(count), count)
    raw, parsed = records.RecordDataset(path, None), records.RecordDataset(path, SPEC)
    sequential = records.loader(path, SPEC, batch_size=BATCH, threads=1)
    # Like torch's fetcher with collate_fn=records.collate.
    batches = [order[i : i + BATCH] for i in range(0, count, BATCH)]
    return {
        "records.RecordDataset, raw": lambda: (raw[i] for i in order),
        "records.RecordDataset, batches of 64": lambda: (
            records.collate(parsed.__getitems__(batch)) for batch in batches
        ),
        "records.loader, 1 thread": lambda: sequential,
    }


def _workers(paths: list[str], size: int, count: int) -> dict[str, Way]:
    """Ways in which two workers yield `count` records each."""
    from torch.utils.data import DataLoader

    empty = next(iter(records.loader(paths[0], SPEC, batch_size=size)))
    datasets: dict[str, Any] = {
        "records.IterableRecordDataset": records.IterableRecordDataset(
            paths, SPEC, batch_size=size
        ),
        "empty tensors": _Empty(empty, count // size),
    }
    return {
        name: lambda dataset=dataset: DataLoader(dataset, batch_size=None, num_workers=2)
        for name, dataset in datasets.items()
    }


class _Empty(torch.utils.data.IterableDataset[Any]):
    """Yields `count` batches of new tensors of the same shapes in each worker."""

    def __init__(self, like: dict[str, Any], count: int) -> None:
        self._like, self._count = like, count

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self._count):
            yield {
                name: value._with(torch.empty_like)
                if hasattr(value, "offsets")
                else torch.empty_like(value)
                for name, value in self._like.items()
            }


class _Limit:
    """The checksum of a file's bytes and a copy of them, of memory and into memory that is warm."""

    PIECE = 1 << 18  # about a batch

    def __init__(self, path: str, threads: int) -> None:
        with Path(path).open("rb") as file:
            self._content = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        self._outs = [bytearray(self.PIECE) for _ in range(threads)]

    def __call__(self) -> Iterable[Any]:
        # Both functions release the GIL.
        threads = [
            threading.Thread(target=self._part, args=(number,))
            for number in range(1, len(self._outs))
        ]
        for thread in threads:
            thread.start()
        self._part(0)
        for thread in threads:
            thread.join()
        return ()

    def _part(self, number: int) -> None:
        out = self._outs[number]
        target = (ctypes.c_char * len(out)).from_buffer(out)
        source = _address(self._content)
        for at in range(number * self.PIECE, len(self._content), len(self._outs) * self.PIECE):
            piece = self._content[at : at + self.PIECE]
            crc32c(piece)
            ctypes.memmove(target, source + at, len(piece))


def _address(view: memoryview) -> int:
    return int(torch.frombuffer(view, dtype=torch.uint8).data_ptr())


def _limits(path: str) -> dict[str, Way]:
    return {
        "CRC and copy, 1 thread": _Limit(path, 1),
        "CRC and copy, 2 threads": _Limit(path, 2),
    }


# ---- peers ---------------------------------------------------------------------------------------

# For each peer an expression that iterates over the file `path`.
PEER_CODE = {
    "rustfrecord": "__import__('rustfrecord').Reader(path, compressed=False)",
    "tfrecord": "__import__('tfrecord.reader').reader.tfrecord_loader(path, None, "
    "{'label': 'int', 'floats': 'float', 'ids': 'int', 'blob': 'byte'})",
    "tfrecords": "__import__('tfrecords').tf_record_iterator(path)",
    "grain": "__import__('grain').experimental.TFRecordIterDataset(path)",
}
_CHILD = """
import sys
path = sys.argv[2]
sys.path.append(sys.argv[1])
for _ in sys.stdin:
    for _ in {}:
        pass
    print(flush=True)
"""


class _Peer:
    """Runs passes in a separate process, because some peers contain TensorFlow's symbols too."""

    def __init__(self, name: str, path: str) -> None:
        command = [sys.executable, "-c", _CHILD.format(PEER_CODE[name]), str(PEERS), path]
        pipe = subprocess.PIPE
        self._name = name
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def __call__(self) -> Iterable[Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        if not self._process.stdout.readline():
            raise RuntimeError(f"the process of {self._name} ended")
        return ()


# ---- others --------------------------------------------------------------------------------------


def _check(path: str) -> None:
    """Raises unless our values equal TensorFlow's."""
    parsed = tf.data.TFRecordDataset(path).batch(BATCH)
    theirs = data.loader(parsed.map(lambda batch: tf.io.parse_example(batch, TF_SPEC)))
    for ours, expected in zip(records.loader(path, SPEC, batch_size=BATCH), theirs, strict=True):
        for name, value in expected.items():
            mine = ours[name]
            same = torch.equal(mine, value) if isinstance(value, torch.Tensor) else mine == value
            if not same:
                raise WrongResultError(f"{name}: the value differs from TensorFlow's")


def _images(report: Report, folder: Path, count: int, rounds: int) -> None:
    """Times JPEGs of 224 x 224."""
    from PIL import Image

    path = str(folder / "images.tfrecord")
    encoded = []
    for i in range(16):
        noise = random.Random(i).randbytes(28 * 28 * 3)
        made = io.BytesIO()
        Image.frombytes("RGB", (28, 28), noise).resize((224, 224)).save(made, "JPEG")
        encoded.append(made.getvalue())
    spec = {"image": records.FixedLenFeature((), "bytes", decode=records.Image())}
    plain = {"image": records.FixedLenFeature((), "bytes")}
    with records.Writer(path, plain) as writer:
        for i in range(count):
            writer.write({"image": encoded[i % 16]})
    _race(
        report,
        "JPEG",
        count,
        rounds,
        {
            "records.loader": lambda: records.loader(path, spec, batch_size=16),
            "the decoder": lambda: (records.decode_image(encoded[i % 16]) for i in range(count)),
        },
    )


def _opening(report: Report, folder: Path, shards: int) -> None:
    """Times opening many small files with an index."""
    paths = [str(folder / f"many-{i:05d}-of-{shards:05d}.tfrecord") for i in range(shards)]
    for path in paths:
        with records.Writer(path) as writer:
            writer.write(b"a record")
    index = folder / "many.index"
    records.RecordDataset(paths, index=index)
    start = time.perf_counter()
    dataset = records.RecordDataset(paths, index=index)
    took = time.perf_counter() - start
    assert len(dataset) == shards
    report.add_value(
        "opening", f"{shards:,} indexed files", "records.RecordDataset", took * 1e9, "ns"
    )


def _memory(report: Report, path: str, count: int, passes: int) -> None:
    """Adds the growth of malloc's memory from the first pass to the last."""
    points = []
    for _ in range(passes):
        for _ in records.loader(path, SPEC, batch_size=BATCH):
            pass
        points.append(allocated())
    case = f"growth over {count * (passes - 1):,} records"
    report.add_value("memory", case, "records.loader", points[-1] - points[0], "B")


def _first(report: Report, path: str, rounds: int) -> None:
    """Times the first batch in a process that has imported torch."""
    code = (
        "import torch, time, json; start = time.perf_counter(); from tensor_bridge import records; "
        "spec = {'label': records.FixedLenFeature((), 'int64')}; "
        f"next(iter(records.loader({path!r}, spec, batch_size=64))); "
        "print((time.perf_counter() - start) * 1e9)"
    )
    took = [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
        for _ in range(rounds)
    ]
    report.add_value(
        "first batch", "after import torch", "records.loader", statistics.median(took), "ns"
    )


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main())
