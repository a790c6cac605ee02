"""Damaged files of TFDS data sets with on_error="skip"."""

from __future__ import annotations

import pickle
import warnings

import pytest
import tensorflow as tf
import tfds_builders
import torch

from tensor_bridge import records
from tensor_bridge.errors import InvalidOptionError, RecordError, RecordNotFoundError

FORMATS = ["tfrecord", "array_record"]


def made(folder, file_format="tfrecord", builder=tfds_builders.Numbers):
    """The folder of a data set with two shards of "train", and these shards."""
    path = tfds_builders.prepared(builder, folder, 2, file_format).data_path
    return path, sorted(path.glob("*-train.*"))


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def numbers(dataset):
    return [example["x"].item() for example in dataset]


def skipped(folder, split="train", told=None):
    """The data set without its damaged records, and whether it warned of each file once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = records.tfds(folder, split, on_error="skip")
    assert [str(each.message).partition(":")[0].partition(",")[0] for each in caught] == [
        str(path) for path in told or []
    ]
    return dataset


def test_damaged_records_are_left_out_and_counted(tmp_path):
    folder, (first, second) = made(tmp_path)
    whole = numbers(records.tfds(folder))
    count = records.tfds(folder).info.splits["train"].shard_lengths[0]
    flip(first, 14)  # the bytes of the first record
    second.write_bytes(second.read_bytes()[:-3])  # the last record
    dataset = skipped(folder, told=(first, second))
    assert len(dataset) == len(whole) - 2
    assert numbers(dataset) == whole[1:-1]
    assert dataset[-1]["x"] == whole[-2]
    assert dataset.stats().skipped_records == 2
    assert dataset.stats().records == len(whole) - 2
    # A slice counts the records that are left.
    assert numbers(skipped(folder, "train[:10]", told=(first, second))) == whole[1:11]
    assert numbers(skipped(folder, "train[0shard]", told=(first, second))) == whole[1:count]
    assert numbers(skipped(folder, "test")) == numbers(records.tfds(folder, "test"))
    with pytest.raises(RecordError, match="match their checksum"):
        numbers(records.tfds(folder))


def test_a_damaged_chunk_of_array_record_costs_no_other(tmp_path):
    folder, (first, second) = made(tmp_path, "array_record", tfds_builders.Photos)
    whole = [example["image"] for example in records.tfds(folder)]
    at = next(i for i, byte in enumerate(second.read_bytes()[1000:], 1000) if byte)
    flip(second, at)
    with pytest.raises(RecordError, match="records that can be read"):
        list(records.tfds(folder))
    dataset = skipped(folder, told=(second,))
    found = [example["image"] for example in dataset]
    assert 0 < len(found) == len(dataset) < len(whole)
    assert dataset.stats().skipped_records == len(whole) - len(found)
    kept = iter(whole)
    assert all(any(torch.equal(image, each) for each in kept) for image in found)
    first.write_bytes(first.read_bytes()[:100])
    assert len(skipped(folder, "train[0shard]", told=(first, second))) == 0


@pytest.mark.parametrize("file_format", FORMATS)
def test_records_that_are_missing_without_a_trace_are_counted(tmp_path, file_format):
    folder, (first, _) = made(tmp_path, file_format)
    first.write_bytes(min(folder.glob("*-test.*")).read_bytes())
    dataset = skipped(folder, "train[0shard]+test[0shard]", told=(first,))
    splits = dataset.info.splits
    missing = splits["train"].shard_lengths[0] - splits["test"].shard_lengths[0]
    assert numbers(dataset) == 2 * numbers(records.tfds(folder, "test[0shard]"))
    assert dataset.stats().skipped_records == missing > 0


def test_other_files_are_an_error_in_any_case(tmp_path):
    folder, (first, second) = made(tmp_path)
    min(folder.glob("*-test.*")).write_bytes(first.read_bytes())
    with pytest.raises(RecordError, match=r"expected 6 records, as dataset_info\.json says, got"):
        records.tfds(folder, "test", on_error="skip")
    second.unlink()
    with pytest.raises(RecordNotFoundError, match="no such file"):
        records.tfds(folder, on_error="skip")
    with pytest.raises(InvalidOptionError, match="on_error"):
        records.tfds(folder, on_error="ignore")


def test_an_intact_record_of_other_features_is_an_error(tmp_path):
    folder, (first, _) = made(tmp_path)
    good = [record.numpy() for record in tf.data.TFRecordDataset(str(first))]
    with tf.io.TFRecordWriter(str(first)) as writer:
        for record in [b"", *good[1:]]:
            writer.write(record)
    dataset = skipped(folder)
    assert len(dataset) == 107
    with pytest.raises(RecordError, match="example 0"):
        dataset[0]


@pytest.mark.parametrize("file_format", FORMATS)
def test_workers_leave_out_the_same(tmp_path, file_format):
    folder, (first, _) = made(tmp_path, file_format)
    # In the first record, and in the data of a chunk.
    flip(first, 14 if file_format == "tfrecord" else 200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = records.tfds(folder, on_error="skip")
    expected = numbers(dataset)
    assert len(expected) < 107
    for context in ("fork", "spawn"):
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=16, num_workers=2, multiprocessing_context=context
        )
        assert [x for batch in loader for x in batch["x"].tolist()] == expected
    # What was found is sent along.
    other = pickle.loads(pickle.dumps(dataset))
    assert numbers(other) == expected
    assert other.stats() == dataset.stats()


def test_damaged_episodes_are_left_out(tmp_path):
    folder, (first, second) = made(tmp_path, builder=tfds_builders.Episodes)
    whole = [len(episode["steps"]) for episode in records.rlds(folder)]
    flip(first, 100)
    with pytest.warns(UserWarning, match="skipped, as on_error='skip' says"):
        dataset = records.rlds(folder, window=2, on_error="skip")
    assert len(dataset.episodes) == 3
    assert len(list(dataset)) == sum(length - 1 for length in whole[1:])
    assert dataset.episodes.stats().skipped_records == 1
    assert second.exists()
