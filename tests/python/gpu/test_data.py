"""Input pipelines whose elements go to a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import tensorflow as tf
import torch

import tensor_bridge
from tensor_bridge.data import loader


def pipeline(count: int) -> tf.data.Dataset:
    with tf.device("CPU:0"):
        return tf.data.Dataset.range(count).map(
            lambda i: (tf.fill([100_000], i), tf.strings.as_string(i))
        )


def test_elements_arrive_in_order() -> None:
    seen = []
    for x, s in loader(pipeline(50), device="cuda"):
        assert x.is_cuda
        assert s.bytes.is_cuda
        seen.append(int(x.sum()) // 100_000)
        x.zero_()
    assert seen == list(range(50))


def test_a_busy_stream_gets_the_values_of_its_element() -> None:
    sums = []
    for x, _ in loader(pipeline(20), device="cuda"):
        torch.cuda._sleep(20_000_000)
        sums.append(x.sum())
        del x
    assert [int(s) // 100_000 for s in sums] == list(range(20))


def test_pinned_memory() -> None:
    with tf.device("CPU:0"):
        ds = tf.data.Dataset.from_tensors([1.0, 2.0])
    (pinned,) = loader(ds, pin_memory=True)
    assert pinned.is_pinned()
    assert pinned.tolist() == [1.0, 2.0]


# ---- Elements of several tensors -----------------------------------------------------------------

COUNT = 1 << 12


class Pair(tf.experimental.ExtensionType):  # type: ignore[misc]
    """An extension type with a dense and a ragged field."""

    dense: tf.Tensor
    ragged: tf.RaggedTensor


@cache
def item() -> Any:
    """An attrs class, whose instances are structures for TensorFlow."""
    return pytest.importorskip("attrs").make_class("Item", ["dense", "sparse"])


class Scaled(tf.experimental.ExtensionType):  # type: ignore[misc]
    """A type that a user registers."""

    values: tf.Tensor


class TorchScaled:
    """Its form in torch."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values


def dense(i: tf.Tensor) -> tf.Tensor:
    return tf.fill([COUNT], tf.cast(i + 1, tf.float32))


def ragged(i: tf.Tensor) -> tf.RaggedTensor:
    return tf.RaggedTensor.from_row_lengths(dense(i), [COUNT // 4, 0, COUNT // 4 * 3])


def sparse(i: tf.Tensor) -> tf.SparseTensor:
    where = tf.reshape(tf.range(COUNT, dtype=tf.int64) + i, [COUNT, 1])
    return tf.SparseTensor(where, dense(i), [2 * COUNT])


def strings(i: tf.Tensor) -> tf.Tensor:
    return tf.fill([COUNT], tf.strings.as_string(i))


ELEMENTS: dict[str, Callable[[tf.Tensor], Any]] = {
    "dense": dense,
    "nested": ragged,
    "ragged twice": lambda i: tf.RaggedTensor.from_row_lengths(ragged(i), [1, 2]),
    "strings": strings,
    "ragged strings": lambda i: tf.RaggedTensor.from_row_lengths(strings(i), [COUNT, 0]),
    "sparse": sparse,
    "slices": lambda i: tf.IndexedSlices(
        tf.reshape(dense(i), [COUNT // 4, 4]),
        tf.range(COUNT // 4, dtype=tf.int64),
        tf.constant([COUNT, 4], tf.int64),
    ),
    "extension": lambda i: Pair(dense(i), ragged(i)),
    "attrs": lambda i: item()(dense(i), sparse(i)),
    "registered": lambda i: Scaled(dense(i)),
    "structure": lambda i: {"a": (sparse(i), ragged(i)), "b": dense(i)},
}


@pytest.fixture
def scaled() -> Iterator[None]:
    tensor_bridge.register_composite(
        "scaled",
        Scaled,
        TorchScaled,
        tf_flatten=lambda x: ([x.values], None),
        torch_unflatten=lambda _, parts: TorchScaled(*parts),
        torch_flatten=lambda x: ([x.values], None),
        tf_unflatten=lambda _, parts: Scaled(*parts),
    )
    yield
    tensor_bridge.unregister_composite("scaled")


def tensors(value: Any) -> list[torch.Tensor]:
    """Every tensor with memory of an element, found through its objects."""
    if isinstance(value, torch.Tensor):
        if value.layout is torch.sparse_coo:
            return [value._indices(), value._values()]
        return [value.values(), value.offsets()] if value.is_nested else [value]
    if isinstance(value, dict):
        return [x for each in value.values() for x in tensors(each)]
    if isinstance(value, (list, tuple)):
        return [x for each in value for x in tensors(each)]
    if isinstance(value, tensor_bridge.Extension):
        return tensors(dict(value.fields))
    names = [field.name for field in getattr(type(value), "__attrs_attrs__", ())]
    fields = {name: getattr(value, name) for name in names} or getattr(value, "__dict__", {})
    return tensors(dict(fields)) if fields else []


@pytest.fixture
def element(kind: str) -> Callable[[tf.Tensor], Any]:
    if kind == "attrs":
        item()  # skips the test without attrs
    return ELEMENTS[kind]


@pytest.mark.usefixtures("scaled")
@pytest.mark.parametrize("kind", ELEMENTS)
def test_every_part_of_an_element_is_there_until_the_stream_has_read_it(
    element: Callable[[tf.Tensor], Any],
) -> None:
    with tf.device("CPU:0"):
        ds = tf.data.Dataset.range(6).map(element)
        expected = [tensors(value) for value in loader(ds)]
        assert all(x.device.type == "cpu" for parts in expected for x in parts)
        seen = []
        for value in loader(ds, device="cuda"):
            torch.cuda._sleep(20_000_000)
            parts = tensors(value)
            assert parts
            assert all(x.is_cuda for x in parts)
            seen.append([x.clone() for x in parts])
            del value, parts
    for ours, theirs in zip(seen, expected, strict=True):
        assert all(torch.equal(x.cpu(), y) for x, y in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("kind", ["nested", "sparse", "ragged twice", "extension", "attrs"])
def test_an_element_is_of_the_same_kind_on_a_device(
    kind: str, element: Callable[[tf.Tensor], Any]
) -> None:
    with tf.device("CPU:0"):
        ds = tf.data.Dataset.range(2).map(element)
        for here, there in zip(loader(ds), loader(ds, device="cuda"), strict=True):
            assert type(there) is type(here)
            if isinstance(here, torch.Tensor):
                assert there.layout is here.layout
                assert len(there.shape) == len(here.shape)
                assert kind != "sparse" or there.is_coalesced() == here.is_coalesced()


@pytest.mark.parametrize("kind", ["nested", "sparse", "ragged strings", "structure"])
def test_every_part_of_an_element_is_pinned(element: Callable[[tf.Tensor], Any]) -> None:
    with tf.device("CPU:0"):
        for value in loader(tf.data.Dataset.range(2).map(element), pin_memory=True):
            assert all(x.is_pinned() for x in tensors(value))
