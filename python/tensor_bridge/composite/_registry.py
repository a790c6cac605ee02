"""The registry of composite values: everything that is more than one dense tensor.

A composite decomposes into dense tensors plus a static description, so it never sees pointers. A
value is found by the full names of its classes, so that registering needs no framework; values
that are a ``tf.Tensor`` or a ``torch.Tensor`` themselves are found by "tf.dtype:string" or by
torch's layout ("torch.sparse_coo").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tensor_bridge import _C, _dense, _explanation, _options, _refusals
from tensor_bridge.errors import TensorBridgeError

if TYPE_CHECKING:
    from tensor_bridge._explanation import Explanation

__all__ = [
    "EXTRA",
    "Composite",
    "Options",
    "Parts",
    "component_to_tf",
    "component_to_torch",
    "check_extras",
    "dense",
    "explain_to_tf",
    "explain_to_torch",
    "for_tensorflow",
    "for_tf_dtype",
    "for_torch",
    "named",
    "part",
    "register",
    "structural",
    "to_dense_tf",
    "to_dense_torch",
    "unregister",
]

Options = Mapping[str, Any]

Parts = tuple[Sequence[Any], Callable[[Sequence[Any]], Any]]
"""The tensors of a value on torch's side, and what makes an equal value of others in their place.

A part may be a composite itself, or a structure.
"""

EXTRA = frozenset({"strings", "unknown", "live"})
"""Keywords of `convert_tf_to_pytorch` that concern composites and structures only."""


@dataclass(frozen=True)
class Composite:
    """How one kind of value crosses.

    Attributes:
      name: Short name, unique, shown by `explain`.
      tf_keys: Full names of TensorFlow classes (subclasses match), or "tf.dtype:<name>".
      torch_keys: Full names of classes on torch's side, or torch layouts.
      to_torch: (value, options) -> torch form; options are the keywords of the call. None where
        that direction does not exist.
      to_tf: (value, options) -> TensorFlow form.
      explain: (value, options) -> what ``to_torch`` would do.
      explain_back: (value, options) -> what ``to_tf`` would do.
      parts: A value on torch's side -> its `Parts`. None where ``to_torch`` gives plain tensors.
    """

    name: str
    tf_keys: tuple[str, ...] = ()
    torch_keys: tuple[str, ...] = ()
    to_torch: Callable[[Any, Options], Any] | None = None
    to_tf: Callable[[Any, Options], Any] | None = None
    explain: Callable[[Any, Options], Explanation] | None = None
    explain_back: Callable[[Any, Options], Explanation] | None = None
    parts: Callable[[Any], Parts] | None = None


_by_tf_key: dict[str, Composite] = {}
_by_torch_key: dict[str, Composite] = {}
# One lookup a type: walking an MRO costs microseconds.
_tf_cache: WeakKeyDictionary[type, Composite | None] = WeakKeyDictionary()
_torch_cache: WeakKeyDictionary[type, Composite | None] = WeakKeyDictionary()


def register(composite: Composite) -> None:
    """Adds a kind of value.

    Raises:
      ValueError: one of its keys is taken.
    """
    for table, keys in ((_by_tf_key, composite.tf_keys), (_by_torch_key, composite.torch_keys)):
        for key in keys:
            if key in table:
                raise ValueError(f"{key} is registered already, by composite {table[key].name!r}")
    _by_tf_key.update(dict.fromkeys(composite.tf_keys, composite))
    _by_torch_key.update(dict.fromkeys(composite.torch_keys, composite))
    _tf_cache.clear()
    _torch_cache.clear()


def named(name: str) -> Composite | None:
    """The registered composite of that name, or None."""
    for composite in (*_by_tf_key.values(), *_by_torch_key.values()):
        if composite.name == name:
            return composite
    return None


def unregister(composite: Composite) -> None:
    """Takes a kind of value out again."""
    for table, keys in ((_by_tf_key, composite.tf_keys), (_by_torch_key, composite.torch_keys)):
        for key in keys:
            if table.get(key) is composite:
                del table[key]
    _tf_cache.clear()
    _torch_cache.clear()


def _by_class(
    kind: type, table: dict[str, Composite], cache: WeakKeyDictionary[type, Composite | None]
) -> Composite | None:
    try:
        return cache[kind]
    except KeyError:
        pass
    found = None
    for base in kind.__mro__:
        found = table.get(f"{base.__module__}.{base.__qualname__}")
        if found is not None:
            break
    cache[kind] = found
    return found


def for_tensorflow(value: Any) -> Composite | None:
    """The composite of a value on TensorFlow's side, or None."""
    if _C.is_eager_tensor(value):
        return for_tf_dtype(value.dtype.name) if _C.has_handle(value) else None
    return _by_class(type(value), _by_tf_key, _tf_cache)


