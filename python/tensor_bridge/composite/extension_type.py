"""tf.experimental.ExtensionType: an `Extension` with the same fields, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _explanation, _refusals
from tensor_bridge.composite._registry import (
    Composite,
    Options,
    Parts,
    component_to_tf,
    component_to_torch,
    explain_to_tf,
    explain_to_torch,
    for_tensorflow,
    for_torch,
    part,
)
from tensor_bridge.errors import MismatchError

if TYPE_CHECKING:
    from tensor_bridge._explanation import Explanation

__all__ = ["COMPOSITES", "Extension"]


class Extension:
    """The fields of a tf.experimental.ExtensionType, its tensors as torch's.

    Fields are attributes too: ``x.mask`` is ``x.fields["mask"]``. `convert_pytorch_to_tf` makes an
    object of the same class again.

    Attributes:
      kind: The class, derived from tf.experimental.ExtensionType.
      fields: Read-only mapping from the names of the fields to their values, in order. Tensors and
        composites are converted, in tuples and mappings too; everything else is as it was.
    """

    __slots__ = ("_spec", "fields", "kind")

    kind: type
    fields: Mapping[str, Any]

    def __init__(self, kind: type, fields: Mapping[str, Any], spec: Any) -> None:
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "fields", MappingProxyType(dict(fields)))
        object.__setattr__(self, "_spec", spec)

    def replace(self, **fields: Any) -> Extension:
        """The same with other values for some fields.

        Raises:
          MismatchError: there is no field of that name.
        """
        unknown = sorted(fields.keys() - self.fields.keys())
        if unknown:
            raise MismatchError(
                f"{self.kind.__name__} has no field {unknown[0]!r}; expected one of "
                f"{', '.join(self.fields)}"
            )
        return Extension(self.kind, {**self.fields, **fields}, self._spec)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self.fields:
            raise AttributeError(f"{self.kind.__name__} has no field {name!r}")
        return self.fields[name]

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"an Extension is read-only; use replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("an Extension is read-only")

    def __reduce__(self) -> tuple[Any, ...]:
        return Extension, (self.kind, dict(self.fields), self._spec)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.fields.items())
        return f"Extension({self.kind.__name__}: {values})"


def _is_tensorflow(value: Any) -> bool:
    return (
        _C.is_eager_tensor(value)
        or for_tensorflow(value) is not None
        or _refusals.is_tensorflow_value(value)
    )


def _is_torch(value: Any) -> bool:
    return _C.is_torch_tensor(value) or for_torch(value) is not None


def _map(
    value: Any, path: str, is_leaf: Callable[[Any], bool], convert: Callable[[Any], Any]
) -> Any:
    """``value`` with its leaves converted, in mappings and tuples too."""
    if is_leaf(value):
        with part(path):
            return convert(value)
    if isinstance(value, Mapping):
        return {k: _map(v, f"{path}[{k!r}]", is_leaf, convert) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_map(v, f"{path}[{i}]", is_leaf, convert) for i, v in enumerate(value))
    return value


def _leaves(value: Any, path: str, is_leaf: Callable[[Any], bool]) -> Iterator[tuple[str, Any]]:
    if is_leaf(value):
        yield path, value
    elif isinstance(value, Mapping):
        for k, v in value.items():
            yield from _leaves(v, f"{path}[{k!r}]", is_leaf)
    elif isinstance(value, (tuple, list)):
        for i, v in enumerate(value):
            yield from _leaves(v, f"{path}[{i}]", is_leaf)


def _unpacked(value: Any) -> Any:
    # Inside tf.data an object may be one variant tensor. Private; TensorFlow 2.12 to 2.21.
    from tensorflow.python.framework import extension_type

    return extension_type.unpack(value) if extension_type.is_packed(value) else value


def _fields(value: Any) -> dict[str, Any]:
    import tensorflow as tf

    return dict(tf.experimental.extension_type.as_dict(value))


def _to_torch(value: Any, options: Options) -> Extension:
    import tensorflow as tf

    value = _unpacked(value)
    fields = {
        name: _map(field, name, _is_tensorflow, lambda v: component_to_torch(v, options))
        for name, field in _fields(value).items()
    }
    return Extension(type(value), fields, tf.type_spec_from_value(value))


def _explain(value: Any, options: Options) -> Explanation:
    parts = []
    for name, field in _fields(_unpacked(value)).items():
        for path, leaf in _leaves(field, name, _is_tensorflow):
            with part(path):
                parts.append((path, explain_to_torch(leaf, options)))
    return _explanation.combined("Extension", parts)


def _matched(value: Extension, fields: Mapping[str, Any]) -> list[Any]:
    """The tensors of converted fields, in the order of the specification.

    Raises:
      MismatchError: a tensor has another dtype, or what is no tensor was replaced. The class may
        hold invariants between its fields, so that only tensors are exchanged.
    """
    import tensorflow as tf

    kind = value.kind.__name__
    components = []
    for name in fields:
        specs = tf.nest.flatten((getattr(value._spec, name),))
        values = tf.nest.flatten((fields[name],))
        fits = len(specs) == len(values)
        for spec, v in zip(specs, values, strict=False):
            if isinstance(spec, tf.TypeSpec):
                fits = (
                    fits
                    and _is_tensorflow(v)
                    and getattr(spec, "dtype", None) == getattr(v, "dtype", None)
                )
                components.append(v)
            else:
                fits = fits and not _is_tensorflow(v) and bool(spec == v)
        if not fits:
            raise MismatchError(
                f"field {name!r} of {kind} was replaced by something of another kind; expected "
                f"{specs}, got {values}. Make a new {kind} instead"
            )
    return components


def _to_tf(value: Extension, options: Options) -> Any:
    # The specification has the fields in the order of its components.
    fields = {
        name: _map(value.fields[name], name, _is_torch, lambda v: component_to_tf(v, options))
        for name in vars(value._spec)
        if name in value.fields
    }
    result = value._spec._from_components(tuple(_matched(value, fields)))
    result.__validate__()
    return result


def _explain_back(value: Extension, options: Options) -> Explanation:
    parts = []
    for name, field in value.fields.items():
        for path, leaf in _leaves(field, name, _is_torch):
            with part(path):
                parts.append((path, explain_to_tf(leaf, options)))
    return _explanation.combined(value.kind.__name__, parts)


def _parts_of(value: Extension) -> Parts:
    parts = [leaf for field in value.fields.values() for _, leaf in _leaves(field, "", _is_torch)]

    def make(parts: Sequence[Any]) -> Extension:
        others = iter(parts)
        fields = {
            name: _map(field, name, _is_torch, lambda _: next(others))
            for name, field in value.fields.items()
        }
        return Extension(value.kind, fields, value._spec)

    return parts, make


COMPOSITES = (
    Composite(
        name="extension type",
        tf_keys=("tensorflow.python.framework.extension_type.ExtensionType",),
        torch_keys=("tensor_bridge.composite.extension_type.Extension",),
        to_torch=_to_torch,
        explain=_explain,
        to_tf=_to_tf,
        explain_back=_explain_back,
        parts=_parts_of,
    ),
)
