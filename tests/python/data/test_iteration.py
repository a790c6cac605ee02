"""Passes over a dataset: epochs, ends, breaks, threads, processes, and leaks."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import torch
from fresh import run_forked
from memory import allocated
from sharing import in_threads
from torch.utils.data import DataLoader, IterableDataset

import tensor_bridge
from tensor_bridge.data import TorchDataset, loader


def threads() -> int:
    """The number of our threads in this process."""
    names = [p.read_text().strip() for p in Path("/proc/self/task").glob("*/comm")]
    return names.count("tb_data")


def values(elements: Any) -> list[Any]:
    return [element.tolist() for element in elements]


PREFETCH = pytest.mark.parametrize("prefetch", [0, 1, 3])


@PREFETCH
def test_every_pass_has_all_elements_and_the_partial_batch(prefetch: int) -> None:
    dataset = TorchDataset(tf.data.Dataset.range(7).batch(3), prefetch=prefetch)
    assert isinstance(dataset, IterableDataset)
    for _ in range(3):
        assert values(dataset) == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(dataset) == 3
    assert threads() == 0


def test_the_end_stays_the_end() -> None:
    elements = iter(TorchDataset(tf.data.Dataset.range(1)))
    assert next(elements) == 0
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(elements)


def test_an_empty_dataset() -> None:
    assert list(TorchDataset(tf.data.Dataset.range(0))) == []
    assert len(TorchDataset(tf.data.Dataset.range(0))) == 0


def test_len_says_why_it_does_not_know() -> None:
    infinite = TorchDataset(tf.data.Dataset.range(3).repeat())
    with pytest.raises(TypeError, match="infinite"):
        len(infinite)
    unknown = tf.data.Dataset.range(3).filter(lambda i: i > 0)
    with pytest.raises(TypeError, match="assert_cardinality"):
        len(TorchDataset(unknown))
    assert len(TorchDataset(unknown.apply(tf.data.experimental.assert_cardinality(2)))) == 2
    assert values(TorchDataset(unknown)) == [1, 2]


@PREFETCH
def test_an_infinite_dataset_is_left_with_break_and_begun_anew(prefetch: int) -> None:
    dataset = TorchDataset(tf.data.Dataset.range(5).repeat(), prefetch=prefetch)
    for _ in range(3):
        seen = []
        for element in dataset:
            seen.append(int(element))
            if len(seen) == 12:
                break
        assert seen == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    dataset.close()
    gc.collect()
    assert threads() == 0


def test_several_iterators_at_once_are_independent() -> None:
    dataset = TorchDataset(tf.data.Dataset.range(4))
    one, two = iter(dataset), iter(dataset)
    assert [next(one), next(one), next(two), next(one), next(two)] == [0, 1, 0, 2, 1]
    assert values(two) == [2, 3]
    assert values(one) == [3]


def test_one_iterator_on_many_threads_gives_each_element_once() -> None:
    elements = iter(TorchDataset(tf.data.Dataset.range(2000)))
    seen: list[int] = []

    def take() -> None:
        for element in elements:
            seen.append(int(element))

    in_threads(*[take] * 4, timeout=240)
    assert sorted(seen) == list(range(2000))


def test_epochs_are_reshuffled_and_set_epoch_chooses_one() -> None:
    def make() -> TorchDataset:
        return TorchDataset(tf.data.Dataset.range(20).shuffle(20, seed=7))

    straight = make()
    orders = [values(straight) for _ in range(4)]
    assert len({tuple(order) for order in orders}) == 4
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert straight.epoch == 4

    other = make()
    other.set_epoch(2)
    assert values(other) == orders[2]
    assert values(other) == orders[3]
    other.set_epoch(1)
    assert values(other) == orders[1]
    with pytest.raises(tensor_bridge.InvalidOptionError):
        other.set_epoch(-1)


def test_a_function_of_the_epoch_can_go_back() -> None:
    dataset = TorchDataset(lambda epoch: tf.data.Dataset.range(5).map(lambda i: i + 10 * epoch))
    assert values(dataset) == [0, 1, 2, 3, 4]
    assert values(dataset) == [10, 11, 12, 13, 14]
    dataset.set_epoch(0)
    assert values(dataset) == [0, 1, 2, 3, 4]
    dataset.set_epoch(3)
    assert values(dataset)[0] == 30


def test_a_dataset_without_reshuffling_takes_any_epoch() -> None:
    dataset = TorchDataset(tf.data.Dataset.range(3))
    for epoch in (5, 0, 2):
        dataset.set_epoch(epoch)
        assert values(dataset) == [0, 1, 2]


@PREFETCH
def test_dropping_an_iterator_leaves_no_thread_and_no_object(prefetch: int) -> None:
    dataset = TorchDataset(tf.data.Dataset.range(100).map(lambda i: i + 1), prefetch=prefetch)
    elements = iter(dataset)
    assert next(elements) == 1
    reference = weakref.ref(elements)
    dataset._current = None
    del elements
    gc.collect()
    assert reference() is None
    assert threads() == 0


def test_closing_cancels_a_pipeline_that_never_delivers() -> None:
    # The filter needs more than a lifetime for this.
    never = tf.data.Dataset.range(2**62).filter(lambda i: i < 0)
    dataset = TorchDataset(never)
    iter(dataset)
    time.sleep(0.05)
    dataset.close()
    assert threads() == 0  # a thread that cannot be cancelled is abandoned after 10 seconds


def test_close_from_another_thread_ends_a_wait() -> None:
    never = tf.data.Dataset.range(2**62).filter(lambda i: i < 0)
    dataset = TorchDataset(never)
    elements = iter(dataset)
    timer = threading.Timer(0.2, dataset.close)
    timer.start()
    assert list(elements) == []
    timer.join()
    assert threads() == 0


@PREFETCH
def test_the_gil_is_free_while_an_element_is_made(prefetch: int) -> None:
    # The pipeline itself needs the GIL, and waits for a thread that also needs it.
    asked, given = threading.Semaphore(0), threading.Semaphore(0)

    def slow(i: Any) -> Any:
        asked.release()
        assert given.acquire(timeout=120)
        return i

    ds = tf.data.Dataset.range(10).map(lambda i: tf.py_function(slow, [i], tf.int64))

    def give() -> None:
        for _ in range(10):
            asked.acquire()
            given.release()

    giver = threading.Thread(target=give, daemon=True)
    giver.start()
    assert values(TorchDataset(ds, prefetch=prefetch)) == list(range(10))
    giver.join()


def test_elements_are_made_ahead_and_no_more_than_asked_for() -> None:
    made = []

    def note(i: Any) -> Any:
        made.append(int(i))
        return i

    ds = tf.data.Dataset.range(50).map(lambda i: tf.py_function(note, [i], tf.int64))
    elements = iter(TorchDataset(ds, prefetch=3))
    assert next(elements) == 0
    deadline = time.monotonic() + 60
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)  # time for an element too many
    assert made == [0, 1, 2, 3]
    del elements


def test_memory_is_bounded_by_the_queue_and_flat() -> None:
    ds = tf.data.Dataset.range(100_000).batch(1)
    elements = iter(TorchDataset(ds, prefetch=2))
    for _ in range(20_000):
        next(elements)
    gc.collect()
    before = allocated()
    for _element in elements:
        pass
    del _element
    gc.collect()
    # A tensor, its handle and its buffer take at least 500 bytes: a leak of one in a hundred
    # elements would be 400 KB.
    assert allocated() - before < 256 << 10
    assert tensor_bridge.testing.live_owners() == 0


@pytest.mark.parametrize("batch_size", [None, 4])
def test_dataloader_without_workers(batch_size: int | None) -> None:
    dataset = TorchDataset(tf.data.Dataset.range(8).map(lambda i: {"i": i, "f": [1.0, 2.0]}))
    batches = list(DataLoader(dataset, batch_size=batch_size))
    if batch_size is None:
        assert [int(batch["i"]) for batch in batches] == list(range(8))
        assert len(DataLoader(dataset, batch_size=None)) == 8
    else:
        assert [batch["i"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7]]
        assert batches[0]["f"].shape == (4, 2)


def test_dataloader_with_workers_says_what_to_do() -> None:
    done = run_forked(
        """
        from torch.utils.data import DataLoader
        from tensor_bridge.data import TorchDataset
        dataset = TorchDataset(tf.data.Dataset.range(8))
        assert len(list(dataset)) == 8   # TensorFlow's threads are there to be lost
        for context in ("fork", "spawn"):
            try:
                list(DataLoader(dataset, batch_size=None, num_workers=1,
                                multiprocessing_context=context))
            except tensor_bridge.WorkerProcessError as e:
                assert "num_workers=0" in str(e), e
                print(context)
        assert len(list(dataset)) == 8
        """
    )
    assert done.code == 0, done.err
    assert done.out.split() == ["fork", "spawn"]


def test_leaving_python_in_the_middle_of_passes() -> None:
    run_forked(
        """
        from tensor_bridge.data import TorchDataset, loader
        def slow(i):
            import time
            time.sleep(0.01)
            return i
        ds = tf.data.Dataset.range(10**6)
        kept = [iter(TorchDataset(ds)), iter(loader(ds, prefetch=8)),
                iter(TorchDataset(ds.map(tf.autograph.experimental.do_not_convert(
                    lambda i: tf.py_function(slow, [i], tf.int64)))))]
        cycle = [next(elements) for elements in kept]
        cycle.append(cycle)
        """,
        exits=True,
    ).check()


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("take", ["list(dataset)", "next(iter(dataset))", "[x for x in dataset]"])
def test_interrupts_reach_a_wait(prefetch: int, take: str) -> None:
    """A wait for an element that never comes can be interrupted."""
    done = run_forked(
        f"""
        import os, signal, threading, time
        from tensor_bridge.data import TorchDataset
        # A shell starts what runs in the background with SIGINT ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        never = tf.data.Dataset.range(2**62).filter(lambda i: i < 0)
        dataset = TorchDataset(never, prefetch={prefetch})
        def interrupt():
            while dataset._current is None:
                time.sleep(0.01)
            time.sleep(0.2)  # the wait has probably begun
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt, daemon=True).start()
        try:
            {take}
        except KeyboardInterrupt:
            print("heard")
        dataset.close()
        """
    )
    assert done.out.strip() == "heard", done.err


def test_an_interrupt_takes_no_element_away() -> None:
    done = run_forked(
        """
        import os, signal, threading
        from tensor_bridge.data import TorchDataset
        signal.signal(signal.SIGINT, signal.default_int_handler)
        begun, go_on = threading.Event(), threading.Event()
        def slow(i):
            if i == 3:
                begun.set()
                go_on.wait()
            return i
        ds = tf.data.Dataset.range(6).map(tf.autograph.experimental.do_not_convert(
            lambda i: tf.py_function(slow, [i], tf.int64)))
        elements = iter(TorchDataset(ds, prefetch=0))
        assert [int(next(elements)) for _ in range(3)] == [0, 1, 2]
        def interrupt():
            begun.wait()
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt, daemon=True).start()
        try:
            next(elements)
        except KeyboardInterrupt:
            print("heard before the element was made")
        go_on.set()
        assert [int(i) for i in elements] == [3, 4, 5]
        """
    )
    assert done.out.strip() == "heard before the element was made", done.err


def test_an_asynchronous_context() -> None:
    done = run_forked(
        """
        from tensor_bridge.data import TorchDataset
        tf.config.experimental.set_synchronous_execution(False)
        ds = tf.data.Dataset.range(50).map(lambda i: (i, tf.ragged.range(tf.stack([i]))))
        for prefetch in (0, 2):
            for _ in range(3):
                elements = list(TorchDataset(ds, prefetch=prefetch))
                assert [int(i) for i, _ in elements] == list(range(50))
        assert (tf.constant(1) + 1).numpy() == 2
        """
    )
    assert done.code == 0, done.err


@pytest.mark.parametrize("begun_outside", [True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_an_asynchronous_executor_of_the_thread(fails: bool, begun_outside: bool) -> None:
    done = run_forked(
        f"""
        from tensorflow.python.eager import context
        from tensorflow.python.eager.executor import new_executor
        from tensor_bridge.data import PipelineError, loader
        ds = tf.data.Dataset.range(300)
        if {fails}:
            ds = ds.map(lambda i: 1 // (250 - i))
        begun = iter(loader(ds, prefetch=0)) if {begun_outside} else None
        own = new_executor(enable_async=True)
        elements = []
        with context.executor_scope(own):
            try:
                for x in begun or loader(ds, prefetch=0):
                    elements.append(int(x))
                print("end", len(elements))
            except PipelineError:
                print("failure", len(elements))
            assert context.context().executor.is_async()
            assert (tf.constant(1) + 1).numpy() == 2
            own.wait()
        """
    )
    expected = "failure 250" if fails else "end 300"
    assert done.out.strip() == expected, done.err


def test_no_numpy() -> None:
    done = run_forked(
        """
        from tensor_bridge.data import TorchDataset, from_torch, loader
        import torch.nested._internal.nested_tensor  # loads what has NumPy loaded
        ds = tf.data.Dataset.range(6).map(
            lambda i: {"i": i, "s": tf.strings.as_string([i]), "r": tf.ragged.range(tf.stack([i])),
                       "p": tf.sparse.from_dense([i])})
        data = torch.utils.data.TensorDataset(torch.arange(4), torch.ones(4, 2))
        # TensorFlow's own reading of options uses it, and torch's import of its compiler, which
        # nested tensors have; no element comes near it.
        tensor_bridge.to_torch(tf.ragged.constant([[1]]))
        dataset, again = TorchDataset(ds), TorchDataset(ds)
        backs = [loader(from_torch(source)) for source in (
            data, torch.utils.data.DataLoader(data, batch_size=3))]
        from tensorflow.python.framework import ops
        def refuse(*a, **k):
            raise AssertionError("NumPy")
        EagerTensor = type(tf.constant(1))
        for name in ("numpy", "_numpy", "__array__", "_numpy_internal"):
            setattr(EagerTensor, name, refuse)
        torch.Tensor.numpy = torch.Tensor.__array__ = refuse
        import numpy
        for name in ("array", "asarray", "asanyarray"):
            setattr(numpy, name, refuse)
        try:
            int(tf.constant(1))
        except AssertionError:
            print("refuses")
        elements = iter(dataset)
        next(elements)
        state = dataset.state_dict()
        again.load_state_dict(state)
        print(len(list(again)), len(dataset))
        print(*(len(list(back)) for back in backs))
        """
    )
    assert done.code == 0, done.err
    assert done.out.split() == ["refuses", "5", "6", "4", "2"]


def test_the_loader_is_the_dataset_with_more() -> None:
    made = loader(tf.data.Dataset.range(5).batch(2), prefetch=1)
    assert len(made) == 3
    assert values(made) == [[0, 1], [2, 3], [4]]
    made.set_epoch(4)
    assert made.dataset.epoch == 4
    made.close()
    with pytest.raises(tensor_bridge.InvalidOptionError, match="need service"):
        loader(tf.data.Dataset.range(5), job_name="x")


def test_elements_on_another_device_run_one_ahead() -> None:
    made = loader(
        tf.data.Dataset.range(6).map(lambda i: {"i": i, "s": tf.strings.as_string([i])}),
        device="meta",
    )
    elements = list(made)
    assert len(elements) == 6
    assert all(e["i"].device.type == e["s"].bytes.device.type == "meta" for e in elements)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(tensor_bridge.UnsupportedDeviceError, match="visible GPU"):
        loader(tf.data.Dataset.range(3), device="cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_pinning_is_left_out_with_one_warning() -> None:
    with pytest.warns(UserWarning, match="pin_memory=True.*no GPU") as caught:
        made = loader(tf.data.Dataset.range(3), pin_memory=True)
    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]
    for _ in range(2):
        assert [int(x) for x in made] == [0, 1, 2]
