"""Episodes of RLDS and windows over their steps, compared with TFDS."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import tfds_builders
import torch

from tensor_bridge import records
from tensor_bridge.data import _accelerate
from tensor_bridge.errors import InvalidOptionError, ResumeError
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


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.parametrize("options", [{}, {"batch_size": 2}])
def test_whole_episodes_cross_from_a_worker(folder, context, options):
    loader = torch.utils.data.DataLoader(
        records.rlds(folder, **options),
        batch_size=None,
        num_workers=1,
        multiprocessing_context=context,
        collate_fn=copy.copy,  # as it is
    )
    found = [steps for element in loader for steps in _listed(element["steps"])]
    assert all(isinstance(steps, records.Steps) for steps in found)
    assert [len(steps) for steps in found] == LENGTHS
    for steps, expected in zip(found, records.rlds(folder), strict=True):
        assert steps[1]["observation"]["frame"].equal(expected["steps"][1]["observation"]["frame"])
        assert steps[1:][0]["text"] == b"step 1"


def _listed(value):
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize("size", [1, 3, 4, 100])
@pytest.mark.parametrize("drop_last", [False, True])
def test_a_batch_is_what_collate_makes_of_its_windows(folder, size, drop_last):
    windows = list(records.rlds(folder, window=2))
    parts = [windows[begin : begin + size] for begin in range(0, len(windows), size)]
    expected = [records.collate(part) for part in parts if len(part) == size or not drop_last]
    found = list(records.rlds(folder, window=2, batch_size=size, drop_last=drop_last))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        ours, theirs = a["steps"], b["steps"]
        assert ours["observation"]["frame"].equal(theirs["observation"]["frame"])
        assert ours["observation"]["frame"].shape[1:] == (2, 3, 2, 3)
        assert ours["text"].tolist() == theirs["text"].tolist()
        assert a["episode_id"].equal(b["episode_id"])


def test_batches_in_workers_have_all_windows(folder):
    expected = sorted(map(tuple, rewards(records.rlds(folder, window=2))))
    for context in ("fork", "spawn"):
        loader = torch.utils.data.DataLoader(
            records.rlds(folder, window=2, batch_size=4),
            batch_size=None,
            num_workers=2,
            multiprocessing_context=context,
        )
        batches = list(loader)
        found = [tuple(row) for batch in batches for row in batch["steps"]["reward"].tolist()]
        assert sorted(found) == expected
        assert batches[0]["steps"]["text"].tolist()[0] == [b"step 0", b"step 1"]


def test_ranks_have_episodes_of_their_own_when_asked(folder):
    found = [
        [episode["episode_id"].item() for episode in records.rlds(folder, shard=(rank, 3))]
        for rank in range(3)
    ]
    assert found == [[0, 3], [1], [2]]


def test_what_accelerate_would_share_out_again_is_refused(folder, monkeypatch):
    monkeypatch.setattr(_accelerate, "shares_out", lambda: True)
    assert len(list(records.rlds(folder))) == 4
    for use in (iter, pickle.dumps):
        with pytest.raises(InvalidOptionError, match="reach no rank"):
            use(records.rlds(folder, shard=(0, 2)))


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


VARIANTS = [
    {"window": 2},
    {"window": 3, "stride": 2, "short": "keep", "shuffle": True, "seed": 3},
    {"features": ["steps/reward"], "shuffle": True},
    {"window": 2, "shard": (1, 2)},
    {"window": 2, "batch_size": 3, "shuffle": True},
    {"window": 2, "batch_size": 4, "drop_last": True},
]


def seen(element):
    """The rewards of a window or an episode."""
    steps = element["steps"]
    return (steps.stacked() if isinstance(steps, records.Steps) else steps)["reward"].tolist()


@pytest.mark.parametrize("options", VARIANTS)
def test_a_state_is_exact_at_every_element(folder, options):
    dataset = records.rlds(folder, **options)
    dataset.set_epoch(2)
    whole = [seen(element) for element in dataset]
    for stop in range(len(whole) + 1):
        elements = iter(dataset)
        assert [seen(next(elements)) for _ in range(stop)] == whole[:stop]
        state = json.loads(json.dumps(dataset.state_dict()))
        other = records.rlds(folder, **options)
        other.load_state_dict(state)
        assert other.state_dict() == state
        assert [seen(element) for element in other] == whole[stop:]
        assert [seen(element) for element in other] == [
            seen(e) for e in records.rlds(folder, **options)
        ]


def test_a_resumed_pass_decodes_nothing_before_its_position(folder, decoded, parsed):
    options = {"window": 2, "features": ["steps/observation/frame"]}
    dataset = records.rlds(folder, **options)
    elements = iter(dataset)
    for _ in range(2 + 4 + 3):  # three windows of the third episode
        next(elements)
    other = records.rlds(folder, **options)
    other.load_state_dict(dataset.state_dict())
    decoded.clear()
    parsed.clear()
    next(iter(other))
    assert (len(decoded), len(parsed)) == (2, 1)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata 0.11, torch 2.13
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_dataloader_resumes_exactly(folder, workers):
    pytest.importorskip("torchdata")
    from torchdata.stateful_dataloader import StatefulDataLoader

    def make():
        dataset = records.rlds(folder, window=2, shuffle=True, seed=4, features=["steps/reward"])
        return StatefulDataLoader(dataset, batch_size=3, num_workers=workers)

    def rows(batches):
        return [batch["steps"]["reward"].tolist() for batch in batches]

    whole = rows(make())
    for stop in (1, 4):
        first = make()
        elements = iter(first)
        taken = rows(next(elements) for _ in range(stop))
        state = first.state_dict()
        del elements
        second = make()
        second.load_state_dict(state)
        assert taken + rows(second) == whole


def test_workers_that_persist_see_the_epoch(folder):
    dataset = records.rlds(folder, window=2, shuffle=True, features=["steps/reward"])
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=1, persistent_workers=True
    )
    for epoch in (0, 1, 2):
        dataset.set_epoch(epoch)
        assert [seen(element) for element in loader] == [seen(element) for element in dataset]


def test_a_state_of_something_else_is_refused(folder):
    dataset = records.rlds(folder, window=2)
    state = dataset.state_dict()
    for other in (records.rlds(folder, window=3), records.rlds(folder, window=2, seed=1)):
        with pytest.raises(ResumeError, match="other keywords"):
            other.load_state_dict(state)
    with pytest.raises(ResumeError, match="expected a state"):
        dataset.load_state_dict({})
    dataset.load_state_dict({**state, "part": [0, 2]})
    with pytest.raises(ResumeError, match="as many workers"):
        iter(dataset)
    with pytest.raises(InvalidOptionError, match="epoch"):
        dataset.set_epoch(-1)


def test_the_length_is_that_of_episodes_and_unknown_for_windows(folder):
    assert len(records.rlds(folder)) == 4
    assert [len(records.rlds(folder, shard=(rank, 3))) for rank in range(3)] == [2, 1, 1]
    with pytest.raises(TypeError, match="number of windows"):
        len(records.rlds(folder, window=2))
    assert len(list(records.rlds(folder, window=2))) == sum(length - 1 for length in LENGTHS)


@pytest.mark.parametrize(
    "options",
    [
        {"window": 0},
        {"window": 2.0},
        {"window": 2, "stride": 0},
        {"short": "pad"},
        {"window": 2, "batch_size": 0},
        {"window": 2, "on_error": "ignore"},
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
