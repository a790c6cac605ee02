"""The registry of composite values: everything that is more than one dense tensor.

A composite declares its parts, which are dense tensors or composites themselves; its conversion and
its explanation follow from them, so it never handles pointers. The full names of a value's classes
are the key, so registering needs no framework. A value that is itself a ``tf.Tensor`` has the key
"tf.dtype:string"; one that is a ``torch.Tensor`` has its layout as key ("torch.sparse_coo").
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from tensor_bridge import _C, _dense, _explanation, _options, _refusals, _structures
from tensor_bridge.errors import TensorBridgeError

if TYPE_CHECKING:
    from tensor_bridge._explanation import Explanation

Options = Mapping[str, Any]

Parts = tuple[Sequence[Any], Callable[[Sequence[Any]], Any]]
"""The tensors of a torch value, and the function that rebuilds the value from other tensors.

A part may be a composite itself, or a structure.
"""


# ---- what a kind of value declares ---------------------------------------------------------------


Part = tuple[str, Any, Options, Callable[["Explanation"], "Explanation"] | None]
"""One part of a value that is converted. A plain tuple, which is made four times as fast.

Its items: the name, for errors and `explain`; a tensor, a composite, or a structure of them; the
keywords of its conversion; a function that changes its explanation, or None.
"""

Kind = str | Callable[[], tuple[str, tuple[int | None, ...]]]
"""The name of the result in `explain`, or a function that returns the name and the shape.

The function raises the errors that making the result would raise. With a function, the result's
dtypes, device and write policy are those of the first part.
"""

Assembly = tuple[Kind, Sequence[Part], Callable[[Sequence[Any]], Any]]
"""A value taken apart: its kind, its parts, and the function that makes the result from them.

The parts are converted, explained and given to that function in their order. The function makes the
checks that the frameworks do not make.
"""


class Conversion(NamedTuple):
    """One direction of a composite: the function that converts, and the one that explains.

    `of_parts` and `instead` make both from one source, so that they cannot differ. Written by hand
    only where the library converts the value as a whole.
    """

    convert: Callable[[Any, Options], Any]
    explain: Callable[[Any, Options], Explanation]


@dataclass(frozen=True)
class Composite:
    """How one kind of value is converted.

    Attributes:
      name: Short name, unique, shown by `explain`.
      tf_keys: Full names of TensorFlow classes (subclasses match), or "tf.dtype:<name>".
      torch_keys: Full names of classes on torch's side, or torch layouts.
      to_torch: None if that direction does not exist.
      to_tf: None if that direction does not exist.
      parts: A value on torch's side -> its `Parts`. None if ``to_torch`` gives plain tensors.
      of_user: Whether `register_composite` made it.
    """

    name: str
    tf_keys: tuple[str, ...] = ()
    torch_keys: tuple[str, ...] = ()
    to_torch: Conversion | None = None
    to_tf: Conversion | None = None
    parts: Callable[[Any], Parts] | None = None
    of_user: bool = False


# ---- the table -----------------------------------------------------------------------------------


class _Keys:
    """The composites of one framework by key. Never changed: registering makes a new object.

    A thread that looks a value up while another thread registers caches its answer in the old one.
    """

    def __init__(self, by_key: Mapping[str, Composite]) -> None:
        self.by_key = by_key
        # One lookup per type: walking an MRO costs microseconds.
        self._cache: WeakKeyDictionary[type, Composite | None] = WeakKeyDictionary()

    def of_class(self, kind: type) -> Composite | None:
        try:
            return self._cache[kind]
        except KeyError:
            pass
        names = (f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__)
        found = next((self.by_key[name] for name in names if name in self.by_key), None)
        self._cache[kind] = found
        return found


_tf = _Keys({})
_torch = _Keys({})
# Held while a composite is registered or taken out.
_lock = threading.Lock()
# The lock is held during fork(), so that no other thread holds it in the child for good.
os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
)


def register(composite: Composite) -> None:
    """Adds a kind of value.

    Raises:
      ValueError: its name or one of its keys is taken.
    """
    global _tf, _torch
    with _lock:
        if named(composite.name) is not None:
            raise ValueError(f"a composite named {composite.name!r} is registered already")
        for keys, side in ((composite.tf_keys, _tf), (composite.torch_keys, _torch)):
            for key in keys:
                if key in side.by_key:
                    taken = side.by_key[key].name
                    raise ValueError(f"{key} is registered already, by composite {taken!r}")
        _tf = _Keys({**_tf.by_key, **dict.fromkeys(composite.tf_keys, composite)})
        _torch = _Keys({**_torch.by_key, **dict.fromkeys(composite.torch_keys, composite)})


def unregister(name: str, *, of_user: bool) -> None:
    """Removes a kind of value.

    Raises:
      ValueError: none of that name was registered, by a user or by the package itself.
    """
    global _tf, _torch
    with _lock:
        composite = named(name)
        if composite is None or composite.of_user != of_user:
            raise ValueError(f"no composite named {name!r} was registered")
        _tf = _Keys({k: c for k, c in _tf.by_key.items() if c is not composite})
        _torch = _Keys({k: c for k, c in _torch.by_key.items() if c is not composite})


def named(name: str) -> Composite | None:
    """The registered composite of that name, or None."""
    for composite in (*_tf.by_key.values(), *_torch.by_key.values()):
        if composite.name == name:
            return composite
    return None


def for_tensorflow(value: Any) -> Composite | None:
    """The composite of a value on TensorFlow's side, or None."""
    if _C.is_eager_tensor(value):
        return for_tf_dtype(value.dtype.name) if _C.has_handle(value) else None
    return _tf.of_class(type(value))


