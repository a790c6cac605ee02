"""Positions: delivered elements are not delivered again, and no element is left out."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import torch
from fresh import run_forked
from sharing import owners

from tensor_bridge.data import ResumeError, TorchDataset, loader


def values(elements: Any) -> list[Any]:
    return [element.tolist() for element in elements]


def saved_and_loaded(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def seeded() -> tf.data.Dataset:
    return tf.data.Dataset.range(40).shuffle(16, seed=5).map(lambda i: i * 2).batch(3).prefetch(4)


def wait_for(dataset: TorchDataset, queued: int) -> None:
    """Waits until this many elements are queued."""
    deadline = time.monotonic() + 60
    while dataset.stats().queued < queued and time.monotonic() < deadline:
        time.sleep(0.001)
    assert dataset.stats().queued == queued


PREFETCH = pytest.mark.parametrize("prefetch", [0, 1, 5])


@PREFETCH
@pytest.mark.parametrize("count", [0, 1, 6, 13, 14])
def test_the_rest_is_what_was_not_delivered(prefetch: int, count: int) -> None:
    straight = TorchDataset(seeded())
    epochs = [values(straight) for _ in range(3)]

    dataset = TorchDataset(seeded(), prefetch=prefetch)
    values(dataset)
    elements = iter(dataset)
    first = [next(elements).tolist() for _ in range(count)]
    time.sleep(0.02)  # the queue may fill
    state = saved_and_loaded(dataset.state_dict())
    # Reading the state does not change the pass.
    assert first + values(elements) == epochs[1]

    resumed = TorchDataset(seeded(), prefetch=prefetch)
    resumed.load_state_dict(state)
    assert first + values(resumed) == epochs[1]
    assert values(resumed) == epochs[2]


def test_undelivered_elements_are_part_of_the_state() -> None:
    dataset = TorchDataset(tf.data.Dataset.range(10), prefetch=4)
    elements = iter(dataset)
    assert next(elements) == 0
    wait_for(dataset, 4)
    state = dataset.state_dict()
    assert state["delivered"] == 1
    assert [flat[0].item() for flat in state["pending"]] == [1, 2, 3, 4]
    # The saved elements have separate memory.
    following = next(elements)
    following.fill_(99)
    assert state["pending"][0][0] == 1
    again = dataset.state_dict()
    assert [flat[0].item() for flat in again["pending"]][:3] == [2, 3, 4]
    resumed = TorchDataset(tf.data.Dataset.range(10))
    resumed.load_state_dict(again)
    assert values(resumed) == list(range(2, 10))
    assert values(elements) == list(range(2, 10))


def test_a_state_can_be_loaded_twice_and_saved_before_it_is_used() -> None:
    dataset = TorchDataset(seeded(), prefetch=3)
    elements = iter(dataset)
    next(elements)
    state = dataset.state_dict()
    rest = values(elements)
    for _ in range(2):
        resumed = TorchDataset(seeded())
        resumed.load_state_dict(state)
        assert resumed.state_dict()["digest"] == state["digest"]
        element = next(iter(resumed))
        element.zero_()
        second = TorchDataset(seeded())
        second.load_state_dict(resumed.state_dict())
        assert values(second) == rest[1:]


def test_between_epochs_the_state_is_the_start_of_the_next() -> None:
    straight = TorchDataset(seeded())
    epochs = [values(straight) for _ in range(3)]
    dataset = TorchDataset(seeded())
    fresh = dataset.state_dict()
    values(dataset)
    values(dataset)
    between = saved_and_loaded(dataset.state_dict())
    resumed = TorchDataset(seeded())
    resumed.load_state_dict(between)
    assert values(resumed) == epochs[2]
    resumed = TorchDataset(seeded())
    resumed.load_state_dict(fresh)
    assert values(resumed) == epochs[0]


def composites() -> tf.data.Dataset:
    return tf.data.Dataset.range(8).map(
        lambda i: {
            "s": tf.strings.as_string([i, i]),
            "r": tf.ragged.range(tf.stack([i, 1])),
            "p": tf.sparse.from_dense(tf.stack([i, 0, 1])),
        }
    )


@pytest.mark.parametrize("strings", ["tensor", "list"])
def test_strings_ragged_and_sparse_values_wait_in_the_state_too(strings: Any) -> None:
    def plain(element: Any) -> Any:
        s = element["s"]
        rows = [row.tolist() for row in element["r"].unbind()]
        return s if strings == "list" else s.tolist(), rows, element["p"].to_dense().tolist()

    expected = [plain(element) for element in TorchDataset(composites(), strings=strings)]
    dataset = TorchDataset(composites(), strings=strings, prefetch=3)
    elements = iter(dataset)
    next(elements)
    wait_for(dataset, 3)
    state = saved_and_loaded(dataset.state_dict())
    assert len(state["pending"]) > 0
    del elements
    resumed = TorchDataset(composites(), strings=strings)
    resumed.load_state_dict(state)
    assert [plain(element) for element in resumed] == expected[1:]


def test_datasets_inside_elements_are_made_on_demand_so_that_states_are_exact() -> None:
    def make() -> TorchDataset:
        return TorchDataset(tf.data.Dataset.range(9).window(3), prefetch=4)

    dataset = make()
    elements = iter(dataset)
    assert list(next(elements)) == [0, 1, 2]
    state = dataset.state_dict()
    assert state["pending"] == []
    resumed = make()
    resumed.load_state_dict(state)
    assert [list(part) for part in resumed] == [[3, 4, 5], [6, 7, 8]]


KILLED = """
import json, os, signal, sys
from tensor_bridge.data import TorchDataset
def make():
    ds = tf.data.Dataset.range(1000).shuffle(100, seed=3)
    return TorchDataset(ds.map(tf.negative).batch(4), prefetch=4)
