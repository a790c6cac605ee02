"""torch datasets and loaders as tf.data datasets."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import needs
import pytest
import tensorflow as tf
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import tensor_bridge
from tensor_bridge.data import PipelineError, ResumeError, TorchDataset, from_torch
from tensor_bridge.testing import tf_data_address, torch_data_address


class Pair(NamedTuple):
    a: Any
    b: Any


class Things(Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 5

    def __getitem__(self, i: int) -> Any:
        if not 0 <= i < 5:
            raise IndexError(i)
        return {
            "x": torch.full((2, 3), float(i)),
            "n": i,
            "f": i / 2,
            "s": f"thing {i}",
            "pair": Pair(torch.tensor(i), [torch.tensor(True), b"raw"]),
        }


class Stream(IterableDataset):  # type: ignore[type-arg]
    """Counts the running passes."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.open = 0

    def __iter__(self) -> Iterator[Any]:
        self.open += 1
        try:
            yield from (torch.tensor([i, i + 1]) for i in range(self.count))
        finally:
            self.open -= 1


def test_a_dataset_with_indices() -> None:
    ds = from_torch(Things())
    assert len(ds) == 5
    spec = ds.element_spec
    assert spec["x"] == tf.TensorSpec([2, 3], tf.float32)
    assert (spec["n"].dtype, spec["f"].dtype, spec["s"].dtype) == (tf.int64, tf.float32, tf.string)
    for _ in range(2):
        elements = list(ds)
        assert [int(e["n"]) for e in elements] == [0, 1, 2, 3, 4]
        assert elements[3]["x"].numpy().tolist() == [[3.0] * 3] * 2
        assert elements[3]["s"].numpy() == b"thing 3"
        assert type(elements[3]["pair"]) is Pair
        assert elements[3]["pair"].b[1].numpy() == b"raw"
    assert sorted(int(e["n"]) for e in ds.shuffle(5)) == [0, 1, 2, 3, 4]


def test_there_and_back() -> None:
    for i, element in enumerate(TorchDataset(from_torch(Things()), strings="list")):
        expected = Things()[i]
        assert torch.equal(element["x"], expected["x"])
        assert element["pair"].a == i
        assert element["s"] == f"thing {i}".encode()


def test_memory_is_shared_and_protected() -> None:
    rows = torch.arange(64, dtype=torch.float32).reshape(1, 64).clone()
    (t,) = from_torch(TensorDataset(rows))
    assert (tf_data_address(t[0]) == torch_data_address(rows)) == needs.SHARES_TO_TF
    rows.zero_()
    assert t[0].numpy()[5] == 5


def test_loaders_have_batches_of_unknown_size() -> None:
    ds = from_torch(DataLoader(Things(), batch_size=2))
    assert ds.element_spec["x"].shape.as_list() == [None, 2, 3]
    assert ds.element_spec["s"] == tf.TensorSpec([None], tf.string)
    for _ in range(2):
        batches = list(ds)
        assert [b["n"].numpy().tolist() for b in batches] == [[0, 1], [2, 3], [4]]
        assert batches[1]["s"].numpy().tolist() == [b"thing 2", b"thing 3"]


def test_loaders_with_workers() -> None:
    ds = from_torch(DataLoader(Things(), batch_size=2, num_workers=1))
    assert [b["n"].numpy().tolist() for b in ds] == [[0, 1], [2, 3], [4]]


def test_streams_are_iterated_anew_and_closed() -> None:
    stream = Stream(4)
    ds = from_torch(stream)
    gc.collect()
    for _ in range(2):
        assert [int(t[0]) for t in ds] == [0, 1, 2, 3]
    one, two = iter(ds), iter(ds)
    assert [int(next(one)[0]), int(next(one)[0]), int(next(two)[0])] == [0, 1, 0]
    assert stream.open == 2
    del one, two
    gc.collect()
    deadline = time.monotonic() + 60
    while stream.open and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stream.open == 0
    elements = iter(TorchDataset(ds))
    next(elements)
    del elements
    gc.collect()
    deadline = time.monotonic() + 60
    while stream.open and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stream.open == 0


def test_sparse_nested_and_string_elements() -> None:
    class Composites(Things):
        def __getitem__(self, i: int) -> Any:
            nested = torch.nested.nested_tensor(
                [torch.arange(i), torch.arange(2)], layout=torch.jagged
            )
            words = tensor_bridge.StringTensor.from_list(["a" * i, "b"])
            return torch.eye(2).mul(i + 1).to_sparse(), nested, words

    ds = from_torch(Composites())
    for i, (sparse, ragged, words) in enumerate(ds):
        assert tf.sparse.to_dense(sparse).numpy().tolist() == [[i + 1, 0], [0, i + 1]]
        assert ragged.to_list() == [list(range(i)), [0, 1]]
        assert words.numpy().tolist() == [b"a" * i, b"b"]


def test_a_given_spec_and_elements_that_do_not_fit() -> None:
    class Growing(Things):
        def __getitem__(self, i: int) -> Any:
            return torch.zeros(i + 1)

    ds = from_torch(Growing(), element_spec=tf.TensorSpec([None], tf.float32))
    assert [int(tf.size(t)) for t in ds] == [1, 2, 3, 4, 5]
    elements = iter(TorchDataset(from_torch(Growing())))
    assert next(elements).shape == (1,)
    with pytest.raises(PipelineError, match=r"shape \(1,\).*shape \(2,\).*element_spec"):
        next(elements)
    other = from_torch(Growing(), element_spec=(tf.TensorSpec([None], tf.float32),))
    with pytest.raises(PipelineError, match="expected an element of the structure"):
        next(iter(TorchDataset(other)))


def test_errors_of_the_dataset_arrive() -> None:
    class Broken(Things):
        def __getitem__(self, i: int) -> Any:
            if i == 2:
                raise RuntimeError("the third is broken")
            return torch.tensor(i)

    elements = iter(TorchDataset(from_torch(Broken())))
    assert [int(next(elements)), int(next(elements))] == [0, 1]
    with pytest.raises(PipelineError, match="the third is broken"):
        next(elements)
    assert [int(x) for x in elements] == [3, 4]


def test_positions_are_kept_by_index_and_by_count() -> None:
    for data, resume in ((Things(), "position"), (Things(), "replay"), (Stream(5), "replay")):
        ds = from_torch(data)
        dataset = TorchDataset(ds, resume=resume)  # type: ignore[arg-type]
        elements = iter(dataset)
        next(elements)
        next(elements)
        state = dataset.state_dict()
        resumed = TorchDataset(ds, resume=resume)  # type: ignore[arg-type]
        resumed.load_state_dict(state)
        assert len(list(resumed)) == 3
    for data in (Things(), Stream(3)):
        with pytest.raises(ResumeError, match="resume='replay'"):
            TorchDataset(from_torch(data), resume="exact")


def test_what_cannot_be_a_dataset_is_refused() -> None:
    for value in (3, iter([1, 2]), (i for i in range(3)), object()):
        with pytest.raises(tensor_bridge.UnsupportedTypeError, match="more than once"):
            from_torch(value)
    for empty in (TensorDataset(torch.zeros(0, 2)), Stream(0)):
        with pytest.raises(tensor_bridge.MismatchError, match="element_spec="):
            from_torch(empty)
    with pytest.raises(tensor_bridge.UnsupportedTypeError):
        from_torch([object()])