def for_tf_dtype(name: str) -> Composite | None:
    """The composite of eager tensors whose dtype is not plain numbers, or None."""
    return _tf.by_key.get(f"tf.dtype:{name}")


def for_torch(value: Any) -> Composite | None:
    """The composite of a value on torch's side, or None."""
    found = _torch.of_class(type(value))
    if found is None and _C.is_torch_tensor(value):
        # A nested tensor of the older kind calls its layout strided.
        return _torch.by_key.get("torch.nested" if value.is_nested else str(value.layout))
    return found


# ---- directions ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Direction:
    """One of the two directions, for code that is the same in both.

    Attributes:
      name: "to_torch" or "to_tf".
      is_tensor: Whether a value is a tensor of the framework that it comes from.
      find: A value -> its composite, or None.
      convert: Converts any value with the keywords of the call.
      convert_dense: Converts one dense tensor.
      explain_dense: What ``convert_dense`` would do.
      refusal: The exception that says why a value is not converted.
    """

    name: Literal["to_torch", "to_tf"]
    is_tensor: Callable[[Any], bool]
    find: Callable[[Any], Composite | None]
    convert: Callable[..., Any]
    convert_dense: Callable[..., Any]
    explain_dense: Callable[..., Explanation]
    refusal: Callable[[Any], TensorBridgeError]

    def conversion(self, value: Any) -> Conversion | None:
        """The conversion of a composite; None for other values, and for a missing direction."""
        found = self.find(value)
        if found is None:
            return None
        return found.to_torch if self is TO_TORCH else found.to_tf

    def takes(self, value: Any) -> bool:
        """Whether a value is a tensor, symbolic ones included, or a composite."""
        return (
            self.is_tensor(value)
            or self.find(value) is not None
            or (self is TO_TORCH and _refusals.is_tensorflow_value(value))
        )

    def explain(self, value: Any, options: Options) -> Explanation:
        """What ``convert`` would do with a tensor, a composite, or a structure of them.

        Raises:
          TensorBridgeError: the error of ``convert``, if it is known in advance.
        """
        conversion = self.conversion(value)
        if conversion is not None:
            return conversion.explain(value, options)
        if self.is_tensor(value):
            return self.explain_dense(value, **dense(options))
        if isinstance(value, _structures.PLAIN) or not _structures.is_node(value):
            raise self.refusal(value)
        leaves: list[Part] = [
            (path, leaf, options, None)
            for path, leaf in _structures.leaves(value, self.takes)
            if not isinstance(leaf, _structures.PLAIN)
        ]
        return _explanation.combined(type(value).__name__, self.explain_parts(leaves))

    def explain_parts(self, parts: Sequence[Part]) -> list[tuple[str, Explanation]]:
        """The name and explanation of each part; raises the error of a part that is refused."""
        explained = []
        for name, value, options, change in parts:
            with part(name):
                explanation = self.explain(value, options)
            explained.append((name, explanation if change is None else change(explanation)))
        return explained


