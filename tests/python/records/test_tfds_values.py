"""Examples of data sets that TFDS prepared, compared with TFDS' own reading."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import sys
import zlib

import pytest
import tensorflow as tf
import tfds_builders
import torch
from fresh import run_python

from tensor_bridge import StringTensor, records
from tensor_bridge.errors import (
    FrameworkError,
    InvalidOptionError,
    RecordError,
    RecordNotFoundError,
    TensorBridgeError,
)
from tensor_bridge.records import _images


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    return tfds_builders.prepared(tfds_builders.Everything, tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="module")
def folder(builder):
    return builder.data_path


@pytest.fixture
def copied(folder, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.fixture
def decoded(monkeypatch):
    """Counts the images that are decoded."""
    found = []
    decode = _images._decode
    monkeypatch.setattr(_images, "_decode", lambda *args: found.append(1) or decode(*args))
    return found


@pytest.mark.parametrize("split", ["train", "test", "train[1:3]+test"])
def test_every_feature_has_the_values_that_tfds_reads(builder, folder, split):
    ours = records.tfds(folder, split)
    theirs = list(tfds_builders.in_order(builder, split))
    assert len(ours) == len(theirs)
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert tfds_builders.differences(a, b) == [], f"example {i}"


def test_features_within_others_have_the_values_that_tfds_reads(tmp_path):
    kind = tfds_builders.Combined
    builder = tfds_builders.prepared(kind, tmp_path / "a")
    # TFDS does not read ArrayRecord as a tf.data.Dataset.
    other = tfds_builders.prepared(kind, tmp_path / "b", file_format="array_record")
    theirs = list(tfds_builders.in_order(builder, "train"))
    for folder in (builder.data_path, other.data_path):
        ours = list(records.tfds(folder))
        assert len(ours) == len(theirs) == 4
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert tfds_builders.differences(a, b) == [], f"example {i}"
    # As workers send them.
    last = ours[3]["nested"][2]
    assert pickle.loads(pickle.dumps(ours[3]["nested"]))[2]["inner"][1] == last["inner"][1]


def test_a_dataset_in_a_sequence_is_refused(folder, copied):
    tree = tfds_builders.F.FeaturesDict(
        {"x": tfds_builders.F.Sequence(tfds_builders.F.Dataset({"y": tf.int64}))}
    )
    (copied / "features.json").write_text(json.dumps(tree.to_json()))
    with pytest.raises(RecordError, match="'x': a Dataset within a sequence is not read"):
        records.tfds(copied)


def test_jpeg_of_smooth_images_is_within_four_of_what_tfds_reads(tmp_path):
    """TFDS decodes with the fast method; test_images.py compares with the accurate one."""
    builder = tfds_builders.prepared(tfds_builders.Photos, tmp_path)
    ours = records.tfds(builder.data_path)
    for a, b in zip(ours, tfds_builders.in_order(builder, "train"), strict=True):
        expected = torch.tensor(b["image"].numpy().tolist()).movedim(-1, 0)
        assert a["image"].shape == expected.shape
        assert (a["image"].to(torch.int64) - expected).abs().max() <= 4


def test_a_difference_is_found(builder, folder):
    ours = records.tfds(folder)[4]
    (theirs,) = tfds_builders.in_order(builder, "train[4:5]")
    for name, value in ours.items():
        changed = {**ours, name: records.tfds(folder)[3][name]}
        alike = ("box", "translation", "languages")
        assert bool(tfds_builders.differences(changed, theirs)) == (name not in alike), name
        assert value is not None


def test_supervised_examples_are_what_tfds_gives(builder, folder, decoded):
    ours = records.tfds(folder, as_supervised=True)
    theirs = tfds_builders.in_order(builder, "train", as_supervised=True)
    for a, b in zip(ours, theirs, strict=True):
        assert tfds_builders.differences(a, b) == []
    assert len(decoded) == len(ours)


def test_features_that_are_not_asked_for_are_not_decoded(folder, decoded):
    found = records.tfds(folder, features=["label", "dict/two", "nested/x"])[4]
    assert set(found) == {"label", "dict", "nested"}
    assert list(found["dict"]) == ["two"]
    assert [step["x"].item() for step in found["nested"]] == [0, 0.5, 1, 1.5]
    assert not decoded


def test_the_elements_of_a_dataset_are_decoded_one_by_one(folder, decoded):
    nested = records.tfds(folder, features=["nested"])[4]["nested"]
    assert len(nested) == 4
    assert not decoded
    part = nested[1:3]
    assert len(part) == 2
    assert part[0]["x"] == 0.5
    assert len(decoded) == 1
    assert [row.tolist() for row in part.stacked()["y"]] == [[0], [0, 1]]
    assert part.stacked()["frame"].shape == (2, 3, 2, 2)
    assert len(decoded) == 5


def test_without_decoding_images_and_packed_tensors_are_bytes(folder, decoded):
    found = records.tfds(folder, features=["image", "images", "packed", "text"], decode=False)[3]
    assert found["image"].startswith(b"\x89PNG")
    assert isinstance(found["images"], StringTensor)
    assert len(found["images"]) == 3
    assert isinstance(found["packed"], bytes)
    assert found["text"] == b"text 3"
    assert not decoded


def test_info_has_names_and_counts(folder):
    info = records.tfds(folder).info
    assert (info.name, info.version, info.file_format) == ("everything", "1.0.0", "tfrecord")
    assert info.description == "Made for a test."
    assert info.features["label"].names == ("a", "b", "c")
    assert info.features["labeled"].names == ("sky", "sea")
    assert info.features["image"].names == ()
    assert info.features["parts"]["a"].dtype == "int64"
    assert {name: split.num_examples for name, split in info.splits.items()} == {
        "train": 5,
        "test": 2,
    }


def test_a_loader_with_workers_reads_it(folder):
    dataset = records.tfds(folder, features=["label", "matrix"])
    expected = [dataset[i]["label"].item() for i in range(5)]
    for context in ("fork", "spawn"):
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=2, num_workers=2, multiprocessing_context=context
        )
        batches = list(loader)
        assert torch.cat([batch["label"] for batch in batches]).tolist() == expected
        assert batches[0]["matrix"].shape == (2, 2, 3)


def test_a_batch_of_different_sizes_is_collated(folder):
    batch = records.collate([records.tfds(folder)[i] for i in range(3)])
    assert batch["text"].tolist() == [b"text 0", b"text 1", b"text 2"]
    assert batch["matrix"].shape == (3, 2, 3)
    assert [tuple(image.shape) for image in batch["image"]] == [(3, 4 + i, 5) for i in range(3)]
    assert [len(steps) for steps in batch["nested"]] == [0, 1, 2]


def test_the_home_folder_may_be_written_as_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(records.tfds(f"~/{folder.name}")) == 5


def test_indices_of_any_order(folder):
    dataset = pickle.loads(pickle.dumps(records.tfds(folder, "test+train", features=["text"])))
    texts = [example["text"] for example in dataset.__getitems__([6, 0, -1, 2, 0])]
    everything = [example["text"] for example in dataset]
    assert texts == [everything[i] for i in (6, 0, 6, 2, 0)]
    for index in (7, -8):
        with pytest.raises(IndexError, match="below 7"):
            dataset[index]


ALONE = """
import sys
for name in ("numpy", "tensorflow", "tensorflow_datasets", "google.protobuf", "etils"):
    sys.modules[name] = None
