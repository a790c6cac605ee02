"""What the elements of a dataset are: its components, and how values become an element again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C
from tensor_bridge.composite import StringTensor
from tensor_bridge.composite.ragged import assemble as assemble_ragged
from tensor_bridge.composite.sparse import assemble_coo
from tensor_bridge.errors import UnsupportedDtypeError, UnsupportedTypeError

if TYPE_CHECKING:
    import torch

__all__ = ["ElementPlan", "plan_element"]

# TB_DATA_* of c_api.h.
_DENSE, _STRINGS, _RAGGED, _SPARSE, _OPAQUE = range(5)


@dataclass
class ElementPlan:
    """How the outputs of an iterator become an element.

    Attributes:
      components: For each output, in TensorFlow's order: (kind, dtype, dtype of the values, dtype
        of the row splits, ragged rank).
      structure: The nesting, as `_C.data_open` takes it.
      has_opaque: Some output is a TensorFlow value whose bytes cannot be saved.
    """

    string_lists: bool
    nested: Callable[[Any], Any]
    options: dict[str, Any]
    components: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    structure: Any = None
    has_opaque: bool = False
    num_values: int = 0

    def values(self, count: int) -> list[int]:
        """Numbers of the next `count` values."""
        first = self.num_values
        self.num_values += count
        return list(range(first, first + count))


def plan_element(
    spec: Any, *, string_lists: bool, nested: Callable[[Any], Any], options: dict[str, Any]
) -> ElementPlan:
    """Plans for an ``element_spec``.

    Args:
      spec: The nest of tf.TypeSpec.
      string_lists: Strings become lists of bytes.
      nested: What a dataset inside an element becomes.
      options: The keywords of `convert_tf_to_pytorch` for what is converted in Python.

    Raises:
      UnsupportedTypeError: There is a structure or value without a form in torch.
      UnsupportedDtypeError: There is a dtype without one.
    """
    plan = ElementPlan(string_lists=string_lists, nested=nested, options=options)
    plan.structure = _walk(spec, plan, "")
    return plan


def _at(path: str) -> str:
    return f"at {path}: " if path else ""


def _walk(spec: Any, plan: ElementPlan, path: str) -> Any:
    import tensorflow as tf

    if isinstance(spec, tf.TypeSpec):
        return _leaf(spec, plan, path)
    if isinstance(spec, Mapping):
        # TensorFlow's order of the outputs is that of the sorted keys.
        children = {key: _walk(spec[key], plan, f"{path}[{key!r}]") for key in sorted(spec)}
        keys = tuple(spec)
        if type(spec) is dict:
            return ("dict", keys, *(children[key] for key in keys))
        return ("call", partial(_mapping, spec, keys), *(children[key] for key in keys))
    if isinstance(spec, tuple):
        parts = [_walk(part, plan, f"{path}[{i}]") for i, part in enumerate(spec)]
        return ("call", type(spec), *parts) if hasattr(spec, "_fields") else ("tuple", *parts)
    attributes = getattr(type(spec), "__attrs_attrs__", None)
    if attributes is not None:
        names = [attribute.name for attribute in attributes]
        parts = [_walk(getattr(spec, name), plan, f"{path}.{name}") for name in names]
        return ("call", type(spec), *parts)
    raise UnsupportedTypeError(
        f"{_at(path)}expected dicts, tuples, named tuples and attrs classes of tensors in the "
        f"elements of the dataset, got a {type(spec).__name__}; map() them into one of those"
    )


def _mapping(like: Mapping[Any, Any], keys: Sequence[Any], *values: Any) -> Any:
    items = dict(zip(keys, values, strict=True))
    factory = getattr(like, "default_factory", None)
    kind: Any = type(like)
    return kind(items) if factory is None else kind(factory, items)


def _leaf(spec: Any, plan: ElementPlan, path: str) -> Any:
    import tensorflow as tf

    if type(spec) is tf.TensorSpec:
        return _dense(spec, plan, path)
    if type(spec) is tf.RaggedTensorSpec and spec.ragged_rank > 0 and spec.flat_values_spec is None:
        return _ragged(spec, plan)
    if type(spec) is tf.SparseTensorSpec:
        if spec.dtype == tf.string:
            raise UnsupportedDtypeError(
                f"{_at(path)}torch has no sparse tensors of strings; map() them to their indices "
                "and values, or to a dense tensor (tf.sparse.to_dense)"
            )
        plan.components.append(
            (_SPARSE, tf.variant.as_datatype_enum, spec.dtype.as_datatype_enum, 0, 0)
        )
        return ("call", assemble_coo, *plan.values(3))
    return _foreign(spec, plan, path)


def _dense(spec: Any, plan: ElementPlan, path: str) -> Any:
    import tensorflow as tf

    number = spec.dtype.as_datatype_enum
    if spec.dtype == tf.string:
        plan.components.append((_STRINGS, number, 0, 0, 0))
        return _strings(plan)
    if spec.dtype in (tf.variant, tf.resource):
        raise UnsupportedDtypeError(
            f"{_at(path)}expected tensors of numbers or strings, got TensorFlow dtype "
            f"{spec.dtype.name}; leave it out of the elements with map()"
        )
    plan.components.append((_DENSE, number, 0, 0, 0))
    return plan.values(1)[0]


def _strings(plan: ElementPlan) -> Any:
    return plan.values(1)[0] if plan.string_lists else ("call", _string_tensor, *plan.values(3))


def _string_tensor(data: torch.Tensor, shape: tuple[int, ...], offsets: torch.Tensor) -> Any:
    return StringTensor(data, offsets, shape)


def _ragged(spec: Any, plan: ElementPlan) -> Any:
    import tensorflow as tf

    rank = spec.ragged_rank
    plan.components.append(
        (
            _RAGGED,
            tf.variant.as_datatype_enum,
            spec.dtype.as_datatype_enum,
            spec.row_splits_dtype.as_datatype_enum,
            rank,
        )
    )
    values = _strings(plan) if spec.dtype == tf.string else plan.values(1)[0]
    shape = spec._shape  # its attribute `shape` is None where the rank is unknown
    sizes = [None] * rank if shape.rank is None else list(shape)[1 : rank + 1]
    return ("call", partial(_ragged_value, sizes), values, *plan.values(rank))


def _ragged_value(uniform: Sequence[int | None], values: Any, *row_splits: Any) -> Any:
    return assemble_ragged(values, row_splits, uniform)


def _foreign(spec: Any, plan: ElementPlan, path: str) -> Any:
    """Values that TensorFlow puts together and `convert_tf_to_pytorch` takes apart."""
    import tensorflow as tf

    specs = getattr(spec, "_flat_tensor_specs", None)
    if specs is None:
        raise UnsupportedTypeError(
            f"{_at(path)}expected tensors and composite values in the elements of the dataset, "
            f"got a {type(spec).__name__}; map() it into tensors"
        )
    if specs:
        plan.has_opaque = True
    for tensor_spec in specs:
        plan.components.append((_OPAQUE, tensor_spec.dtype.as_datatype_enum, 0, 0, 0))
    dataset = isinstance(spec, tf.data.DatasetSpec)
    build = partial(_nested_dataset if dataset else _foreign_value, spec, plan)
    return ("call", build, *plan.values(len(specs)))


def _nested_dataset(spec: Any, plan: ElementPlan, *tensors: Any) -> Any:
    return plan.nested(spec._from_compatible_tensor_list(list(tensors)))


def _foreign_value(spec: Any, plan: ElementPlan, *tensors: Any) -> Any:
    value = spec._from_compatible_tensor_list(list(tensors))
    if value is None:
        return None
    return _C.convert_tf_to_pytorch(value, **plan.options)