def for_tf_dtype(name: str) -> Composite | None:
    """The composite of eager tensors of a dtype that is no plain numbers, or None."""
    return _by_tf_key.get(f"tf.dtype:{name}")


def for_torch(value: Any) -> Composite | None:
    """The composite of a value on torch's side, or None."""
    found = _by_class(type(value), _by_torch_key, _torch_cache)
    if found is None and _C.is_torch_tensor(value):
        # A nested tensor of the older kind calls its layout strided.
        return _by_torch_key.get("torch.nested" if value.is_nested else str(value.layout))
    return found


def check_extras(options: Options) -> None:
    """Checks the keywords that no dense tensor looks at.

    Raises:
      InvalidOptionError: one has a value that it may not have.
    """
    for name in EXTRA & options.keys():
        _options.check_extra(name, options[name])


def dense(options: Options) -> dict[str, Any]:
    """The keywords that apply to one dense tensor."""
    return {name: value for name, value in options.items() if name not in EXTRA}


def structural(options: Options) -> dict[str, Any]:
    """The keywords for the integer tensors that say where the values are.

    They keep their dtype, and no write goes through to them: it would move values.
    """
    kept = {name: options[name] for name in ("copy", "device", "on_write") if name in options}
    if kept.get("on_write") == "alias":
        kept["on_write"] = "copy"
    return kept


class part:  # noqa: N801  used like a function
    """Names the part of a composite in what is raised inside.

    A class: since Python 3.12 `contextlib.contextmanager` leaves a cycle through the traceback,
    which keeps the parts that were converted alive until the collector runs.
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
        raise _refusals.refusal(t)
    return _C.convert_tensor(t, **dense(options))


def to_dense_tf(x: Any, options: Options) -> Any:
    """Converts one dense component to TensorFlow with the keywords of the call."""
    return _C.convert_tensor_back(x, **dense(options))


def component_to_torch(value: Any, options: Options) -> Any:
    """Converts a component that is one tensor or a composite itself."""
    found = for_tensorflow(value)
    if found is not None and found.to_torch is not None:
        return found.to_torch(value, options)
    return to_dense_torch(value, options)


def component_to_tf(value: Any, options: Options) -> Any:
    """Converts a component that is one tensor or a composite itself."""
    found = for_torch(value)
    if found is not None and found.to_tf is not None:
        return found.to_tf(value, options)
    if not _C.is_torch_tensor(value):
        raise _refusals.refusal_back(value)
    return to_dense_tf(value, options)


def explain_to_torch(value: Any, options: Options) -> Explanation:
    """What `convert_tf_to_pytorch` would do with a component; raises what stands in the way."""
    found = for_tensorflow(value)
    if found is not None and found.explain is not None:
        return found.explain(value, options)
    if not _C.is_eager_tensor(value):
        raise _refusals.refusal(value)
    return _explanation.from_native(_C.explain_tensor(value, **dense(options)))


def explain_to_tf(value: Any, options: Options) -> Explanation:
    """What `convert_pytorch_to_tf` would do with a component; raises what stands in the way."""
    found = for_torch(value)
    if found is not None and found.explain_back is not None:
        return found.explain_back(value, options)
    if not _C.is_torch_tensor(value):
        raise _refusals.refusal_back(value)
    return _dense.explain_back(value, **dense(options))
