"""NumPy's arrays and scalars in a torch dataset, which `from_torch` passes to tf.data."""

from __future__ import annotations

import array
import random
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch
from torch.utils.data import DataLoader, Dataset

from tensor_bridge import UnsupportedDtypeError, UnsupportedTypeError
from tensor_bridge.data import from_torch


class Items(Dataset):  # type: ignore[type-arg]
    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


def assert_as_tensorflow_takes_it(item: Any) -> None:
    expected = tf.convert_to_tensor(item)
    ds = from_torch(Items(item))
    assert ds.element_spec == tf.TensorSpec(expected.shape, expected.dtype)
    (got,) = ds
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert got.numpy().tobytes() == expected.numpy().tobytes()


DTYPES = ["?", "b", "B", "h", "H", "i", "I", "l", "L", "q", "Q", "e", "f", "d", "F", "D"]


def layouts(x: Any) -> dict[str, Any]:
    """The array in other memory layouts."""
    read_only = x.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(bytearray(b"\0" + x.tobytes()), x.dtype, x.size, 1).reshape(x.shape)
    return {
        "plain": x,
        "read-only": read_only,
        "transposed": x.T,
        "reversed": x[::-1],
        "strided": x[..., ::2],
        "Fortran's": np.asfortranarray(x),
        "broadcast": np.broadcast_to(x[:1], x.shape),
        "unaligned": unaligned,
        "empty": x[:0],
        "no dimension": x.reshape(-1)[0].reshape(()),
        "scalar": x.reshape(-1)[0],
        "zero strides inside": x[:, None],
    }


@pytest.mark.parametrize("code", DTYPES)
def test_every_dtype_in_every_layout(code: str) -> None:
    draw = np.random.default_rng(ord(code))
    numbers = draw.integers(0, 2 if code == "?" else 100, (3, 4, 5))
    for x in layouts(numbers.astype(code)).values():
        assert_as_tensorflow_takes_it(x)


@pytest.mark.parametrize("seed", range(10))
def test_drawn_views(seed: int) -> None:
    draw = random.Random(seed)
    x = np.arange(360).reshape(3, 4, 5, 6).astype(draw.choice(DTYPES))
    x = x.transpose(draw.sample(range(4), 4))
    index = [slice(draw.choice([None, 1]), None, draw.choice([1, 2, -1, -2])) for _ in range(4)]
    assert_as_tensorflow_takes_it(x[tuple(index)])


@pytest.mark.parametrize(
    "item",
    [
        np.array(["a", "bc"]),
        np.array([[b"a", b"b\0c"]]),
        np.array(["a", b"b"], object),
        np.array("text"),
        np.zeros((2, 0), "U3"),
        np.str_("text"),
        np.bytes_(b"text"),
    ],
    ids=repr,
)
def test_strings(item: Any) -> None:
    expected = tf.convert_to_tensor(item)
    (got,) = from_torch(Items(item))
    assert (got.dtype, got.shape) == (tf.string, expected.shape)
    assert got.numpy() is None or np.array_equal(got.numpy(), expected.numpy())


def test_other_owners_of_buffers() -> None:
    for owner in (array.array("h", [1, 2]), memoryview(array.array("h", [1, 2]))):
        (got,) = from_torch(Items(owner))
        assert (got.dtype, got.numpy().tolist()) == (tf.int16, [1, 2])


def test_python_s_own_numbers_stay_what_they_are_to_torch() -> None:
    spec = from_torch(Items((1, 1.0, True, [np.float64(1.0), np.int16(1)]))).element_spec
    assert [s.dtype for s in tf.nest.flatten(spec)] == [
        tf.int64,
        tf.float32,
        tf.bool,
        tf.float64,
        tf.int16,
    ]


def test_what_is_written_later_does_not_reach_tensorflow() -> None:
    item = np.zeros(1024, np.float32)
    (got,) = from_torch(Items(item))
    item.fill(7)
    assert got.numpy().sum() == 0


def test_loaders_whose_batches_are_arrays_have_batches_of_unknown_size() -> None:
    loader = DataLoader(Items(*range(5)), batch_size=2, collate_fn=np.array)
    ds = from_torch(loader)
    assert ds.element_spec == tf.TensorSpec([None], tf.int64)
    assert [b.numpy().tolist() for b in ds] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        (np.array([1.0], ">f8"), UnsupportedDtypeError, r"big-endian.*>f8.*newbyteorder"),
        (np.longdouble(1.0), UnsupportedDtypeError, r"(longdouble|float128).*float128.*astype"),
        (np.zeros(2, [("a", "i4")]), UnsupportedDtypeError, r"fields"),
        (np.array(["2020-01-01"], "M8[D]"), UnsupportedTypeError, r"datetime64\[D\].*astype"),
        (np.array([1, None], object), UnsupportedTypeError, r"got an int.*dtype object"),
        (np.ma.array([1, 2], mask=[1, 0]), UnsupportedTypeError, r"masked.*x\.filled\(0\)"),
    ],
    ids=lambda x: repr(x) if isinstance(x, np.ndarray) else "",
)
def test_what_has_no_form_in_tensorflow_is_refused_by_name(
    item: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        from_torch(Items(item))


def test_a_byte_has_no_order() -> None:
    assert_as_tensorflow_takes_it(np.array([1, 2], ">i1"))


@pytest.mark.parametrize("spec", [3, "float32", {"x": tf.float32}, (torch.float32,), int])
def test_an_element_spec_of_another_kind_is_refused(spec: Any) -> None:
    with pytest.raises(UnsupportedTypeError, match=r"tf\.TypeSpec.*tf\.TensorSpec\(\[None\]"):
        from_torch(Items(1), element_spec=spec)
