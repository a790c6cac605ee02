"""Elements that cannot be made: a typed error with the position, then the pass continues."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from sharing import owners

import tensor_bridge
from tensor_bridge.data import PipelineError, TorchDataset, loader

PREFETCH = pytest.mark.parametrize("prefetch", [0, 1, 4])


def failing() -> tf.data.Dataset:
    return tf.data.Dataset.range(6).map(lambda i: tf.debugging.check_numerics(1 / (i - 2), "odd"))


def taken(elements: Any) -> list[Any]:
    """The elements, and the ordinals of failures as strings."""
    found: list[Any] = []
    while True:
        try:
            found.append(next(elements).item())
        except PipelineError as e:
            found.append(str(e.ordinal))
        except StopIteration:
            return found


@PREFETCH
def test_a_failure_has_its_ordinal_and_tensorflows_message(prefetch: int) -> None:
    with owners():
        elements = iter(TorchDataset(failing(), prefetch=prefetch))
        assert [next(elements).item(), next(elements).item()] == [-0.5, -1.0]
        with pytest.raises(PipelineError, match=r"(?s)element 2: .*odd.*ignore_errors") as caught:
            next(elements)
        assert isinstance(caught.value, RuntimeError)
        assert (caught.value.ordinal, caught.value.code) == (2, "INVALID_ARGUMENT")
        assert "__wrapped__" not in str(caught.value)
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (str(copy), copy.ordinal) == (str(caught.value), 2)
        assert taken(elements) == [1.0, 0.5, pytest.approx(1 / 3)]
        assert elements.stats().failures == 1
        del caught, elements
        gc.collect()


@PREFETCH
def test_failures_can_be_skipped(prefetch: int) -> None:
    for dataset in (
        TorchDataset(failing(), on_error="skip", prefetch=prefetch),
        loader(failing(), on_error="skip", prefetch=prefetch),
        TorchDataset(failing().ignore_errors(), prefetch=prefetch),
    ):
        assert len(list(dataset)) == 5
    assert dataset.stats().failures == 0


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_message_that_is_not_utf_8(prefetch: int) -> None:
    """TensorFlow quotes the record that it could not parse."""
    ds = tf.data.Dataset.from_tensor_slices([b"1", b"\xff", b"3"]).map(tf.strings.to_number)
    for made in (TorchDataset, loader):
        assert [x.item() for x in made(ds, on_error="skip", prefetch=prefetch)] == [1.0, 3.0]
        with pytest.raises(PipelineError, match="\ufffd"):
            list(made(ds, prefetch=prefetch))


def test_a_pipeline_that_always_fails_is_not_skipped_for_ever() -> None:
    ds = (
        tf.data.Dataset.range(3)
        .repeat()
        .map(lambda i: tf.debugging.check_numerics(tf.cast(i, tf.float32) / 0.0, "always"))
    )
    with pytest.raises(PipelineError, match="element 99"):
        next(iter(TorchDataset(ds, on_error="skip")))


def test_every_failure_of_a_pass_is_reported_once() -> None:
    ds = tf.data.Dataset.range(9).map(
        lambda i: tf.debugging.check_numerics(1 / (i % 3 - 1), "every third")
    )
    assert taken(iter(TorchDataset(ds))) == [-1, "1", 1, -1, "4", 1, -1, "7", 1]


@pytest.mark.parametrize("error", [ValueError, KeyError, StopIteration, tf.errors.OutOfRangeError])
def test_map_functions_that_raise(error: type[Exception]) -> None:
    def raise_at_two(i: Any) -> Any:
        if int(i) == 2:
            raise error(None, None, "no") if error is tf.errors.OutOfRangeError else error("no")
        return i

    ds = tf.data.Dataset.range(5).map(lambda i: tf.py_function(raise_at_two, [i], tf.int64))
    expected = []
    reference = iter(ds)
    while True:
        try:
            expected.append(int(next(reference)))
        except StopIteration:
            break
        except tf.errors.OpError:
            expected.append("2")
    assert taken(iter(TorchDataset(ds))) == expected == [0, 1, "2", 3, 4]


def test_a_corrupt_record_ends_its_file_and_no_more(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in "ab"]
    for path in paths:
        with tf.io.TFRecordWriter(path) as writer:
            for i in range(4):
                writer.write(f"{path[-1]}{i}".encode())
    data = bytearray(Path(paths[0]).read_bytes())
    data[2 * (len(data) // 4) + 12] ^= 0xFF  # in the payload of the third record
    Path(paths[0]).write_bytes(data)
    elements = iter(TorchDataset(tf.data.TFRecordDataset(paths)))
    assert [next(elements).item() for _ in range(2)] == [b"a0", b"a1"]
    with pytest.raises(PipelineError, match="element 2") as caught:
        next(elements)
    assert caught.value.code == "DATA_LOSS"
    assert [element.item() for element in elements] == [b"b0", b"b1", b"b2", b"b3"]


def test_a_missing_file() -> None:
    elements = iter(TorchDataset(tf.data.TFRecordDataset(["/nonexistent/records"])))
    with pytest.raises(PipelineError) as caught:
        next(elements)
    assert caught.value.code == "NOT_FOUND"


def test_an_element_that_torch_cannot_hold_is_named() -> None:
    t = tf.quantization.quantize([1.0, 2.0], 0.0, 2.0, tf.qint8)[0]
    ds = tf.data.Dataset.from_tensors({"q": t})
    elements = iter(TorchDataset(ds))
    with pytest.raises(tensor_bridge.UnsupportedDtypeError, match=r"element 0: .*raw=True"):
        next(elements)
    assert list(elements) == []
    ((element),) = TorchDataset(ds, raw=True)
    assert element["q"].shape == (2,)


def test_failures_on_the_way_to_a_device_come_in_their_place() -> None:
    elements = iter(loader(failing(), device="meta"))
    seen = []
    while True:
        try:
            next(elements)
            seen.append("element")
        except PipelineError as e:
            seen.append(str(e.ordinal))
        except StopIteration:
            break
    assert seen == ["element", "element", "2", "element", "element", "element"]
