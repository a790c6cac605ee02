"""The examples that ``split=`` selects, compared with TFDS."""

from __future__ import annotations

import random

import pytest
import tfds_builders
from tfds_builders import tfds

from tensor_bridge import records
from tensor_bridge.errors import InvalidOptionError, RecordError
from tensor_bridge.records._tfds_splits import Split, select

SPECS = [
    *("train", "test", "more-data", "all", "train+test", "test + train", "train+train[:3]"),
    *("train[:10%]", "train[10%:]", "train[25%:75%]", "train[-10%:]", "train[:-99.5%]"),
    *("train[33.3%:66.6%]", "test[12%:13%]", "train[0%:0%]", "train[:100%]", "more-data[50%:]"),
    *("train[100:]", "train[:100]", "train[3:17]", "train[-5:]", "train[:-5]", "train[5:3]"),
    *("train[1_0:2_0]", "train[10:20%]", "train[0:107]", "train[107:]", "train[-107:]"),
    *("train[0shard]", "train[2shard]", "train[1shard:]", "train[:2shard]", "train[-1shard:]"),
    *("train[:-1shard]", "train[0shard:0shard]", "train[3shard]", "train[-2shard:-1shard]"),
    # refused by both
    *("", "train[", "train[]", "train[:]", "train[5]", "train[5%]", "train[1:2:3]", "valid"),
    *("train[:101%]", "train[-101%:]", "train[108:]", "train[:200]", "train[1.5:2]", "train[a:b]"),
    *("all[:50%]", "train++test", "train[:5x]", "train test", "train[--1:]", "train[1shard:x]"),
]


def ours(spec, splits):
    try:
        return [(r.file, r.begin, r.end - r.begin) for r in select(spec, splits)]
    except InvalidOptionError:
        return "refused"


def theirs(spec, splits):
    try:
        selected = splits[spec]
        found = selected.file_instructions
    except (ValueError, NotImplementedError, KeyError, TypeError):
        return "refused"
    # A slice that ends before it begins has a negative count, for which tf.data takes everything.
    return [(i.filename.rpartition("/")[2], i.skip, i.take) for i in found if i.take > 0]


def both(lengths_by_name):
    template = tfds.core.ShardedFileTemplate(
        data_dir="/data", dataset_name="numbers", filetype_suffix="tfrecord"
    )
    judge = tfds.core.splits.SplitDict(
        [
            tfds.core.SplitInfo(
                name=name,
                shard_lengths=lengths,
                num_bytes=0,
                filename_template=template.replace(split=name),
            )
            for name, lengths in lengths_by_name.items()
        ]
    )
    mine = {
        name: Split(name, tuple(lengths), 0, tuple(judge[name].filenames))
        for name, lengths in lengths_by_name.items()
    }
    return mine, judge


@pytest.mark.parametrize("spec", SPECS)
def test_a_specification_selects_what_tfds_selects(spec):
    mine, judge = both({"train": [27, 0, 40, 40], "test": [12], "more-data": [1, 2]})
    assert ours(spec, mine) == theirs(spec, judge)


def test_some_specifications_are_refused_and_most_are_not():
    mine, _ = both({"train": [27, 0, 40, 40], "test": [12], "more-data": [1, 2]})
    refused = [spec for spec in SPECS if ours(spec, mine) == "refused"]
    assert 15 <= len(refused) <= 25


def test_drawn_percents_round_as_tfds_rounds():
    draw = random.Random(1)
    for _ in range(500):
        lengths = [draw.randint(0, 60) for _ in range(draw.randint(1, 4))]
        mine, judge = both({"train": [*lengths, 1]})
        # TFDS changes slices that end before they begin.
        begin = draw.choice([0, draw.randint(1, 45), draw.uniform(1, 45)])
        end = draw.choice([0, draw.randint(55, 100), draw.uniform(55, 100)])
        low, high = (f"{x - 100 * draw.randint(0, 1):.2f}%" if x else "" for x in (begin, end))
        spec = f"train[{low}:{high}]" if low or high else "train"
        assert ours(spec, mine) == theirs(spec, judge), (spec, judge)


# ---- files ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    return tfds_builders.prepared(
        tfds_builders.Numbers, tmp_path_factory.mktemp("numbers"), shards=3
    )


@pytest.mark.parametrize(
    "spec", ["train", "train[13%:77%]", "test+more-data", "all", "train[1shard]+train[:2]"]
)
def test_examples_come_in_the_order_of_the_shards(builder, spec):
    found = [example["x"].item() for example in records.tfds(builder.data_path, spec)]
    expected = [int(e["x"]) for e in tfds_builders.in_order(builder, spec)]
    assert found == expected
    assert len(found) == len(records.tfds(builder.data_path, spec))


def test_info_counts_each_shard(builder):
    splits = records.tfds(builder.data_path).info.splits
    for name, split in splits.items():
        judge = builder.info.splits[name]
        assert list(split.shard_lengths) == list(judge.shard_lengths)
        assert list(split.files) == judge.filenames
        assert split.num_bytes == judge.num_bytes
        assert split.num_examples == judge.num_examples


def test_a_split_that_there_is_not_is_named_with_those_that_are(builder):
    with pytest.raises(InvalidOptionError, match=r"no split 'valid'; there are: train, test"):
        records.tfds(builder.data_path, "valid")
    with pytest.raises(InvalidOptionError, match="got an int"):
        records.tfds(builder.data_path, 3)


def _with_template(builder, tmp_path, template):
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("features.json", "dataset_info.json"):
        text = (builder.data_path / name).read_text()
        text = text.replace("{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}", template)
        (folder / name).write_text(text)
    return folder


def test_other_names_of_files(builder, tmp_path):
    folder = _with_template(builder, tmp_path, "{SPLIT}_{SHARD_INDEX}_{NUM_SHARDS}.{FILEFORMAT}")
    split = records.tfds(folder).info.splits["test"]
    assert split.files[0] == "test_00000_00003.tfrecord"


@pytest.mark.parametrize(
    "template",
    ["/etc/passwd", "../{SPLIT}", "a/../../b", "{SPLIT.__class__}", "{OTHER}", "{SPLIT", "{0}"],
)
def test_names_of_files_stay_in_the_folder(builder, tmp_path, template):
    with pytest.raises(RecordError, match=r"names of files|filepathTemplate"):
        records.tfds(_with_template(builder, tmp_path, template))
