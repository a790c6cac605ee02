"""The registry of composite values: everything that is more than one dense tensor.

A composite decomposes into dense tensors plus a static description, so it never sees pointers. A
value is found by the full names of its classes, so that registering needs no framework; values
that are a ``tf.Tensor`` or a ``torch.Tensor`` themselves are found by "tf.dtype:string" or by
torch's layout ("torch.sparse_coo").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tensor_bridge import _C

if TYPE_CHECKING:
    from tensor_bridge._explanation import Explanation

__all__ = [
    "EXTRA",
    "Composite",
    "dense",
    "for_tensorflow",
    "for_torch",
    "register",
    "to_dense_tf",
    "to_dense_torch",
]

Options = Mapping[str, Any]

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
    """

    name: str
    tf_keys: tuple[str, ...] = ()
    torch_keys: tuple[str, ...] = ()
    to_torch: Callable[[Any, Options], Any] | None = None
    to_tf: Callable[[Any, Options], Any] | None = None
    explain: Callable[[Any, Options], Explanation] | None = None
    explain_back: Callable[[Any, Options], Explanation] | None = None


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
        return _by_tf_key.get(f"tf.dtype:{value.dtype.name}") if _C.has_handle(value) else None
    return _by_class(type(value), _by_tf_key, _tf_cache)


def for_torch(value: Any) -> Composite | None:
    """The composite of a value on torch's side, or None."""
    found = _by_class(type(value), _by_torch_key, _torch_cache)
    if found is None and _C.is_torch_tensor(value):
        return _by_torch_key.get(str(value.layout))
    return found


def dense(options: Options) -> dict[str, Any]:
    """The keywords that apply to one dense tensor."""
    return {name: value for name, value in options.items() if name not in EXTRA}


def to_dense_torch(t: Any, options: Options) -> Any:
    """Converts one dense component to torch with the keywords of the call."""
    return _C.convert_tensor(t, **dense(options))


def to_dense_tf(x: Any, options: Options) -> Any:
    """Converts one dense component to TensorFlow with the keywords of the call."""
    return _C.convert_tensor_back(x, **dense(options))