def _explain_tf(value: Any, **options: Any) -> Explanation:
    return _explanation.from_native(_C.explain_to_torch(value, **options), "to_torch")


TO_TORCH = Direction(
    "to_torch",
    _C.is_eager_tensor,
    for_tensorflow,
    _C.convert_tf_to_pytorch,
    _C.tensor_to_torch,
    _explain_tf,
    _refusals.refusal_to_torch,
)
TO_TF = Direction(
    "to_tf",
    _C.is_torch_tensor,
    for_torch,
    _C.convert_pytorch_to_tf,
    _C.tensor_to_tf,
    _dense.explain_to_tf,
    _refusals.refusal_to_tf,
)


def of_parts(direction: Direction, take_apart: Callable[[Any, Options], Assembly]) -> Conversion:
    """The conversion of values that ``take_apart`` splits into parts, or refuses by an error."""
    convert_part = direction.convert

    def convert(value: Any, options: Options) -> Any:
        _, parts, make = take_apart(value, options)
        converted = []
        for name, component, keywords, _ in parts:
            with part(name):
                converted.append(convert_part(component, **keywords))
        return make(converted)

    def explain(value: Any, options: Options) -> Explanation:
        kind, parts, _ = take_apart(value, options)
        return _explanation.combined(kind, direction.explain_parts(parts))

    return Conversion(convert, explain)


def instead(
    direction: Direction, other: Callable[[Any, Options], tuple[Any, Options]]
) -> Conversion:
    """Converts another value instead, with the keywords that ``other`` returns."""

    def convert(value: Any, options: Options) -> Any:
        value, options = other(value, options)
        return direction.convert(value, **options)

    def explain(value: Any, options: Options) -> Explanation:
        return direction.explain(*other(value, options))

    return Conversion(convert, explain)


# ---- keywords and parts --------------------------------------------------------------------------


def check_extras(options: Options) -> None:
    """Checks the keywords that the conversion of a dense tensor ignores.

    Raises:
      InvalidOptionError: one has a value that it does not take.
    """
    for name in _options.EXTRA.keys() & options.keys():
        _options.check_extra(name, options[name])


def dense(options: Options) -> dict[str, Any]:
    """The keywords that apply to one dense tensor."""
    return {name: value for name, value in options.items() if name not in _options.EXTRA}


def structural(options: Options) -> dict[str, Any]:
    """The keywords for the integer tensors that locate the values, such as indices.

    They keep their dtype, and writes never go through to TensorFlow: that would move its values.
    """
    kept = {name: options[name] for name in ("copy", "device", "on_write") if name in options}
    if kept.get("on_write") == "alias":
        kept["on_write"] = "copy"
    return kept


class part:  # noqa: N801  used like a function
    """Adds the name of a composite's part to errors that are raised inside.

    It is a class because since Python 3.12 `contextlib.contextmanager` leaves a cycle through the
    traceback, which keeps converted parts alive until the collector runs.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if isinstance(error, TensorBridgeError):
            raise type(error)(f"{self._name}: {error}") from error


def to_dense_torch(t: Any, options: Options) -> Any:
    """Converts one dense component to torch with the keywords of the call.

    Raises:
      SymbolicTensorError: the composite belongs to a graph, so its components have no values.
    """
    if not _C.is_eager_tensor(t):
        raise _refusals.refusal_to_torch(t)
    return _C.tensor_to_torch(t, **dense(options))
