"""Python objects that lie, raise or forward, and whose code a conversion must not run."""

from __future__ import annotations

from typing import Any


def touched(*_: Any, **__: Any) -> Any:
    raise AssertionError("the conversion ran the object's code")


SPECIAL = (
    *("__eq__", "__ne__", "__lt__", "__hash__", "__bool__", "__len__", "__iter__", "__next__"),
    *("__getitem__", "__contains__", "__index__", "__int__", "__float__", "__call__", "__enter__"),
    *("__array__", "__dlpack__", "__dlpack_device__", "__tf_tensor__", "__repr__", "__str__"),
    *("__getattr__", "__torch_function__", "__torch_dispatch__", "__tf_dispatch__", "__reduce__"),
    *("__format__", "__bytes__", "__buffer__", "__copy__", "__deepcopy__", "_numpy", "numpy"),
    "data_ptr",
)
Untouchable = type("Untouchable", (), dict.fromkeys(SPECIAL, touched))


def lying(claimed: type) -> Any:
    """An object that says it is of another class."""

    class LiesAboutItsClass:
        @property
        def __class__(self) -> type:
            return claimed

    return LiesAboutItsClass()


class RaisesAboutItsClass:
    @property
    def __class__(self) -> type:
        raise RuntimeError("no class")


class OddMeta(type):
    """Metaclass of classes with invalid names, and with attributes that raise."""

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
    """An object of a class with this name."""
    return type(name, (), {"__module__": module, **members})()