"""


def test_a_killed_process_goes_on_where_it_was(tmp_path: Path) -> None:
    state, seen = tmp_path / "state", tmp_path / "seen"
    done = run_forked(
        KILLED
        + f"""
dataset = make()
list(dataset)
for number, batch in enumerate(dataset):
    with open({str(seen)!r}, "a") as file:
        print(json.dumps(batch.tolist()), file=file, flush=True)
    if number == 57:
        torch.save(dataset.state_dict(), {str(state)!r})
    if number == 60:
        os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    assert done.code in (-9, 137)
    before = [json.loads(line) for line in seen.read_text().splitlines()][:58]
    rest = run_forked(
        KILLED
        + f"""
dataset = make()
dataset.load_state_dict(torch.load({str(state)!r}, weights_only=True))
print(json.dumps([[batch.tolist() for batch in dataset] for _ in range(2)]))
"""
    ).check()
    straight = run_forked(
        KILLED
        + """
dataset = make()
print(json.dumps([[batch.tolist() for batch in dataset] for _ in range(3)]))
"""
    ).check()
    _, second, third = json.loads(straight)
    assert [before + json.loads(rest)[0], json.loads(rest)[1]] == [second, third]


def random_map() -> tf.data.Dataset:
    return tf.data.Dataset.range(20).map(lambda i: (i, tf.random.uniform([])))


def python_map() -> tf.data.Dataset:
    return tf.data.Dataset.range(20).map(lambda i: (i, tf.py_function(lambda j: j, [i], tf.int64)))


VARIABLE = tf.Variable(1.0)


def variable_map() -> tf.data.Dataset:
    return tf.data.Dataset.range(20).map(lambda i: (i, VARIABLE + 1.0))


def generator() -> tf.data.Dataset:
    spec = (tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.int64))
    return tf.data.Dataset.from_generator(
        lambda: ((i, i) for i in range(20)), output_signature=spec
    )


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (random_map, "RandomUniform"),
        (python_map, "EagerPyFunc"),
        (variable_map, "ReadVariableOp"),
        (generator, "PyFunc"),
    ],
)
def test_exact_is_refused_at_once_and_names_the_operation(make: Any, name: str) -> None:
    for kind in (TorchDataset, loader):
        with pytest.raises(ResumeError, match=rf"\b{name}\b.*resume='position'"):
            kind(make(), resume="exact")


@pytest.mark.parametrize("make", [random_map, python_map, variable_map, generator])
def test_auto_saves_what_can_be_saved_and_says_once_what_is_lost(make: Any) -> None:
    dataset = TorchDataset(make())
    elements = iter(dataset)
    for _ in range(5):
        next(elements)
    lost = r"how many elements.*PyFunc" if make is generator else "position.* starts anew"
    with pytest.warns(UserWarning, match=lost):
        first = saved_and_loaded(dataset.state_dict())
    next(elements)
    second = saved_and_loaded(dataset.state_dict())  # no warning: an error in these tests
    assert first["resume"] == second["resume"] == ("replay" if make is generator else "position")
    # Reading the state does not disturb the pass.
    assert [int(i) for i, _ in elements] == list(range(6, 20))
    for state, position in ((first, 5), (second, 6)):
        resumed = TorchDataset(make())
        resumed.load_state_dict(state)
        assert [int(i) for i, _ in resumed] == list(range(position, 20))


def test_auto_is_exact_where_tensorflow_can() -> None:
    dataset = TorchDataset(tf.data.Dataset.range(9).shuffle(9, seed=1))
    elements = iter(dataset)
    first = [int(next(elements)) for _ in range(4)]
    state = saved_and_loaded(dataset.state_dict())
    assert state["resume"] == "exact"
    resumed = TorchDataset(tf.data.Dataset.range(9).shuffle(9, seed=1))
    resumed.load_state_dict(state)
    assert first + [int(i) for i in resumed] == values(
        TorchDataset(tf.data.Dataset.range(9).shuffle(9, seed=1))
    )