import warnings
warnings.simplefilter("ignore")  # torch says that it lacks NumPy
from tensor_bridge import records
print([sorted(example) for example in records.tfds({folder!r}, "test")])
"""


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_numpy_tensorflow_and_protobuf_are_not_needed(tmp_path, file_format):
    builder = tfds_builders.prepared(tfds_builders.Everything, tmp_path, file_format=file_format)
    said = run_python(ALONE.format(folder=str(builder.data_path))).check()
    assert said.strip() == str([sorted(tfds_builders.everything())] * 2)


def _by_hand(folder, features, *examples):
    """A data set of features that TFDS writes but cannot read, or only in some releases."""
    place = "tensorflow_datasets.core.features"
    (folder / "features.json").write_text(
        json.dumps(
            {
                "type": f"{place}.FeaturesDict",
                "content": {
                    name: {"type": f"{place}.{kind}", "content": content}
                    for name, (kind, content) in features.items()
                },
            }
        )
    )
    split = {"name": "train", "shardLengths": [str(len(examples))]}
    (folder / "dataset_info.json").write_text(json.dumps({"name": "hand", "splits": [split]}))
    with tf.io.TFRecordWriter(str(folder / "hand-train.tfrecord-00000-of-00001")) as writer:
        for example in examples:
            features = tf.train.Features(feature=example)
            writer.write(tf.train.Example(features=features).SerializeToString())


def test_sequences_of_known_length_in_each_other(tmp_path):
    """TFDS also writes lengths of rows for them, but reads the values without the lengths."""
    inner = {
        "type": "tensorflow_datasets.core.features.Sequence",
        "content": {
            "feature": {
                "type": "tensorflow_datasets.core.features.Tensor",
                "content": {"shape": [], "dtype": "int32"},
            },
            "length": None,
        },
    }
    _by_hand(
        tmp_path,
        {"x": ("Sequence", {"feature": inner, "length": 2})},
        {"x/ragged_flat_values": _ints(1, 2, 3), "x/ragged_row_lengths_0": _ints(1, 2)},
    )
    found = records.tfds(tmp_path)[0]["x"]
    assert [row.tolist() for row in found.unbind()] == [[1], [2, 3]]
    assert found.dtype == torch.int32


def test_optional_features_have_the_least_value_where_they_are_missing(tmp_path):
    kinds = {
        "int32": -(2**31),
        "uint8": 0,
        "float32": torch.finfo(torch.float32).min,
        "bool": False,
        "string": b"",
    }
    _by_hand(
        tmp_path,
        {name: ("Tensor", {"shape": [], "dtype": name, "optional": True}) for name in kinds},
        {},
        {"int32": _ints(7)},
    )
    missing, given = records.tfds(tmp_path)
    for name, value in kinds.items():
        found = missing[name]
        assert (found if isinstance(found, bytes) else found.item()) == value
    assert given["int32"] == 7


# ---- what is refused -----------------------------------------------------------------------------


def test_a_feature_that_there_is_not_is_refused(folder):
    with pytest.raises(InvalidOptionError, match="there is no feature 'imge'"):
        records.tfds(folder, features=["imge"])
    with pytest.raises(InvalidOptionError, match="at least one"):
        records.tfds(folder, features=[])
    with pytest.raises(InvalidOptionError, match="leave one out"):
        records.tfds(folder, features=["image"], as_supervised=True)


def test_folders_of_no_data_set_are_refused(folder, copied):
    with pytest.raises(RecordNotFoundError, match=r"one version.*everything/1\.0\.0"):
        records.tfds(folder.parent.parent)
    with pytest.raises(RecordNotFoundError, match="one version"):
        records.tfds(copied / "none")
    (copied / "features.json").unlink()
    with pytest.raises(RecordNotFoundError, match=r"features\.json.*before TFDS 4"):
        records.tfds(copied)


def test_the_remedy_for_a_folder_without_features_works(folder, copied):
    expected = [example["text"] for example in records.tfds(folder)]
    (copied / "features.json").unlink()
    with pytest.raises(RecordNotFoundError) as caught:
        records.tfds(copied)
    remedy = str(caught.value).rpartition("code: ")[2].replace(", ...", "")
    exec(remedy, {"tfds": tfds_builders.tfds, "folder": copied})
    assert [example["text"] for example in records.tfds(copied)] == expected


@pytest.mark.parametrize("file_format", ["riegeli", "parquet", "bagz"])
def test_other_formats_are_refused_by_name(copied, file_format):
    info = copied / "dataset_info.json"
    info.write_text(info.read_text().replace('"tfrecord"', f'"{file_format}"'))
    with pytest.raises(RecordError, match=f"tfrecord or array_record, got '{file_format}'"):
        records.tfds(copied)


def test_a_feature_of_another_class_is_refused_by_name(copied):
    features = copied / "features.json"
    text = features.read_text()
    features.write_text(text.replace("tensorflow_datasets.core.features.audio_feature", "mine"))
    with pytest.raises(RecordError, match=r"feature 'audio': mine\.Audio is not read"):
        records.tfds(copied)
    assert records.tfds(copied, features=["label"])[0]["label"].dtype == torch.int64


def test_damage_is_named_with_file_and_example(copied):
    (shard,) = copied.glob("*-train.*")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(RecordError, match="everything-train") as caught:
        list(records.tfds(copied))
    assert caught.value.path == str(shard)
    shard.unlink()
    with pytest.raises(RecordNotFoundError, match="everything-train"):
        records.tfds(copied)[0]


def test_another_number_of_records_is_refused(copied):
    (shard,) = copied.glob("*-test.*")
    (other,) = copied.glob("*-train.*")
    shutil.copy(shard, other)
    with pytest.raises(RecordError, match=r"expected 5 records, as dataset_info\.json says, got 2"):
        records.tfds(copied)[0]


def _written(copied, **features):
    """Changes the only record of the data set's split "test"."""
    (shard,) = copied.glob("*-test.*")
    serialized = next(iter(tf.data.TFRecordDataset(str(shard)))).numpy()
    message = tf.train.Example.FromString(serialized)
    for name, feature in features.items():
        message.features.feature[name.replace("__", "/")].CopyFrom(feature)
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for _ in range(2):
            writer.write(message.SerializeToString())


