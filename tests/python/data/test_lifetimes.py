"""Dropped objects are freed at once, and a dataset works only in the process that made it."""

from __future__ import annotations

import copy
import pickle
import weakref
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import torch
from fresh import run_forked, run_python
from torch.utils.data import DataLoader

import tensor_bridge
from tensor_bridge.data import TorchDataset, loader
from tensor_bridge.testing import live_owners


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def pipeline() -> tf.data.Dataset:
    numbers = tf.data.Dataset.range(10_000).map(lambda i: i, num_parallel_calls=2)
    return numbers.shuffle(100).batch(4).prefetch(2)


def test_dropped_passes_are_freed_without_the_collector(no_collector: None) -> None:
    def begin() -> Any:
        made = loader(pipeline())
        for _ in made:
            break
        return weakref.ref(made.dataset)

    begin()
    before = threads()
    dropped = [begin() for _ in range(20)]
    assert all(reference() is None for reference in dropped)
    assert threads() <= before + 2
    assert live_owners() == 0


def test_dropped_datasets_in_elements_are_freed_without_the_collector(no_collector: None) -> None:
    dataset = TorchDataset(tf.data.Dataset.range(40).window(2))
    inner = [weakref.ref(part) for part in dataset]
    assert len(inner) == 20
    assert all(reference() is None for reference in inner)


def test_close_frees_what_a_kept_loader_holds(no_collector: None) -> None:
    made = loader(pipeline())
    before = threads()
    for _ in range(3):
        next(iter(made))
        made.close()
        assert threads() <= before + 2
    assert live_owners() == 0
    assert len([int(batch[0]) for batch in made]) == 2500


def test_copies_are_refused_in_words() -> None:
    for value in (TorchDataset(tf.data.Dataset.range(3)), loader(tf.data.Dataset.range(3))):
        with pytest.raises(tensor_bridge.UnsupportedTypeError, match="another TorchDataset over"):
            copy.deepcopy(value)
        with pytest.raises(tensor_bridge.WorkerProcessError, match="num_workers=0"):
            pickle.dumps(value)


def test_a_pipeline_made_in_a_spawned_worker_is_iterated_there(tmp_path: Path) -> None:
    (tmp_path / "made_in_worker.py").write_text(
        """
import torch
class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        import tensorflow as tf
        from tensor_bridge.data import TorchDataset
        return iter(TorchDataset(tf.data.Dataset.range(6).batch(2)))
"""
    )
    done = run_python(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        if __name__ == "__main__":
            import torch
            from made_in_worker import Stream
            made = torch.utils.data.DataLoader(
                Stream(), batch_size=None, num_workers=1, multiprocessing_context="spawn")
            print([batch.tolist() for batch in made])
        """
    )
    assert done.code == 0, done.err
    assert done.out.strip() == "[[0, 1], [2, 3], [4, 5]]"


def test_a_data_loader_that_adds_an_axis_is_told_so_once() -> None:
    ds = tf.data.Dataset.range(4).batch(2)
    dataset = TorchDataset(ds)
    with pytest.warns(UserWarning, match="batch_size=None"):
        batches = list(DataLoader(dataset))
    assert batches[0].shape == (1, 2)
    assert len(list(DataLoader(dataset))) == 2  # a second warning would be an error
    # An explicit choice gives no warning.
    for made in (DataLoader(TorchDataset(ds), batch_size=None), loader(ds)):
        assert next(iter(made)).shape == (2,)
    unbatched = TorchDataset(tf.data.Dataset.range(4))
    assert torch.equal(next(iter(DataLoader(unbatched, batch_size=2))), torch.tensor([0, 1]))


def test_a_fork_of_a_process_with_tensorflow_cannot_begin_a_pass() -> None:
    done = run_forked(
        """
        import os, warnings
        from tensor_bridge.data import TorchDataset
        dataset = TorchDataset(tf.data.Dataset.range(3))
        # Python 3.12 warns of every fork of a process that has threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        if child == 0:
            try:
                iter(dataset)
            except tensor_bridge.WorkerProcessError:
                os._exit(7)
            os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )
    assert done.check() == "7"
