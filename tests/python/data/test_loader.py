"""A Loader has the attributes that libraries expect of a DataLoader."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf
import torch
from fresh import run_python
from torch.utils.data import DataLoader

import tensor_bridge
from tensor_bridge.data import Loader, TorchDataset, _sharding, loader

RANGE = tf.data.Dataset.range


def test_it_answers_as_a_dataloader_that_does_not_batch() -> None:
    made = loader(RANGE(6).batch(2))
    peer: Any = DataLoader(TorchDataset(RANGE(6).batch(2)), batch_size=None)
    assert isinstance(made, DataLoader)
    assert isinstance(made, Loader)
    assert isinstance(made.dataset, TorchDataset)
    assert len(made) == 3
    assert made
    same = {
        *("batch_size", "batch_sampler", "num_workers", "drop_last", "pin_memory", "generator"),
        *("timeout", "worker_init_fn", "multiprocessing_context", "prefetch_factor"),
        *("persistent_workers", "pin_memory_device", "in_order"),
    }
    for name in same:
        assert getattr(made, name) == getattr(peer, name), name
    assert made.sampler is None
    element = {"x": torch.ones(2)}
    assert made.collate_fn(element) is element


def test_it_has_all_that_a_dataloader_has() -> None:
    peer: Any = DataLoader(TorchDataset(RANGE(2)), batch_size=None)
    for name in vars(peer):
        if not name.startswith("_"):
            assert hasattr(loader(RANGE(2)), name), name


def test_it_is_true_though_its_length_is_not_known() -> None:
    made = loader(RANGE(6).filter(lambda i: i > 2))
    assert made
    with pytest.raises(TypeError, match="assert_cardinality"):
        len(made)


def test_it_is_no_dataset_of_another_dataloader() -> None:
    for options in ({}, {"batch_size": None}):
        with pytest.raises(tensor_bridge.UnsupportedTypeError, match="iterate it"):
            next(iter(DataLoader(loader(RANGE(6).batch(2)), **options)))


@pytest.mark.parametrize(
    ("keyword", "remedy"),
    [
        ({"batch_size": 4}, r"ds\.batch\(n\)"),
        ({"shuffle": True}, r"ds\.shuffle\(n, seed="),
        ({"num_workers": 2}, r"num_parallel_calls=tf\.data\.AUTOTUNE"),
        ({"collate_fn": list}, r"ds\.map"),
        ({"drop_last": True}, r"drop_remainder=True"),
        ({"sampler": None}, r"shard="),
        ({"generator": None}, r"seed="),
        ({"prefetch_factor": 2}, r"prefetch=n"),
        ({"pin_memory_device": "cuda"}, r"device="),
    ],
)
def test_keywords_of_a_dataloader_are_told_where_they_are(
    keyword: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(tensor_bridge.InvalidOptionError, match=remedy):
        loader(RANGE(2), **keyword)


def test_every_keyword_of_a_dataloader_is_told() -> None:
    import inspect

    ours = inspect.signature(loader).parameters
    for name in inspect.signature(DataLoader.__init__).parameters:
        if name not in ours and name not in ("self", "dataset"):
            with pytest.raises(tensor_bridge.InvalidOptionError, match=name):
                loader(RANGE(2), **{name: 1})


def test_a_misspelt_keyword_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="did you mean prefetch"):
        loader(RANGE(2), prefetc=1)  # type: ignore[arg-type]


def test_an_epoch_that_was_resumed_does_not_change_the_next_ones() -> None:
    def make() -> Loader:
        return loader(RANGE(8).shuffle(8, seed=1).batch(2).shuffle(2, seed=2))

    def order(made: Loader) -> list[list[int]]:
        return [batch.tolist() for batch in made]

    straight = make()
    orders = [order(straight) for _ in range(3)]
    for stop in range(4):
        first = make()
        batches = iter(first)
        before = [next(batches).tolist() for _ in range(stop)]
        resumed = make()
        resumed.load_state_dict(first.state_dict())
        assert [before + order(resumed), order(resumed), order(resumed)] == orders


def test_a_state_of_another_rank_is_its_count() -> None:
    def make(rank: int, **options: Any) -> Loader:
        ds = RANGE(10).shuffle(10, seed=1)
        return loader(ds, rank=rank, world_size=2, **options)

    whole = [int(i) for i in make(1)]
    first = make(0)
    batches = iter(first)
    for _ in range(3):
        next(batches)
    other = make(1)
    with pytest.warns(UserWarning, match="of rank 0, and this is rank 1"):
        other.load_state_dict(first.state_dict())
    assert [int(i) for i in other] == whole[3:]
    exact = make(0, resume="exact")
    with pytest.raises(tensor_bridge.ResumeError, match="rank"):
        make(1, resume="exact").load_state_dict(exact.state_dict())


def test_a_function_that_accelerate_calls_is_not_shared_out_by_it(monkeypatch: Any) -> None:
    memory = pytest.importorskip("accelerate.utils.memory")
    monkeypatch.setattr(_sharding, "place", lambda: (0, 2))

    @memory.find_executable_batch_size(starting_batch_size=2)
    def train(batch_size: int) -> list[Any]:
        return list(TorchDataset(RANGE(4).batch(batch_size)))

    with pytest.warns(UserWarning, match="each of 2 ranks gets every element"):
        assert len(train()) == 2


KERAS = """
import tensor_bridge
import tensorflow as tf
import keras
from tensor_bridge.data import loader
ds = tf.data.Dataset.from_tensor_slices(([[1.0], [2.0], [3.0]], [[2.0], [4.0], [6.0]])).batch(2)
model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
model.compile("sgd", "mse")
"""


@pytest.mark.exhaustive
def test_keras_on_torch_takes_it() -> None:
    code = """
history = model.fit(loader(ds), epochs=2, shuffle=False, validation_data=loader(ds), verbose=0)
print(len(history.history["val_loss"]), model.evaluate(loader(ds), verbose=0) > 0)
print(model.predict(loader(ds), verbose=0).shape)
"""
    done = run_python(KERAS + code, KERAS_BACKEND="torch").check()
    assert done == "2 True\n(3, 1)"


@pytest.mark.exhaustive
def test_keras_on_tensorflow_is_told_to_take_the_dataset() -> None:
    code = """
for use in (model.fit, model.evaluate, model.predict):
    options = {"shuffle": False} if use == model.fit else {}
    try:
        use(loader(ds), verbose=0, **options)
    except tensor_bridge.UnsupportedTypeError as e:
        print("model.fit(ds)" in str(e))
"""
    done = run_python(KERAS + code, KERAS_BACKEND="tensorflow").check()
    assert done == "True\nTrue\nTrue"
