"""on_error="skip": every way to read files leaves out the same damage, counts it and warns of it.

test_record_file.py tests which records a `RecordFile` leaves out.
"""

from __future__ import annotations

import gzip
import random
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damaged_bytes import damage

from tensor_bridge import records
from tensor_bridge.errors import RecordError

Seen = tuple[list[bytes], int, int]


def file_by_file(paths: list[str]) -> Seen:
    files = [records.RecordFile(path, on_error="skip") for path in paths]
    found = [record for file in files for record in file]
    counted = [file.stats() for file in files]
    return (
        found,
        sum(each.skipped_records for each in counted),
        sum(each.skipped_bytes for each in counted),
    )


def in_one_pass(paths: list[str]) -> Seen:
    dataset: Any = records.IterableRecordDataset(paths, on_error="skip", batch_size=3)
    found = [record for batch in dataset for record in batch.to_bytes()]
    return found, dataset.stats().skipped_records, dataset.stats().skipped_bytes


def by_number(paths: list[str], index: str | None = None) -> Seen:
    dataset = records.RecordDataset(paths, on_error="skip", index=index)
    stats = dataset.stats()
    assert stats.records == len(dataset)
    return list(dataset), stats.skipped_records, stats.skipped_bytes


def by_threads(paths: list[str], index: str | None = None) -> Seen:
    loader = records.loader(paths, None, batch_size=3, on_error="skip", index=index)
    seen = []
    for _ in range(2):  # the second pass does not warn again
        found = [record for batch in loader for record in batch.to_bytes()]
        seen.append((found, loader.stats().skipped_records, loader.stats().skipped_bytes))
    assert seen[0] == seen[1]
    return seen[0]


def warned(way: Callable[..., Seen], *arguments: Any) -> tuple[Seen, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seen = way(*arguments)
    # The warning names the file, but any of its damaged places: threads find wrong lengths first.
    texts = [str(each.message) for each in caught]
    assert all(
        text.endswith("skipped, as on_error='skip' says; stats() counts it") for text in texts
    )
    return seen, sorted(re.split("[,:]", text)[0] for text in texts)


def drawn(folder: Path, draw: random.Random, compression: str) -> list[str]:
    """Two files; one of them may be damaged in several places."""
    paths = []
    for name in "ab":
        path = folder / name
        with records.Writer(path) as writer:
            for number in range(20):
                writer.write(b"%d" % number * draw.choice((1, 30, 300)))
        data = path.read_bytes()
        if not compression:
            for _ in range(draw.randrange(4)):
                data = damage(data, draw) or b"\0"
        else:
            data = gzip.compress(data)
            data = damage(data, draw) if draw.random() < 0.5 else data
        path.write_bytes(data)
        paths.append(str(path))
    return paths


@pytest.mark.parametrize("seed", range(30))
def test_all_ways_leave_out_the_same(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    paths = drawn(tmp_path, draw, "")
    expected = warned(file_by_file, paths)
    assert warned(in_one_pass, paths) == expected
    assert warned(by_number, paths) == expected
    assert warned(by_threads, paths) == expected
    for way in (by_number, by_threads):
        index = str(tmp_path / way.__name__)
        assert warned(way, paths, index) == expected
        # A saved index has the counts, so no damage is read that could be warned of.
        assert warned(way, paths, index) == (expected[0], [])


@pytest.mark.parametrize("seed", range(10))
def test_a_damaged_stream_ends_its_file_in_all_ways(tmp_path: Path, seed: int) -> None:
    paths = drawn(tmp_path, random.Random(seed), "GZIP")
    expected = warned(file_by_file, paths)
    assert warned(in_one_pass, paths) == expected
    assert warned(by_threads, paths) == expected


def test_a_record_whose_end_is_missing_costs_no_other(tmp_path: Path) -> None:
    """The second record's length is valid, and points into the third record."""
    path = tmp_path / "r"
    with records.Writer(path) as writer:
        for letter in b"abcd":
            writer.write(bytes([letter]) * 50)
    data = path.read_bytes()
    path.write_bytes(data[: 66 + 30] + data[66 + 40 :])
    for way in (file_by_file, in_one_pass, by_number, by_threads):
        (found, count, size), told = warned(way, [str(path)])
        assert [record[:1] for record in found] == [b"a", b"c", b"d"]
        assert (count, size, len(told)) == (1, 56, 1)


def test_an_index_of_what_was_not_compared_serves_no_dataset_that_skips(tmp_path: Path) -> None:
    path, index = tmp_path / "r", tmp_path / "index"
    with records.Writer(path) as writer:
        for letter in b"abc":
            writer.write(bytes([letter]))
    whole = path.read_bytes()
    path.write_bytes(whole[:29] + b"x" + whole[30:])
    assert len(records.RecordDataset(path, index=index)) == 3
    with pytest.warns(UserWarning, match="skipped"):
        assert list(records.RecordDataset(path, index=index, on_error="skip")) == [b"a", b"c"]
    # The reverse: records that were left out are not lost silently.
    damaged = records.RecordDataset(path, index=index)
    assert len(damaged) == 3
    with pytest.raises(RecordError, match="byte 17"):
        damaged[1]


def test_a_loader_counts_and_warns_in_the_pass_that_meets_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with records.Writer(path) as writer:
        for letter in b"abcdef":
            writer.write(bytes([letter]))
    data = bytearray(path.read_bytes())
    data[17 + 12] ^= 1  # the bytes of the second record
    data[4 * 17] ^= 1  # the length of the fifth record
    path.write_bytes(data)
    with pytest.warns(UserWarning, match=rf"{path}, byte 68: .*length.*skipped") as told:
        loader = records.loader(path, None, batch_size=2, on_error="skip")
    assert len(told) == 1
    assert (loader.stats().skipped_records, loader.stats().skipped_bytes) == (1, 17)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a file is warned of once
        assert [batch.to_bytes() for batch in loader] == [[b"a"], [b"c", b"d"], [b"f"]]
    assert (loader.stats().skipped_records, loader.stats().skipped_bytes) == (2, 34)
    assert "2 records skipped" in str(loader.stats())
