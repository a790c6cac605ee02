"""tf.experimental.ExtensionType to an `Extension` with the same fields, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tensor_bridge import _explanation
from tensor_bridge._explanation import Explanation
from tensor_bridge.composite._registry import (
    TO_TF,
    TO_TORCH,
    Assembly,
    Composite,
    Conversion,
    Direction,
    Options,
    Parts,
    of_parts,
)
from tensor_bridge.errors import MismatchError

__all__ = ["COMPOSITES", "Extension"]


class Extension:
    """The fields of a tf.experimental.ExtensionType, with torch tensors.

    Fields are attributes too: ``x.mask`` is ``x.fields["mask"]``. `convert_pytorch_to_tf` makes an
    object of the same class from it.

    Attributes:
      kind: The class, derived from tf.experimental.ExtensionType.
      fields: Read-only mapping from the names of the fields to their values, in order. Tensors and
        composites are converted, also inside tuples and mappings; other values are unchanged.
    """

    __slots__ = ("_spec", "fields", "kind")

    kind: type
    fields: Mapping[str, Any]

    def __init__(self, kind: type, fields: Mapping[str, Any], spec: Any) -> None:
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "fields", MappingProxyType(dict(fields)))
        object.__setattr__(self, "_spec", spec)

    def replace(self, **fields: Any) -> Extension:
        """A copy with other values for some fields; the other fields are shared.

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


_Make = Callable[[Iterator[Any]], Any]
_Leaves = list[tuple[str, Any]]


def _take(value: Any, path: str, direction: Direction, leaves: _Leaves) -> _Make:
    """Appends the leaves of a field; returns the function that rebuilds it from other leaves."""
    if direction.takes(value):
        leaves.append((path, value))
        return next
    if isinstance(value, Mapping):
        by_key = {k: _take(v, f"{path}[{k!r}]", direction, leaves) for k, v in value.items()}
        return lambda others: {k: make(others) for k, make in by_key.items()}
    if isinstance(value, (tuple, list)):
        items = [_take(v, f"{path}[{i}]", direction, leaves) for i, v in enumerate(value)]
        return lambda others: tuple(make(others) for make in items)
    return lambda others: value


def _take_fields(
    fields: Mapping[str, Any], direction: Direction
) -> tuple[_Leaves, Callable[[Sequence[Any]], dict[str, Any]]]:
    """The leaves of all fields with their paths, and the function that rebuilds the fields."""
    leaves: _Leaves = []
    makers = {name: _take(field, name, direction, leaves) for name, field in fields.items()}

    def make(parts: Sequence[Any]) -> dict[str, Any]:
        others = iter(parts)
        return {name: field(others) for name, field in makers.items()}

    return leaves, make


def _unpacked(value: Any) -> Any:
    # Inside tf.data an object may be one variant tensor. Private; TensorFlow 2.12 to 2.21.
    from tensorflow.python.framework import extension_type

    return extension_type.unpack(value) if extension_type.is_packed(value) else value


def _fields(value: Any) -> dict[str, Any]:
    import tensorflow as tf

    return dict(tf.experimental.extension_type.as_dict(value))


def _to_torch(value: Any, options: Options) -> Assembly:
    import tensorflow as tf

    value = _unpacked(value)
    leaves, make = _take_fields(_fields(value), TO_TORCH)

    def extension(parts: Sequence[Any]) -> Extension:
        return Extension(type(value), make(parts), tf.type_spec_from_value(value))

    return "Extension", [(*leaf, options, None) for leaf in leaves], extension


def _is_tensor(v: Any) -> bool:
    return isinstance(v, Explanation) or TO_TORCH.takes(v)


def _fits(spec: Any, v: Any) -> bool:
    """Whether a converted field, or its explanation, is of the kind and dtype of ``spec``."""
    import tensorflow as tf

    if isinstance(v, Explanation):
        found = v.tf_dtype
        same_kind = (v.kind in (None, "string")) == issubclass(spec.value_type, tf.Tensor)
    else:
        found = _name_of(getattr(v, "dtype", None))
        same_kind = isinstance(v, spec.value_type)
    # That of IndexedSlices is private. Without it any dtype goes.
    wanted = _name_of(getattr(spec, "dtype", getattr(spec, "_values_dtype", None)))
    return same_kind and (None in (wanted, found) or wanted == found)


def _name_of(dtype: Any) -> Any:
    return getattr(dtype, "name", None)


def _matched(value: Extension, fields: Mapping[str, Any]) -> list[Any]:
    """The tensors of converted fields, or their explanations, in the order of the specification.

    Raises:
      MismatchError: a tensor has another dtype, or a value that is no tensor was replaced. Only
        tensors may be exchanged, because the class may have invariants between its fields.
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
                fits = fits and _fits(spec, v)
                components.append(v)
            else:
                fits = fits and not _is_tensor(v) and bool(spec == v)
        if not fits:
            raise MismatchError(
                f"field {name!r} of {kind} was replaced by something of another kind; expected "
                f"{specs}, got {tf.nest.flatten((value.fields[name],))}. Make a new {kind} instead"
            )
    return components


def _to_tf(value: Extension, options: Options) -> Assembly:
    leaves, make = _take_fields(value.fields, TO_TF)

    def extension_type(parts: Sequence[Any]) -> Any:
        fields = make(parts)
        # The specification has the fields in the order of its components.
        ordered = {name: fields[name] for name in vars(value._spec) if name in fields}
        result = value._spec._from_components(tuple(_matched(value, ordered)))
        result.__validate__()
        return result

    parts = [(*leaf, options, None) for leaf in leaves]
    return value.kind.__name__, parts, extension_type


def _explain_to_tf(value: Extension, options: Options) -> Explanation:
    name, parts, _ = _to_tf(value, options)
    explained = TO_TF.explain_parts(parts)
    explanation = _explanation.combined(name, explained)
    if explanation.action != "refused":
        _, make = _take_fields(value.fields, TO_TF)
        _matched(value, make([part for _, part in explained]))
    return explanation


def _parts_of(value: Extension) -> Parts:
    leaves, make = _take_fields(value.fields, TO_TF)
    return [leaf for _, leaf in leaves], lambda parts: Extension(
        value.kind, make(parts), value._spec
    )


COMPOSITES = (
    Composite(
        name="extension type",
        tf_keys=("tensorflow.python.framework.extension_type.ExtensionType",),
        torch_keys=("tensor_bridge.composite.extension_type.Extension",),
        to_torch=of_parts(TO_TORCH, _to_torch),
        to_tf=Conversion(of_parts(TO_TF, _to_tf).convert, _explain_to_tf),
        parts=_parts_of,
    ),
)
