"""Other values than tensors and plain data in structures: an error with the path, or kept."""

from __future__ import annotations

import datetime
import decimal
import enum
import pathlib
import types
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch
from sharing import nothing_kept
from ways import Way

import tensor_bridge


class Color(enum.Enum):
    RED = 1


class Anything:
    pass


UNKNOWN: dict[str, Any] = {
    "array": np.zeros(3),
    "empty array": np.zeros(0),
    "array scalar": np.float32(1),
    "object": Anything(),
    "class": Anything,
    "enumeration": Color.RED,
    "set": {1, 2},
    "range": range(3),
    "bytearray": bytearray(3),
    "memoryview": memoryview(b"abc"),
    "path": pathlib.Path("a"),
    "date": datetime.date(2020, 1, 1),
    "decimal": decimal.Decimal(1),
    "namespace": types.SimpleNamespace(a=1),
    "function": len,
    "module": types,
    "torch dtype": torch.float32,
    "torch size": torch.Size([1, 2]),
    "torch device": torch.device("cpu"),
    "torch generator": torch.Generator(),
    "torch module": torch.nn.Linear(1, 1),
    "tf dtype": tf.float32,
    "tf shape": tf.TensorShape([1, None]),
    "tf spec": tf.TensorSpec([1]),
    "dataset": tf.data.Dataset.range(3),
    "exception": ValueError("x"),
    "ellipsis": ...,
    "NotImplemented": NotImplemented,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_value_raises_and_names_its_path(name: str, way: Way) -> None:
    value = UNKNOWN[name]
    for source, path in [
        ([way.leaf(), value], "[1]"),
        ({"a": (value, way.leaf())}, "['a'][0]"),
    ]:
        with nothing_kept(), pytest.raises(TypeError) as caught:
            way.convert(source)
        assert type(caught.value) is tensor_bridge.UnsupportedTypeError
        message = str(caught.value)
        assert message.startswith(f"at {path}: expected a "), message
        assert "unknown='keep'" in message
        del caught


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_value_is_kept_if_asked_for(name: str, way: Way) -> None:
    value = UNKNOWN[name]
    leaf = way.leaf()
    result = way.convert({"a": [leaf, value], "b": value}, unknown="keep")
    assert result["a"][1] is value
    assert result["b"] is value
    assert way.is_converted(leaf, result["a"][0])


@pytest.mark.parametrize("name", ["array", "object", "set", "torch module"])
def test_kept_values_are_no_leaves(name: str, way: Way) -> None:
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="without any"):
        way.convert([UNKNOWN[name], 3], unknown="keep")


@pytest.mark.parametrize("name", ["array", "object", "path"])
def test_keep_is_for_values_inside_a_structure(name: str, way: Way) -> None:
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="expected a"):
        way.convert(UNKNOWN[name], unknown="keep")


def test_advice_for_arrays(way: Way) -> None:
    advice = "torch.from_numpy" if way.name == "to_torch" else "tf.convert_to_tensor"
    with pytest.raises(TypeError, match=advice):
        way.convert([way.leaf(), np.zeros(3)])


def test_keep_does_not_keep_tensors_that_are_refused(way: Way) -> None:
    with nothing_kept(), pytest.raises(way.bad, match=r"^at \[1\]: "):
        way.convert([way.leaf(), way.refused()], unknown="keep")


def test_keep_reaches_every_kind_of_node(way: Way) -> None:
    import collections
    import dataclasses

    @dataclasses.dataclass
    class Record:
        value: Any
        other: Any

    value = UNKNOWN["array"]
    source = collections.OrderedDict(
        a=Record([value], way.leaf()), b=collections.deque([value]), c=[way.leaf(), (value,)]
    )
    result = way.convert(source, unknown="keep")
    assert result["a"].value[0] is result["b"][0] is result["c"][1][0] is value
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match=r"^at \['a'\]\.value\[0\]: "):
        way.convert(source)


def test_single_tensors_take_the_keyword(way: Way) -> None:
    for unknown in ("raise", "keep"):
        leaf = way.leaf()
        assert way.is_converted(leaf, way.convert(leaf, unknown=unknown))


@pytest.mark.parametrize("unknown", [None, True, "Keep", "", "drop", b"keep", 1])
def test_keyword_is_checked(unknown: Any, way: Way) -> None:
    for source in (way.leaf(), [way.leaf()], {"a": way.leaf()}):
        with pytest.raises(tensor_bridge.InvalidOptionError, match="unknown must be 'raise'"):
            way.convert(source, unknown=unknown)


def test_object_that_misbehaves_inside_a_structure(way: Way) -> None:
    class Misbehaves:
        __slots__ = ()

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(f"asked for {name}")

        def __eq__(self, _: object) -> bool:
            raise RuntimeError("compared")

        __hash__ = None  # type: ignore[assignment]

    value = Misbehaves()
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match=r"^at \[1\]: "):
        way.convert([way.leaf(), value])
    assert way.convert([way.leaf(), value], unknown="keep")[1] is value


def test_class_that_lies_inside_a_structure(way: Way) -> None:
    class Lies:
        def __init__(self, claimed: type) -> None:
            self.claimed = claimed

        @property
        def __class__(self) -> type:
            return self.claimed

    for claimed in (torch.Tensor, type(tf.constant(0)), list, dict, tuple, int):
        value = Lies(claimed)
        with pytest.raises(tensor_bridge.UnsupportedTypeError, match=r"^at \[1\]: "):
            way.convert([way.leaf(), value])