def _ints(*values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _strings(*values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"parts__b__ragged_row_lengths_0": _ints(-1)}, "negative"),
        ({"parts__b__ragged_row_lengths_0": _ints(7)}, "divide the values"),
        ({"deep__ragged_row_lengths_1": _ints(2)}, "divide the values"),
        ({"dynamic__shape": _ints(-1, 3, 2)}, "expected a shape"),
        ({"dynamic__shape": _ints(2**40, 3, 2)}, "dynamic.*expected int32 of"),
        ({"packed": _strings(b"none")}, "zlib unpacks"),
        ({"raw": _strings(b"12345")}, "got 5 bytes"),
        ({"image": _strings(b"none")}, "feature 'image': expected an image"),
        ({"label": _strings(b"a")}, "label"),
        ({"nested__x": _ints()}, "nested/x"),
    ],
)
def test_examples_that_contradict_themselves_are_refused(copied, changed, message):
    _written(copied, **changed)
    with pytest.raises(RecordError, match=message) as caught:
        records.tfds(copied, "test")[0]
    assert "example 0" in str(caught.value)


def test_little_that_unpacks_to_much_is_refused(copied):
    _written(copied, zipped=_strings(zlib.compress(bytes(1 << 26))))
    with pytest.raises(RecordError, match="got 9 bytes"):
        records.tfds(copied, "test", features=["zipped"])[0]