@pytest.mark.parametrize("make", [random_map, python_map, variable_map])
def test_position_keeps_the_position_exact(make: Any) -> None:
    dataset = TorchDataset(make(), resume="position")
    elements = iter(dataset)
    for _ in range(5):
        next(elements)
    state = saved_and_loaded(dataset.state_dict())
    resumed = TorchDataset(make(), resume="position")
    resumed.load_state_dict(state)
    assert [int(i) for i, _ in resumed] == list(range(5, 20))


def test_generators_are_replayed_by_count() -> None:
    # "exact" names the Python function, the first obstacle.
    for resume, advice in (("exact", "PyFunc.*resume='replay'"), ("position", "resume='replay'")):
        with pytest.raises(ResumeError, match=advice):
            TorchDataset(generator(), resume=resume)
    dataset = TorchDataset(generator(), resume="replay", prefetch=4)
    elements = iter(dataset)
    for _ in range(7):
        next(elements)
    state = saved_and_loaded(dataset.state_dict())
    assert state["iterator"] is None
    resumed = TorchDataset(generator(), resume="replay")
    resumed.load_state_dict(state)
    assert [int(i) for i, _ in resumed] == list(range(7, 20))
    assert [int(i) for i, _ in resumed] == list(range(20))


def test_a_replay_that_comes_to_the_end_says_so() -> None:
    dataset = TorchDataset(tf.data.Dataset.range(9), resume="replay")
    elements = iter(dataset)
    for _ in range(8):
        next(elements)
    state = dataset.state_dict()
    shorter = TorchDataset(tf.data.Dataset.range(3), resume="replay")
    shorter.load_state_dict(state)
    with pytest.raises(ResumeError, match="ended after 3"):
        iter(shorter)


def test_states_of_other_datasets_are_refused() -> None:
    state = TorchDataset(tf.data.Dataset.range(3)).state_dict()
    for other in (
        TorchDataset(tf.data.Dataset.range(3).batch(2)),
        TorchDataset(tf.data.Dataset.range(3), resume="replay"),
        TorchDataset(tf.data.Dataset.range(3), rank=0, world_size=2),
    ):
        with pytest.raises(ResumeError, match="another dataset"):
            other.load_state_dict(state)
    for value in ({}, {**state, "version": 99}, [1]):
        with pytest.raises(ResumeError, match="version"):
            TorchDataset(tf.data.Dataset.range(3)).load_state_dict(value)


def test_a_state_of_another_pipeline_with_the_same_elements_is_refused() -> None:
    dataset = TorchDataset(tf.data.Dataset.range(9).map(lambda i: i + 1))
    next(iter(dataset))
    state = dataset.state_dict()
    other = TorchDataset(tf.data.Dataset.range(9).batch(3).unbatch().skip(2).repeat(2))
    other.load_state_dict(state)
    with owners(), pytest.raises(ResumeError, match="does not fit"):
        iter(other)


def test_failures_that_were_made_ahead_are_part_of_the_state() -> None:
    def make() -> TorchDataset:
        words = tf.data.Dataset.from_tensor_slices(["0", "1", "x", "3", "4", "5"])
        return TorchDataset(words.map(tf.strings.to_number), prefetch=5)

    dataset = make()
    elements = iter(dataset)
    next(elements)
    wait_for(dataset, 5)
    state = saved_and_loaded(dataset.state_dict())
    assert state["failed"] == [False, True, False, False, False]
    resumed = make()
    resumed.load_state_dict(state)
    for rest in (elements, iter(resumed)):
        assert next(rest) == 1
        with pytest.raises(RuntimeError, match="element 2") as caught:
            next(rest)
        assert caught.value.ordinal == 2  # type: ignore[attr-defined]
        assert len(list(rest)) == 3


def test_elements_on_their_way_to_a_device_are_part_of_the_state() -> None:
    made = loader(tf.data.Dataset.range(10).batch(2), device="meta")
    host = loader(tf.data.Dataset.range(10).batch(2))
    elements = iter(made)
    for count in range(1, 6):
        next(elements)
        state = saved_and_loaded(made.state_dict())
        host.load_state_dict(state)
        assert values(host) == [[2 * i, 2 * i + 1] for i in range(count, 5)]
        assert host.dataset.epoch == 1
    assert list(elements) == []
    host.load_state_dict(made.state_dict())
    assert values(host) == [[2 * i, 2 * i + 1] for i in range(5)]
    assert host.dataset.epoch == 2


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata 0.11, torch 2.13
def test_torchdatas_stateful_dataloader() -> None:
    from torchdata.stateful_dataloader import StatefulDataLoader

    def make() -> Any:
        return StatefulDataLoader(TorchDataset(seeded(), prefetch=3), batch_size=None)

    straight = TorchDataset(seeded())
    epochs = [values(straight) for _ in range(2)]
    stateful = make()
    elements = iter(stateful)
    first = [next(elements).tolist() for _ in range(4)]
    state = saved_and_loaded(stateful.state_dict())
    resumed = make()
    resumed.load_state_dict(state)
    assert first + values(resumed) == epochs[0]
    assert values(resumed) == epochs[1]
