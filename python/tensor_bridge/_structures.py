"""Nested structures: nodes that the extension does not walk itself, and leaves in order.

optree handles ordered and default dicts, deques, struct sequences and the classes that users
register in its namespace "tensor_bridge"; this module handles dataclasses, attrs classes and user
dicts.
"""

from __future__ import annotations

import copy
from collections import UserDict, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

NAMESPACE = "tensor_bridge"
"""optree's namespace in which users register their own nodes."""

PLAIN = (type(None), bool, int, float, complex, str, bytes)
"""Plain data: leaves of a structure that belong to neither framework."""


def _wrapped(proxy: Any) -> Any:
    return proxy.__wrapped__


# Containers that Keras and tf.Module wrap attributes in, and the type inside: private classes of
# TensorFlow 2.12 to 2.21.
_TRACKED: dict[str, Callable[[Any], Any]] = {
    "tensorflow.python.trackable.data_structures.ListWrapper": list,
    "tensorflow.python.trackable.data_structures.List": list,
    "tensorflow.python.trackable.data_structures._TupleWrapper": _wrapped,
    "tensorflow.python.trackable.data_structures._DictWrapper": _wrapped,
    "tensorflow.python.trackable.data_structures.Mapping": dict,
    "keras.src.utils.tracking.TrackedList": list,
    "keras.src.utils.tracking.TrackedDict": dict,
}

Children = tuple[list[str], list[Any], Callable[[list[Any]], Any]]


def _field_names(node: Any) -> list[str] | None:
    kind = type(node)
    if "__dataclass_fields__" in dir(kind):
        import dataclasses

        return [field.name for field in dataclasses.fields(node)]
    attributes = getattr(kind, "__attrs_attrs__", None)
    return None if attributes is None else [attribute.name for attribute in attributes]


def _rebuild_fields(node: Any, names: list[str]) -> Callable[[list[Any]], Any]:
    def rebuild(values: list[Any]) -> Any:
        # A shallow copy: __init__ may derive, convert or refuse, and frozen classes refuse setattr.
        result = copy.copy(node)
        for name, value in zip(names, values, strict=True):
            object.__setattr__(result, name, value)
            # A dict whose items are its fields, such as the outputs of Hugging Face's models.
            if issubclass(type(node), dict) and dict.__contains__(node, name):
                dict.__setitem__(result, name, value)
        return result

    return rebuild


def _tracked(node: Any) -> Callable[[Any], Any] | None:
    kind = type(node)
    return _TRACKED.get(f"{kind.__module__}.{kind.__qualname__}")


def is_node(node: Any) -> bool:
    """Whether the value is a node that `children` takes apart."""
    import optree

    return (
        _tracked(node) is not None
        or not optree.tree_is_leaf(node, none_is_leaf=True, namespace=NAMESPACE)
        or issubclass(type(node), UserDict)
        or _field_names(node) is not None
    )


def _dict_children(node: dict[Any, Any]) -> Children:
    # The keys keep their order; optree would sort them.
    keys = list(node)

    def rebuild(values: list[Any]) -> Any:
        items = zip(keys, values, strict=True)
        if isinstance(node, defaultdict):
            return defaultdict(node.default_factory, items)
        return dict(items)

    return [f"[{key!r}]" for key in keys], list(node.values()), rebuild


def _user_dict_children(node: UserDict[Any, Any]) -> Children:
    """Children of a UserDict, such as the encodings of Hugging Face's tokenizers."""
    keys = list(node.data)

    def rebuild(values: list[Any]) -> Any:
        result = copy.copy(node)
        # The class's __setitem__ has already been applied to these items.
        result.data = dict(zip(keys, values, strict=True))
        return result

    return [f"[{key!r}]" for key in keys], list(node.data.values()), rebuild


def children(node: Any) -> Children:
    """Path entries, children, and the function that rebuilds the node from new children."""
    import optree

    plain = _tracked(node)
    if plain is not None:
        node = plain(node)
    if type(node) in (dict, defaultdict):
        return _dict_children(node)
    if optree.tree_is_leaf(node, none_is_leaf=True, namespace=NAMESPACE):
        if issubclass(type(node), UserDict):
            return _user_dict_children(node)
        names = _field_names(node) or []
        # A field of a frozen or slotted class may be unset.
        names = [name for name in names if hasattr(node, name)]
        values = [getattr(node, name) for name in names]
        return [f".{name}" for name in names], values, _rebuild_fields(node, names)
    items, metadata, entries, unflatten = optree.tree_flatten_one_level(
        node, none_is_leaf=True, namespace=NAMESPACE
    )
    fields: tuple[str, ...] | None = getattr(type(node), "_fields", None)
    return (
        [f"[{entry!r}]" for entry in entries] if fields is None else [f".{f}" for f in fields],
        list(items),
        lambda values: unflatten(metadata, values),
    )


def leaves(value: Any, is_leaf: Callable[[Any], bool], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with its path: values that ``is_leaf`` names, plain data, and non-nodes."""
    if is_leaf(value) or isinstance(value, PLAIN) or not is_node(value):
        yield path, value
        return
    entries, values, _ = children(value)
    for entry, child in zip(entries, values, strict=True):
        yield from leaves(child, is_leaf, path + entry)


# None for a leaf; for a node, how to rebuild it, and the same for each child.
Rebuild = tuple[Callable[[list[Any]], Any], list[Any]] | None


def flatten(
    value: Any,
    is_tensor: Callable[[Any], bool],
    is_leaf: Callable[[Any], bool],
    leaves: list[Any],
) -> Rebuild:
    """Appends the leaves of a structure to ``leaves``; returns how to build it again.

    Args:
      value: Any nesting of dict, list, tuple, named tuple, dataclass, optree's nodes, ...
      is_tensor: Whether a value is a tensor, as most leaves are; a quick test.
      is_leaf: Whether another value is a leaf although it could be taken apart.
      leaves: Where the leaves go.
    """
    if is_tensor(value):
        leaves.append(value)
        return None
    kind = type(value)
    if kind is tuple or kind is list:
        return kind, [flatten(child, is_tensor, is_leaf, leaves) for child in value]
    if kind is dict:
        keys = list(value)
        specs = [flatten(child, is_tensor, is_leaf, leaves) for child in value.values()]
        return lambda children: dict(zip(keys, children, strict=True)), specs
    if isinstance(value, PLAIN) or is_leaf(value) or not is_node(value):
        leaves.append(value)
        return None
    _, values, rebuild = children(value)
    return rebuild, [flatten(child, is_tensor, is_leaf, leaves) for child in values]


def build(spec: Rebuild, leaves: Iterator[Any]) -> Any:
    """The structure again, with other leaves."""
    if spec is None:
        return next(leaves)
    make, specs = spec
    return make([build(child, leaves) for child in specs])
