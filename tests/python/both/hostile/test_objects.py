"""Python objects that lie, raise, recurse or do not end: typed errors, none of their code runs."""

from __future__ import annotations

import ctypes
import itertools
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import tensorflow as tf
import torch
from fresh import run_forked
from sharing import numbers
from tensorflow.python.eager import context

import tensor_bridge
from tensor_bridge.testing import live_owners

EagerTensor = type(tf.constant(0))


def touched(*_: Any, **__: Any) -> Any:
    raise AssertionError("the conversion ran the object's code")


SPECIAL = (
    *("__eq__", "__ne__", "__lt__", "__hash__", "__bool__", "__len__", "__iter__", "__next__"),
    *("__getitem__", "__contains__", "__index__", "__int__", "__float__", "__call__", "__enter__"),
    *("__array__", "__dlpack__", "__dlpack_device__", "__tf_tensor__", "__repr__", "__str__"),
    *("__getattr__", "__torch_function__", "__torch_dispatch__", "__tf_dispatch__", "__reduce__"),
    *("__format__", "__bytes__", "__buffer__", "__copy__", "__deepcopy__", "_numpy", "numpy"),
)
Untouchable = type("Untouchable", (), dict.fromkeys(SPECIAL, touched))


class LiesAboutItsClass:
    @property
    def __class__(self) -> type:
        return EagerTensor


class RaisesAboutItsClass:
    @property
    def __class__(self) -> type:
        raise RuntimeError("no class")


class OddMeta(type):
    """Its classes have names that are none, and attributes that raise."""

    def __getattribute__(cls, name: str) -> Any:
        if name in ("__module__", "__qualname__", "__name__", "__mro__"):
            raise RuntimeError(f"no {name}")
        return super().__getattribute__(name)


class Odd(metaclass=OddMeta):
    pass


class EqualToEverything:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash(None)


class Forwards:
    """A proxy, as wrapt and others make them."""

    def __init__(self, target: Any) -> None:
        self.__dict__["target"] = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["target"], name)


def named(module: Any, name: str, **members: Any) -> Any:
    return type(name, (), {"__module__": module, **members})()


def endless() -> Iterator[int]:
    yield from itertools.count()


def capsule(name: bytes | None) -> Any:
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return new(id(name), name, None)


_kept = numbers()

OBJECTS: dict[str, Callable[[], Any]] = {
    "special methods that raise": Untouchable,
    "class that lies": LiesAboutItsClass,
    "equal to everything": EqualToEverything,
    "proxy of a tensor": lambda: Forwards(_kept),
    "weak proxy of a tensor": lambda: weakref.proxy(_kept),
    "weak reference": lambda: weakref.ref(_kept),
    "mock": mock.MagicMock,
    "mock of a tensor": lambda: mock.MagicMock(spec=_kept),
    "class of the name EagerTensor": lambda: named(EagerTensor.__module__, "EagerTensor"),
    "class with a number for a module": lambda: named(17, "Numbered"),
    "class with an odd name": lambda: named("a\0b", "%s %n {} \x1b"),
    "class with a long name": lambda: named("m" * 5000, "n" * 5000),
    "the class EagerTensor": lambda: EagerTensor,
    "type": lambda: type,
    "generator": lambda: (t for t in [_kept]),
    "endless generator": endless,
    "range": lambda: range(10**12),
    "huge int": lambda: 10**5000,
    "NaN": lambda: float("nan"),
    "bytes": lambda: b"\0" * 100,
    "memoryview": lambda: memoryview(bytearray(8)),
    "set": lambda: {1, 2},
    "function": lambda: touched,
    "module": lambda: types.ModuleType("m"),
    "capsule without a name": lambda: capsule(None),
    "capsule that says dltensor": lambda: capsule(b"dltensor"),
    "capsule that says dltensor_versioned": lambda: capsule(b"dltensor_versioned"),
    "torch's capsule": lambda: torch.utils.dlpack.to_dlpack(torch.zeros(2)),
    "TensorFlow's context": lambda: context.context()._handle,
    "torch storage": lambda: torch.zeros(2).untyped_storage(),
    "NotImplemented": lambda: NotImplemented,
    "ellipsis": lambda: ...,
}


@pytest.mark.parametrize("name", OBJECTS)
def test_object_is_refused_without_running_its_code(name: str, interface: Any) -> None:
    before = live_owners()
    value = OBJECTS[name]()
    with pytest.raises(tensor_bridge.UnsupportedTypeError) as caught:
        interface.to_torch(value)
    assert type(caught.value) is tensor_bridge.UnsupportedTypeError
    assert isinstance(caught.value, TypeError)
    assert str(caught.value).startswith("expected a")
    explanation = interface.explain(value)
    assert explanation.action == "refused"
    assert explanation.error is tensor_bridge.UnsupportedTypeError
    str(explanation)
    assert live_owners() == before


@pytest.mark.parametrize("make", [lambda: Odd(), RaisesAboutItsClass], ids=["odd", "raises"])
def test_class_that_cannot_be_asked_is_refused_somehow(
    make: Callable[[], Any], interface: Any
) -> None:
    with pytest.raises((TypeError, RuntimeError, ctypes.ArgumentError)):
        interface.to_torch(make())
    assert interface.explain(make()).action == "refused"


def test_eager_tensor_has_no_subclasses_to_mistake_for_it(interface: Any) -> None:
    try:
        Sub = type("Sub", (EagerTensor,), {})
        value = Sub(numbers(), "/job:localhost/replica:0/task:0/device:CPU:0", None)
    except (TypeError, AttributeError):
        return  # TensorFlow does not let anybody
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
    before = live_owners()
    value = RECURSIVE[name]()
    with pytest.raises((RecursionError, tensor_bridge.UnsupportedTypeError)):
        interface.to_torch(value)
    assert interface.explain(value) is not None
    assert live_owners() == before
    assert interface.to_torch(_kept).shape == (4, 6)


def test_private_functions_of_the_extension_survive_nonsense() -> None:
    """Nobody should call them so; a process must not die of it."""
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
                "graph_constants", "tflite_tensors", "v1_index")
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
