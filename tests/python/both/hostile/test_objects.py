"""Python objects that lie, raise, recurse or never end: typed errors; their code does not run."""

from __future__ import annotations

import ctypes
import itertools
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
import torch
from fresh import run_forked
from hostile_objects import (
    EqualToEverything,
    Forwards,
    Odd,
    RaisesAboutItsClass,
    Untouchable,
    lying,
    named,
    touched,
)
from sharing import numbers, owners, values
from tensorflow.python.eager import context
from ways import WAYS

import tensor_bridge

EagerTensor = type(tf.constant(0))


def endless() -> Iterator[int]:
    yield from itertools.count()


def capsule(name: bytes | None) -> Any:
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return new(id(name), name, None)


_kept, _values = numbers(), values()

OBJECTS: dict[str, Callable[[Any], Any]] = {
    "special methods that raise": lambda t: Untouchable(),
    "class that lies": lambda t: lying(type(t)),
    "equal to everything": lambda t: EqualToEverything(),
    "proxy of a tensor": Forwards,
    "weak proxy of a tensor": weakref.proxy,
    "weak reference": weakref.ref,
    "mock": lambda t: mock.MagicMock(),
    "mock of a tensor": lambda t: mock.MagicMock(spec=t if tf.is_tensor(t) else type(t)),
    "class of the name of a tensor's": lambda t: named(type(t).__module__, type(t).__name__),
    "class with a number for a module": lambda t: named(17, "Numbered"),
    "class with an odd name": lambda t: named("a\0b", "%s %n {} \x1b"),
    "class with a long name": lambda t: named("m" * 5000, "n" * 5000),
    "the class of a tensor": type,
    "type": lambda t: type,
    "generator": lambda t: (u for u in [t]),
    "endless generator": lambda t: endless(),
    "endless iterator": lambda t: itertools.count(),
    "range": lambda t: range(10**12),
    "huge int": lambda t: 10**5000,
    "NaN": lambda t: float("nan"),
    "None": lambda t: None,
    "bytes": lambda t: b"\0" * 100,
    "memoryview": lambda t: memoryview(bytearray(8)),
    "set": lambda t: {1, 2},
    "function": lambda t: touched,
    "module": lambda t: types.ModuleType("m"),
    "capsule without a name": lambda t: capsule(None),
    "capsule that says dltensor": lambda t: capsule(b"dltensor"),
    "capsule that says dltensor_versioned": lambda t: capsule(b"dltensor_versioned"),
    "torch's capsule": lambda t: torch.utils.dlpack.to_dlpack(torch.zeros(2)),
    "TensorFlow's context": lambda t: context.context()._handle,
    "torch storage": lambda t: torch.zeros(2).untyped_storage(),
    "typed storage": lambda t: torch.storage.TypedStorage(
        wrap_storage=torch.zeros(2).untyped_storage(), dtype=torch.float32, _internal=True
    ),
    "tf.DType": lambda t: tf.float32,
    "torch.dtype": lambda t: torch.float32,
    "torch.Size": lambda t: torch.Size([2, 3]),
    "array": lambda t: np.zeros(3),
    "array scalar": lambda t: np.float32(3),
    "array of objects": lambda t: np.array([t, None], dtype=object),
    "NotImplemented": lambda t: NotImplemented,
    "ellipsis": lambda t: ...,
}
OF_TENSORFLOW: dict[str, Callable[[], Any]] = {
    "tf.Tensor": numbers,
    "tf.Variable": lambda: tf.Variable(1.0),
    "string tensor": lambda: tf.constant("a"),
}


def assert_object_is_refused(convert: Callable[[Any], Any], value: Any) -> None:
    with pytest.raises(tensor_bridge.UnsupportedTypeError) as caught:
        convert(value)
    assert type(caught.value) is tensor_bridge.UnsupportedTypeError
    assert isinstance(caught.value, TypeError)
    assert str(caught.value).startswith("expected a")
    assert len(str(caught.value)) < 20_000


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OBJECTS)
def test_object_is_refused_without_running_its_code(name: str, way: str, interface: Any) -> None:
    with owners():
        value = OBJECTS[name](_kept if way == "to_torch" else _values)
        assert_object_is_refused(getattr(interface, way), value)
        explanation = interface.explain(value)
        assert explanation.action == "refused"
        assert explanation.error is tensor_bridge.UnsupportedTypeError
        str(explanation)


