"""Episodes of RLDS and windows over their steps, compared with TFDS."""

from __future__ import annotations

import pytest
import tfds_builders
import torch

from tensor_bridge import records
from tensor_bridge.errors import InvalidOptionError
from tensor_bridge.records import _images
from tensor_bridge.records._spec_parser import SpecParser

LENGTHS = [3, 5, 7, 9]


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    return tfds_builders.prepared(tfds_builders.Episodes, tmp_path_factory.mktemp("rlds"), shards=2)


@pytest.fixture(scope="module")
def folder(builder):
    return builder.data_path


@pytest.fixture
def decoded(monkeypatch):
    """Counts the images that are decoded."""
    found = []
    decode = _images._decode
    monkeypatch.setattr(_images, "_decode", lambda *args: found.append(1) or decode(*args))
    return found


@pytest.fixture
def parsed(monkeypatch):
    """Counts the records that are parsed."""
    found = []
    parse = SpecParser.parse_one
    monkeypatch.setattr(
        SpecParser, "parse_one", lambda self, batch: found.append(1) or parse(self, batch)
    )
    return found


def rewards(elements):
    return [element["steps"]["reward"].tolist() for element in elements]


def test_episodes_have_the_values_that_tfds_reads(builder, folder):
    ours = list(records.rlds(folder))
    theirs = list(tfds_builders.in_order(builder, "train"))
    assert [len(episode["steps"]) for episode in ours] == LENGTHS
    for a, b in zip(ours, theirs, strict=True):
        assert tfds_builders.differences(a, b) == []


def test_windows_have_the_values_that_tfds_batches(builder, folder):
    expected = []
    for episode in tfds_builders.in_order(builder, "train"):
        windows = episode["steps"].batch(4, drop_remainder=True)
        expected += [{**episode, "steps": steps} for steps in windows]
    ours = list(records.rlds(folder, window=4, stride=4))
    assert len(ours) == len(expected) == 4
    for a, b in zip(ours, expected, strict=True):
        assert a["steps"]["observation"]["frame"].shape == (4, 3, 2, 3)
        assert tfds_builders.differences(a, b) == []


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (3, 1), (3, 2), (2, 5), (9, 1), (10, 1)])
def test_windows_begin_at_each_stride_and_are_whole(folder, window, stride):
    expected = [
        [step / 2 for step in range(begin, begin + window)]
        for length in LENGTHS
        for begin in range(0, length, stride)
        if begin + window <= length
    ]
    assert rewards(records.rlds(folder, window=window, stride=stride)) == expected


def test_short_episodes_may_be_kept(folder):
    kept = rewards(records.rlds(folder, window=6, stride=6, short="keep"))
    assert [len(window) for window in kept] == [3, 5, 6, 6]
    assert [len(w) for w in rewards(records.rlds(folder, window=6, stride=6))] == [6, 6]


def test_a_step_of_several_windows_is_decoded_once_and_its_episode_parsed_once(
    folder, decoded, parsed
):
    windows = list(records.rlds(folder, window=3))
    assert len(windows) == sum(length - 2 for length in LENGTHS)
    assert len(decoded) == sum(LENGTHS)
    assert len(parsed) == len(LENGTHS)


def test_images_of_steps_outside_the_windows_are_not_decoded(folder, decoded):
    windows = list(records.rlds(folder, "train[3:]", window=2, stride=5))
    assert len(windows) == 2
    assert len(decoded) == 4


def test_a_slice_of_steps_decodes_that_slice(folder, decoded, parsed):
    episode = records.rlds(folder).episodes[3]
    assert episode["steps"][2:5].stacked()["reward"].tolist() == [1, 1.5, 2]
    assert len(decoded) == 3
    assert len(parsed) == 1


def test_features_that_are_not_asked_for_are_not_decoded(folder, decoded):
    windows = list(records.rlds(folder, window=2, features=["steps/action", "steps/text"]))
    assert set(windows[0]) == {"steps"}
    assert windows[0]["steps"]["text"].tolist() == [b"step 0", b"step 1"]
    assert not decoded


def test_workers_have_episodes_of_their_own(folder):
    expected = sorted(map(tuple, rewards(records.rlds(folder, window=2))))
    for context in ("fork", "spawn"):
        loader = torch.utils.data.DataLoader(
            records.rlds(folder, window=2, features=["steps/reward"]),
            batch_size=4,
            num_workers=2,
            multiprocessing_context=context,
        )
        found = [tuple(row) for batch in loader for row in batch["steps"]["reward"].tolist()]
        assert sorted(found) == expected


def test_ranks_have_episodes_of_their_own_when_asked(folder):
    found = [
        [episode["episode_id"].item() for episode in records.rlds(folder, shard=(rank, 3))]
        for rank in range(3)
    ]
    assert found == [[0, 3], [1], [2]]


def test_the_order_is_drawn_by_seed_and_epoch(folder):
    def order(dataset):
        return [episode["episode_id"].item() for episode in dataset]

    dataset = records.rlds(folder, shuffle=True, seed=1, features=["episode_id", "steps/reward"])
    first = order(dataset)
    assert order(dataset) == first
    orders = {tuple(first)}
    for epoch in range(1, 8):
        dataset.set_epoch(epoch)
        orders.add(tuple(order(dataset)))
    assert len(orders) > 2
    assert {tuple(sorted(each)) for each in orders} == {(0, 1, 2, 3)}


@pytest.mark.parametrize(
    "options",
    [
        {"window": 0},
        {"window": 2.0},
        {"window": 2, "stride": 0},
        {"short": "pad"},
        {"shard": (2, 2)},
        {"features": ["episode_id"]},
    ],
)
def test_options_that_mean_nothing_are_refused(folder, options):
    with pytest.raises(InvalidOptionError, match="expected"):
        records.rlds(folder, **options)


def test_a_data_set_without_steps_is_refused(tmp_path):
    numbers = tfds_builders.prepared(tfds_builders.Numbers, tmp_path)
    with pytest.raises(InvalidOptionError, match='expected a Dataset "steps"'):
        records.rlds(numbers.data_path)
