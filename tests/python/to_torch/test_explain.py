"""The result of explain: its fields and its text. explain changes nothing and never raises.

The tests of conversions assert that explain agrees with them.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from refusals import explained
from sharing import owners
from tf_bytes import NUMERIC, random_tensor, row_named, tf_memory

import tensor_bridge
from tensor_bridge import Explanation
from tensor_bridge.testing import tf_data_address

FIELDS = (
    "action",
    "reason",
    "tf_dtype",
    "torch_dtype",
    "shape",
    "device",
    "nbytes",
    "on_write",
    "error",
    "kind",
    "parts",
    "direction",
)


def unwrapped(explanation: Any) -> str:
    return " ".join(str(explanation).split())


def test_fields_of_a_shared_tensor(interface: Any) -> None:
    explanation = interface.explain(tf.constant([[1.0, 2.0, 3.0]]))
    assert isinstance(explanation, Explanation)
    assert dataclasses.asdict(explanation) == {
        "action": "shared",
        "reason": "both frameworks have the dtype; the memory is shared",
        "tf_dtype": "float32",
        "torch_dtype": "torch.float32",
        "shape": (1, 3),
        "device": "cpu",
        "nbytes": 12,
        "on_write": "copy",
        "error": None,
        "kind": None,
        "parts": (),
        "direction": "to_torch",
    }


@needs.dtype("int4")
def test_fields_of_a_copied_tensor(interface: Any) -> None:
    explanation = interface.explain(random_tensor(row_named("int4"), (2, 3)))
    assert (explanation.action, explanation.torch_dtype) == ("copied", "torch.int8")
    assert (explanation.shape, explanation.nbytes) == ((2, 3), 6)
    assert explanation.on_write is None


@needs.dtype("float4_e2m1fn")
def test_fields_of_a_tensor_that_grows(interface: Any) -> None:
    four = interface.explain(random_tensor(row_named("float4_e2m1fn"), (2, 3)))
    assert (four.torch_dtype, four.nbytes) == ("torch.float32", 24)


def test_fields_of_a_refused_tensor(interface: Any) -> None:
    explanation = interface.explain(tf.Variable([1.0]).handle)
    assert (explanation.action, explanation.tf_dtype) == ("refused", "resource")
    assert explanation.error is tensor_bridge.UnsupportedDtypeError
    assert explanation.torch_dtype is explanation.device is explanation.nbytes is None
    assert explanation.on_write is None


def test_the_class_has_these_fields_and_is_frozen(interface: Any) -> None:
    assert tuple(field.name for field in dataclasses.fields(Explanation)) == FIELDS
    explanation = interface.explain(tf.constant(1.0))
    for name in FIELDS:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(explanation, name, None)
    assert explanation == interface.explain(tf.constant(1.0))
    assert hash(explanation) == hash(interface.explain(tf.constant(1.0)))


def test_it_prints_what_it_would_do(interface: Any) -> None:
    # Older releases of torch always copy then.
    held = " if TensorFlow still holds it" if needs.torch_release >= (2, 13) else ""
    assert unwrapped(interface.explain(tf.constant([1.0, 2.0]))) == (
        "shared: float32 -> torch.float32, shape (2,), 8 bytes, on cpu, copied at the first write"
        f"{held}; both frameworks have the dtype; the memory is shared"
    )
    assert unwrapped(interface.explain(tf.constant(1), copy=True)) == (
        "copied: int32 -> torch.int32, shape (), 4 bytes, on cpu; copy=True"
    )
    refused = str(interface.explain(tf.Variable([1.0]).handle))
    assert refused.startswith("refused (UnsupportedDtypeError) resource: ")
    assert str(interface.explain(None)).startswith("refused (UnsupportedTypeError): ")
    assert repr(interface.explain(None)) == str(interface.explain(None))


def test_the_arrow_points_from_the_source_to_the_result(interface: Any) -> None:
    x = torch.ones(2)
    there = explained(interface, x)
    assert (there.direction, there.tf_dtype, there.torch_dtype) == (
        *("to_tf", "float32", "torch.float32"),
    )
    assert "torch.float32 -> float32, shape (2,)" in unwrapped(there)
    strings = interface.to_torch(tf.constant(["a"]))
    assert "string, torch.uint8 -> string" in unwrapped(explained(interface, strings))
    assert "string, string -> torch.uint8" in unwrapped(interface.explain(tf.constant(["a"])))
    nested = tensor_bridge.explain(torch.eye(2).to_sparse())
    assert nested.direction == "to_tf"
    assert "SparseTensor, torch.float32 -> float32" in unwrapped(nested)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_lines_end_at_the_edge_of_the_terminal(
    columns: int, interface: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = interface.explain(tf.constant([1.0, 2.0]))
    several = tensor_bridge.explain({"a": tf.sparse.eye(3), "a longer name": torch.ones(2)})
    whole = unwrapped(several)
    monkeypatch.setenv("COLUMNS", str(columns))
    for explanation in (one, several):
        lines = str(explanation).splitlines()
        assert max(map(len, lines)) <= columns
        assert min(map(len, lines)) > 0
    assert unwrapped(several) == whole
    lines = str(one).splitlines()
    assert len(lines) == (1 if columns == 200 else len(lines))
    assert all(line.startswith("    ") for line in lines[1:])


@pytest.mark.parametrize("value", [{}, [], {"step": 3}, [None]])
def test_a_structure_without_tensors_says_so(value: Any) -> None:
    explanation = tensor_bridge.explain(value)
    assert explanation.error is tensor_bridge.UnsupportedTypeError
    kind = type(value).__name__
    assert unwrapped(explanation).endswith(
        f"TensorFlow or torch values in it, got a {kind} without any"
    )
    for convert in (tensor_bridge.to_torch, tensor_bridge.to_tf):
        with pytest.raises(tensor_bridge.UnsupportedTypeError, match=f"got a {kind} without any"):
            convert(value)


def test_interfaces_explain_alike() -> None:
    bridge = tensor_bridge.TensorBridge()
    v = tf.Variable([1.0])
    v.scatter_nd_update([[0]], [2.0])
    values = [
        tf.constant(1.0),
        tf.zeros([0, 3]),
        *(random_tensor(row) for row in NUMERIC if row.kind != "shared"),
        tf.Variable([1.0]).handle,
        tf.Variable([True]),
        v,
        None,
        tf.keras.Input((2,)),
    ]
    for value in values:
        for options in ({}, {"copy": False}, {"raw": True}, {"device": "cuda"}, {"copy": 3}):
            assert tensor_bridge.explain(value, **options) == bridge.explain(value, **options)


def test_explaining_changes_nothing(interface: Any) -> None:
    t = tf.constant([1.0, 2.0]) * 1
    v = tf.Variable([1.0, 2.0])
    with owners():
        for value in (t, v):
            address, bits = tf_data_address(value), tf_memory(value)
            for options in ({}, {"copy": True}, {"on_write": "raise"}, {"raw": True}):
                interface.explain(value, **options)
            assert (tf_data_address(value), tf_memory(value)) == (address, bits)


def test_a_long_reason_is_not_lost(interface: Any) -> None:
    explanation = interface.explain(tf.constant(1.0), on_write="x" * 10_000)
    assert explanation.action == "refused"
    assert len(explanation.reason) > 1000


class Hostile(type):
    """A metaclass that raises for every attribute of its classes."""

    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(f"asked for {name}")


class Asked(metaclass=Hostile):
    pass


class Raises:
    def __getattr__(self, name: str) -> Any:
        raise MemoryError(name)

    def __repr__(self) -> str:
        raise ZeroDivisionError

    def __bool__(self) -> bool:
        raise ZeroDivisionError

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    __hash__ = None  # type: ignore[assignment]


class PretendsToBeEager:
    @property
    def __class__(self) -> type:
        return type(tf.constant(1.0))


WHATEVER: dict[str, Any] = {
    "None": None,
    "int": 0,
    "text": "text",
    "object": object(),
    "class": object,
    "class of eager tensors": type(tf.constant(1.0)),
    "function": lambda t: t,
    "torch": torch,
    "tensorflow": tf,
    "lock": threading.Lock(),
    "raises at everything": Raises(),
    "metaclass that raises": Asked(),
    "pretends to be eager": PretendsToBeEager(),
    "NotImplemented": NotImplemented,
}


@pytest.mark.parametrize("name", WHATEVER)
def test_it_never_raises_whatever_the_value_is(name: str, interface: Any) -> None:
    explanation = interface.explain(WHATEVER[name])
    assert explanation.action == "refused"
    assert isinstance(explanation.error, type)
    assert isinstance(str(explanation), str)
    with pytest.raises(explanation.error):
        interface.to_torch(WHATEVER[name])


NO_OPTION: dict[str, Any] = {
    "raises at everything": Raises(),
    "list": [],
    "dict": {},
    "large int": 2**100,
    "nan": float("nan"),
    "nul": "\0",
    "lone surrogate": "\ud800",
    "bytes": b"\xff",
}


@pytest.mark.parametrize("name", ["copy", "on_write", "raw", "device", "axis", "scale"])
@pytest.mark.parametrize("value", NO_OPTION)
def test_it_never_raises_whatever_the_keywords_are(name: str, value: str, interface: Any) -> None:
    options = {name: NO_OPTION[value]}
    if name in ("axis", "scale"):
        options = {"scale": 1.0, "zero_point": 0, **options}
    for t in (tf.constant(1.0), tf.Variable([1.0])):
        explanation = interface.explain(t, **options)
        assert explanation.action == "refused"
        assert isinstance(str(explanation), str)