def test_damaged_examples_are_read_or_refused(copied):
    """The checksums are right, as if the examples had been written with these errors."""
    (shard,) = copied.glob("*-train.*")
    good = [record.numpy() for record in tf.data.TFRecordDataset(str(shard))]
    draw = random.Random(5)
    damaged = []
    for i in range(300):
        data = bytearray(good[i % len(good)])
        for _ in range(draw.randint(1, 5)):
            at = draw.randrange(len(data))
            if draw.random() < 0.7:
                data[at] = draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)])
            else:
                del data[at : at + draw.randint(1, 8)]
        damaged.append(bytes(data))
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for record in damaged:
            writer.write(record)
    info = copied / "dataset_info.json"
    info.write_text(info.read_text().replace('"5"', f'"{len(damaged)}"'))
    dataset = records.tfds(copied)
    refused = 0
    for i in range(len(dataset)):
        try:
            list(dataset[i]["nested"])
        except TensorBridgeError:
            refused += 1
    assert 50 < refused < len(damaged)


# ---- ArrayRecord ---------------------------------------------------------------------------------


def test_array_record_is_read(tmp_path):
    builder = tfds_builders.prepared(
        tfds_builders.Numbers, tmp_path, shards=3, file_format="array_record"
    )
    ours = records.tfds(builder.data_path, "train[10:]")
    assert ours.info.file_format == "array_record"
    source = builder.as_data_source(split="train[10:]")
    assert [example["x"].item() for example in ours] == [int(e["x"]) for e in source]
    loader = torch.utils.data.DataLoader(  # forks after the files were opened
        ours, batch_size=50, num_workers=2, multiprocessing_context="fork"
    )
    found = [x for batch in loader for x in batch["x"].tolist()]
    assert found == [example["x"].item() for example in ours]
    (shard,) = builder.data_path.glob("*train*-00000-*")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(RecordError, match="00000-of-00003"):
        list(records.tfds(builder.data_path))
    shard.unlink()
    with pytest.raises(RecordNotFoundError, match="00000-of-00003"):
        records.tfds(builder.data_path)[0]


def test_array_record_needs_its_package(copied, monkeypatch):
    info = copied / "dataset_info.json"
    info.write_text(info.read_text().replace('"tfrecord"', '"array_record"'))
    monkeypatch.setitem(sys.modules, "array_record.python", None)
    with pytest.raises(FrameworkError, match="pip install array_record"):
        records.tfds(copied)