@pytest.mark.parametrize("name", OF_TENSORFLOW)
def test_tensorflow_s_own_values_do_not_go_to_tensorflow(name: str, interface: Any) -> None:
    assert_object_is_refused(interface.to_tf, OF_TENSORFLOW[name]())
    if name != "string tensor":
        with pytest.raises(tensor_bridge.UnsupportedTypeError, match="TensorFlow's already"):
            interface.to_tf(OF_TENSORFLOW[name]())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [lambda: Odd(), RaisesAboutItsClass], ids=["odd", "raises"])
def test_class_that_cannot_be_asked_is_refused_somehow(
    make: Callable[[], Any], way: str, interface: Any
) -> None:
    with pytest.raises((TypeError, RuntimeError, ctypes.ArgumentError)):
        getattr(interface, way)(make())
    assert interface.explain(make()).action == "refused"


def test_eager_tensor_has_no_subclasses_to_mistake_for_it(interface: Any) -> None:
    try:
        Sub = type("Sub", (EagerTensor,), {})
        value = Sub(numbers(), "/job:localhost/replica:0/task:0/device:CPU:0", None)
    except (TypeError, AttributeError):
        return  # TensorFlow does not allow it
    with pytest.raises(TypeError):
        interface.to_torch(value)


def test_numpy_methods_are_not_called(interface: Any) -> None:
    with (
        mock.patch.object(EagerTensor, "__array__", touched),
        mock.patch.object(EagerTensor, "numpy", touched),
    ):
        t = numbers()
        assert interface.to_torch(t).sum() == sum(range(24))
        assert interface.explain(t).action == "shared"


def self_containing(kind: type) -> Any:
    made: Any = kind()
    if kind is dict:
        made.update(a=_kept, b=made)
    else:
        made.extend([_kept, made])
    return made


def deep(wrap: Callable[[Any], Any]) -> Any:
    value: Any = _kept
    for _ in range(100_000):
        value = wrap(value)
    return value


RECURSIVE: dict[str, Callable[[], Any]] = {
    "list in itself": lambda: self_containing(list),
    "dict in itself": lambda: self_containing(dict),
    "deep list": lambda: deep(lambda v: [v]),
    "deep tuple": lambda: deep(lambda v: (v,)),
    "deep dict": lambda: deep(lambda v: {"a": v}),
}


@pytest.mark.parametrize("name", RECURSIVE)
def test_structure_without_an_end_is_an_error(name: str, interface: Any) -> None:
    with owners():
        value = RECURSIVE[name]()
        with pytest.raises((RecursionError, tensor_bridge.UnsupportedTypeError)):
            interface.to_torch(value)
        assert interface.explain(value) is not None
    assert interface.to_torch(_kept).shape == (4, 6)


def test_private_functions_of_the_extension_survive_nonsense() -> None:
    """Nobody should call them like this, but the process must not crash."""
    run_forked("""
        from tensor_bridge import _C
        from tensorflow.python.eager import context
        v = tf.Variable([1.0])
        ctx = context.context()._handle
        values = (None, 1, -1, 2**70, "x", b"", [], {}, 1.5, object(), tf.constant("a"),
                  v.handle, ctx, torch.zeros(2), tf.constant([1.0]), type, ...)
        calls = {name: getattr(_C, name) for name in dir(_C) if callable(getattr(_C, name))}
        # Of capsules and of addresses with sizes nobody can tell whether they are what they say.
        skip = ("torch_from_dlpack", "capsule_is_read_only", "__loader__", "stored_format",
                "graph_constants", "tflite_tensors", "v1_index", "example_keys",
                "tensor_describe")
        for name, function in calls.items():
            if name in skip or name.startswith("__"):
                continue
            for count in range(4):
                for value in values:
                    for arguments in {0: [()], 1: [(value,)], 2: [(value, value), (v, value)],
                                      3: [(value, value, value), (v.handle, ctx, value),
                                          (v.handle, value, 1), (value, ctx, 1)]}[count]:
                        try:
                            result = function(*arguments)
                        except Exception:
                            pass
                        result = None
        import gc
        gc.collect()
        assert testing.live_owners() == 0, testing.live_owners()
    """).check()
