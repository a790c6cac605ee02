"""RecordFile: files of TensorFlow, whole and damaged, compared with TensorFlow's reader."""

from __future__ import annotations

import gzip
import os
import random
import warnings
import zlib
from pathlib import Path

import pytest
import tensorflow as tf
import torch
from damaged_bytes import damage

from tensor_bridge import StringTensor, records
from tensor_bridge.errors import FrameworkError, InvalidOptionError, RecordError
from tensor_bridge.records._paths import expand

COMPRESSIONS = ["", "GZIP", "ZLIB"]
MANY = [random.Random(i).randbytes(i * 37 % 5000) for i in range(700)]


def write(path: Path, contents: list[bytes], compression: str = "") -> str:
    with tf.io.TFRecordWriter(str(path), options=compression) as writer:
        for record in contents:
            writer.write(record)
    return str(path)


def by_tensorflow(path: str, compression: str = "") -> tuple[list[bytes], bool]:
    """The records that TensorFlow delivers, and whether it fails after them."""
    found = []
    try:
        for record in tf.data.TFRecordDataset(path, compression_type=compression):
            found.append(record.numpy())
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
        return found, True
    return found, False


def by_us(path: str) -> tuple[list[bytes], bool]:
    found = []
    try:
        for batch in records.RecordFile(path).batches(7):
            found += batch.to_bytes()
    except RecordError:
        return found, True
    return found, False


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_tensorflows_files_are_read(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / "r", MANY, compression)
    file = records.RecordFile(path)
    assert file.compression == compression
    assert list(file) == MANY
    assert file.read(1) is None
    stats = file.stats()
    assert (stats.records, stats.bytes) == (len(MANY), sum(map(len, MANY)))
    assert not stats.skipped_records


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_reading_goes_on_at_a_position(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / "r", MANY, compression)
    file = records.RecordFile(path)
    batch = file.read(123)
    assert batch is not None
    position = file.tell()
    other = records.RecordFile(path)
    other.seek(position)
    done = len(batch)
    assert list(other) == MANY[done:]
    other.seek()
    assert list(other) == MANY
    with pytest.raises(RecordError, match="expected at least"):
        other.seek((1 << 40, 0, 0))


def test_a_batch_becomes_bytes_and_strings(tmp_path: Path) -> None:
    file = records.RecordFile(write(tmp_path / "r", MANY[:5]))
    batch = file.read(10)
    assert batch is not None
    file.close()
    assert batch.to_bytes() == MANY[:5]
    assert batch.to_strings() == StringTensor.from_list(MANY[:5])
    with pytest.raises(InvalidOptionError, match="closed"):
        file.read(1)
    assert records.RecordBatch.of([]).to_strings().shape == (0,)
    assert records.RecordBatch.of([b"", b""]).to_strings().to_bytes() == [b"", b""]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("seed", range(60))
def test_damage_ends_reading_where_tensorflows_reader_ends(
    tmp_path: Path, compression: str, seed: int
) -> None:
    draw = random.Random(seed)
    contents = [draw.randbytes(draw.choice((0, 3, 50, 700))) for _ in range(draw.randrange(1, 30))]
    path = write(tmp_path / "r", contents, compression)
    damaged = damage(Path(path).read_bytes(), draw)
    Path(path).write_bytes(damaged)
    expected, fails = by_tensorflow(path, compression)
    found, failed = by_us(path)
    if compression:
        # TensorFlow does not check the stream's own checksum. From a damaged stream it delivers the
        # blocks that it has decompressed before the damage.
        shorter = min(len(expected), len(found))
        assert found[:shorter] == expected[:shorter] == contents[:shorter]
        assert failed or found == contents or not damaged  # an empty file has no records
        assert failed or not fails
    else:
        # TensorFlow treats an incomplete header as the end of the file; for us the file is
        # truncated.
        cut = 0 < len(damaged) - sum(len(record) + 16 for record in expected) < 12
        assert (found, failed) == (expected, fails or cut)


@pytest.mark.parametrize("seed", range(40))
def test_skipping_loses_only_what_is_damaged(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    contents = [bytes([i]) * draw.choice((1, 3, 50, 700)) for i in range(20)]
    path = write(tmp_path / "r", contents)
    Path(path).write_bytes(damage(Path(path).read_bytes(), draw))
    file = records.RecordFile(path, on_error="skip")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = list(file)
    assert [record for record in contents if record in found] == found
    stats = file.stats()
    whole = found == contents or (found == contents[: len(found)] and not stats.skipped_records)
    assert len(caught) == (0 if stats.skipped_records == 0 else 1)
    assert whole or stats.skipped_records
    if stats.skipped_records:
        assert str(path) in str(caught[0].message)
        assert sum(len(r) + 16 for r in found) + stats.skipped_bytes == Path(path).stat().st_size


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
def test_a_damaged_stream_ends_its_file(tmp_path: Path, compression: str) -> None:
    path = Path(write(tmp_path / "r", MANY, compression))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    file = records.RecordFile(path)
    delivered: list[bytes] = []
    with pytest.raises(RecordError, match=f"stream of {compression}.*truncated"):
        delivered.extend(file)
    found, failed = by_us(str(path))
    assert failed
    assert found == MANY[: len(found)]
    assert len(found) > 100
    skipping = records.RecordFile(path, on_error="skip")
    with pytest.warns(UserWarning, match="skipped, as on_error"):
        assert list(skipping) == found
    assert skipping.stats().skipped_records == 1
    assert skipping.read(1) is None


def test_a_gzip_file_of_several_members_is_read_and_zlib_must_end(tmp_path: Path) -> None:
    plain = Path(write(tmp_path / "r", MANY[:20])).read_bytes()
    path = tmp_path / "z"
    path.write_bytes(gzip.compress(plain[:100]) + gzip.compress(plain[100:]) + bytes(9))
    assert list(records.RecordFile(path)) == MANY[:20]
    path.write_bytes(zlib.compress(plain) + b"more")
    with pytest.raises(RecordError, match="other bytes follow"):
        list(records.RecordFile(path))


def test_unchecked_bytes_are_delivered_as_they_are(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "r", [b"first", b"second"]))
    data = bytearray(path.read_bytes())
    data[12] ^= 1
    path.write_bytes(data)
    assert list(records.RecordFile(path, verify=False)) == [b"girst", b"second"]
    with pytest.raises(RecordError, match="checksum") as caught:
        list(records.RecordFile(path))
    assert (caught.value.path, caught.value.offset) == (str(path), 0)


def test_other_files_are_refused_with_their_names(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert list(records.RecordFile(empty)) == []
    text = tmp_path / "text"
    text.write_text("this is no file of records")
    with pytest.raises(RecordError, match=f"{text}, byte 0: .*not a TFRecord file"):
        list(records.RecordFile(text))
    with pytest.raises(records.RecordNotFoundError, match="got no such file; correct") as caught:
        records.RecordFile(tmp_path / "missing")
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.path == str(tmp_path / "missing")
    with pytest.raises(RecordError, match="got a folder"):
        records.RecordFile(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(RecordError, match="got a FIFO"):
        records.RecordFile(tmp_path / "fifo")
    with pytest.raises(InvalidOptionError, match="on_error"):
        records.RecordFile(empty, on_error="ignore")
    with pytest.raises(InvalidOptionError, match="at least 1"):
        records.RecordFile(empty).read(0)


def test_names_patterns_and_lists_are_expanded(tmp_path: Path) -> None:
    for name in ("b-1", "b-0", "a", "x[1]"):
        (tmp_path / name).touch()
    pattern = tmp_path / "b-*"
    assert expand(pattern) == [str(tmp_path / "b-0"), str(tmp_path / "b-1")]
    assert expand([tmp_path / "a", pattern]) == [str(tmp_path / n) for n in ("a", "b-0", "b-1")]
    assert expand(str(tmp_path / "x[1]")) == [str(tmp_path / "x[1]")]
    with pytest.raises(records.RecordNotFoundError, match="no file matches"):
        expand(tmp_path / "c-*")
    with pytest.raises(records.RecordNotFoundError, match="empty list"):
        expand([])
    with pytest.raises(TypeError, match="expected a path"):
        expand(3)


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_urls_are_read_through_fsspec(tmp_path: Path, compression: str) -> None:
    fsspec = pytest.importorskip("fsspec")
    data = Path(write(tmp_path / "r", MANY, compression)).read_bytes()
    memory = fsspec.filesystem("memory")
    memory.pipe("/shards/r-0", data)
    memory.pipe("/shards/r-1", data)
    urls = expand("memory://shards/r-*")
    assert urls == ["memory:///shards/r-0", "memory:///shards/r-1"]
    file = records.RecordFile(urls[1])
    assert file.compression == compression
    assert list(file) == MANY
    with pytest.raises(records.RecordNotFoundError):
        records.RecordFile("memory://shards/missing")
    with pytest.raises((FrameworkError, RecordError)):
        records.RecordFile("unheardof://shards/r-0")


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_reading_holds_neither_descriptors_nor_much_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "r", [b"x"])
    before = open_descriptors()
    files = [records.RecordFile(path) for _ in range(50)]
    assert all(list(file) == [b"x"] for file in files)
    assert open_descriptors() == before
    maps = Path("/proc/self/maps").read_text
    assert path in maps()
    del files
    assert path not in maps()


def test_a_batch_keeps_the_memory_of_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "r", [b"first", b"second"])
    batch = records.RecordFile(path).read(2)
    Path(path).unlink()
    assert batch is not None
    assert batch.to_bytes() == [b"first", b"second"]
    assert batch.begins.dtype == torch.int64


def test_array_record_is_refused_by_name(tmp_path: Path) -> None:
    from array_record.python import array_record_module

    path = str(tmp_path / "a.array_record")
    writer = array_record_module.ArrayRecordWriter(path, "group_size:1")
    writer.write(b"a record")
    writer.close()
    spec = {"n": records.FixedLenFeature((), "int64")}
    for on_error in ("raise", "skip"):
        for read in (
            lambda: records.RecordFile(path, on_error=on_error),  # noqa: B023
            lambda: records.RecordDataset(path, on_error=on_error),  # noqa: B023
            lambda: list(records.IterableRecordDataset(path, on_error=on_error)),  # noqa: B023
            lambda: list(records.loader(path, spec, on_error=on_error)),  # noqa: B023
        ):
            with pytest.raises(RecordError, match="ArrayRecord file") as caught:
                read()
            assert caught.value.path == path
