"""The form of a dataset's elements: their components, and how values become an element again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from tensor_bridge import _C, _refusals
from tensor_bridge._dtypes import row_of
from tensor_bridge.composite import StringTensor
from tensor_bridge.composite.coo import assemble_coo
from tensor_bridge.composite.ragged import assemble as assemble_ragged
from tensor_bridge.errors import UnsupportedDtypeError, UnsupportedTypeError

if TYPE_CHECKING:
    import torch

# TB_DATA_* of c_api.h.
_DENSE, _STRINGS, _RAGGED, _SPARSE, _OPAQUE = range(5)


class _Value(NamedTuple):
    """The form of a flat value.

    Its kind is "tensor", "shape" (of strings), "offsets" (two values after their bytes), "strings"
    (lists of bytes) or "opaque".
    """

    kind: str
    dtype: str = ""  # torch's name; "" where it depends on the options
    shape: Sequence[int | None] | None = None


@dataclass
class ElementPlan:
    """How the outputs of an iterator become an element.

    Attributes:
      components: For each output, in TensorFlow's order: (kind, dtype, dtype of the values, dtype
        of the row splits, ragged rank).
      structure: The nesting, as `_C.data_open` takes it.
      has_opaque: Whether an output is a TensorFlow value whose bytes cannot be saved.
    """

    string_lists: bool
    nested: Callable[[Any], Any]
    options: dict[str, Any]
    components: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    structure: Any = None
    has_opaque: bool = False
    flat: list[_Value] = field(default_factory=list)

    def values(self, *values: _Value) -> list[int]:
        """Numbers of the next values."""
        first = len(self.flat)
        self.flat += values
        return list(range(first, first + len(values)))

    def dtype(self, number: int) -> str:
        """Name of the torch dtype of the converted values; "" if it depends on the options."""
        if self.options.get("raw"):
            return ""
        row = row_of(number)
        return "" if row is None else row.nearest

    def problem(self, flat: Sequence[Any]) -> str | None:
        """Why saved values are not those of an element; None if they are."""
        if len(flat) != len(self.flat):
            return f"{len(flat)} values in place of {len(self.flat)}"
        for number, (value, expected) in enumerate(zip(flat, self.flat, strict=True)):
            problem = _problem(value, expected)
            if problem is not None:
                return f"{problem} as value {number}"
            if expected.kind == "offsets" and not _are_offsets(value, flat[number - 2]):
                return f"offsets outside of the strings as value {number}"
        try:
            _build(self.structure, flat)
        except Exception as e:  # user classes may be called
            return f"values that make none: {type(e).__name__}: {e}"
        return None


def plan_element(
    spec: Any, *, string_lists: bool, nested: Callable[[Any], Any], options: dict[str, Any]
) -> ElementPlan:
    """Makes the plan for an ``element_spec``.

    Args:
      spec: The nest of tf.TypeSpec.
      string_lists: Whether strings become lists of bytes.
      nested: Converts a dataset inside an element.
      options: The keywords of `convert_tf_to_pytorch` for values that are converted in Python.

    Raises:
      UnsupportedTypeError: A structure or value has no form in torch.
      UnsupportedDtypeError: A dtype has no form in torch.
    """
    plan = ElementPlan(string_lists=string_lists, nested=nested, options=options)
    plan.structure = _walk(spec, plan, "")
    return plan


def _problem(value: Any, expected: _Value) -> str | None:
    if expected.kind in ("tensor", "offsets"):
        if not _C.is_torch_tensor(value):
            return f"a {type(value).__name__} in place of a tensor"
        if expected.dtype and str(value.dtype) != expected.dtype:
            return f"{value.dtype} in place of {expected.dtype}"
        shape = tuple(value.shape)
        known = expected.shape
        if known is None or (
            len(known) == len(shape)
            and all(k in (None, n) for k, n in zip(known, shape, strict=True))
        ):
            return None
        return f"the shape {shape} in place of {tuple(known)}"
    if expected.kind == "shape":
        good = type(value) in (list, tuple) and all(type(n) is int and n >= 0 for n in value)
        return None if good else "no shape"
    if expected.kind == "strings":
        return None if _are_strings(value) else "no lists of bytes"
    return "a value that cannot be saved"


def _are_offsets(offsets: Any, data: Any) -> bool:
    if offsets.dim() != 1 or data.dim() != 1 or len(offsets) == 0:
        return False
    steps = offsets[1:] - offsets[:-1]
    return bool(offsets[0] >= 0 and offsets[-1] <= len(data) and (steps >= 0).all())


def _are_strings(value: Any) -> bool:
    pending = [value]
    while pending:
        item = pending.pop()
        if type(item) is list:
            pending += item
        elif type(item) is not bytes:
            return False
    return True


def _build(node: Any, flat: Sequence[Any]) -> Any:
    """Like `_C.data_build`, without an iterator."""
    if type(node) is int:
        return flat[node]
    if node[0] == "tuple":
        return tuple(_build(child, flat) for child in node[1:])
    children = [_build(child, flat) for child in node[2:]]
    if node[0] == "dict":
        return dict(zip(node[1], children, strict=True))
    return node[1](*children)


def _at(path: str) -> str:
    return f"at {path}: " if path else ""


def _walk(spec: Any, plan: ElementPlan, path: str) -> Any:
    import tensorflow as tf

    if isinstance(spec, tf.TypeSpec):
        return _leaf(spec, plan, path)
    if isinstance(spec, Mapping):
        # TensorFlow orders the outputs by the sorted keys.
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
        f"elements of the dataset, got {_refusals.a_class(spec)}; map() them into one of those"
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
        index = _Value("tensor", "torch.int64")
        values = _Value("tensor", plan.dtype(spec.dtype.as_datatype_enum))
        return ("call", assemble_coo, *plan.values(index, values, index))
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
    shape = None if spec.shape.rank is None else spec.shape.as_list()
    return plan.values(_Value("tensor", plan.dtype(number), shape))[0]


def _strings(plan: ElementPlan) -> Any:
    if plan.string_lists:
        return plan.values(_Value("strings"))[0]
    parts = _Value("tensor", "torch.uint8"), _Value("shape"), _Value("offsets", "torch.int64")
    return ("call", _string_tensor, *plan.values(*parts))


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
    if spec.dtype == tf.string:
        values = _strings(plan)
    else:
        values = plan.values(_Value("tensor", plan.dtype(spec.dtype.as_datatype_enum)))[0]
    splits = _Value("tensor", plan.dtype(spec.row_splits_dtype.as_datatype_enum))
    shape = spec._shape  # the public attribute `shape` is None if the rank is unknown
    sizes = [None] * rank if shape.rank is None else list(shape)[1 : rank + 1]
    return ("call", partial(_ragged_value, sizes), values, *plan.values(*[splits] * rank))


def _ragged_value(uniform: Sequence[int | None], values: Any, *row_splits: Any) -> Any:
    return assemble_ragged(values, row_splits, uniform)


def _foreign(spec: Any, plan: ElementPlan, path: str) -> Any:
    """Values that TensorFlow composes from outputs, and `convert_tf_to_pytorch` takes apart."""
    import tensorflow as tf

    specs = getattr(spec, "_flat_tensor_specs", None)
    if specs is None:
        raise UnsupportedTypeError(
            f"{_at(path)}expected tensors and composite values in the elements of the dataset, "
            f"got {_refusals.a_class(spec)}; map() it into tensors"
        )
    if specs:
        plan.has_opaque = True
    for tensor_spec in specs:
        plan.components.append((_OPAQUE, tensor_spec.dtype.as_datatype_enum, 0, 0, 0))
    dataset = isinstance(spec, tf.data.DatasetSpec)
    build = partial(_nested_dataset if dataset else _foreign_value, spec, plan)
    return ("call", build, *plan.values(*[_Value("opaque")] * len(specs)))


def _nested_dataset(spec: Any, plan: ElementPlan, *tensors: Any) -> Any:
    return plan.nested(spec._from_compatible_tensor_list(list(tensors)))


def _foreign_value(spec: Any, plan: ElementPlan, *tensors: Any) -> Any:
    import tensorflow as tf

    # TensorFlow would decode variants on a visible GPU, but elements are on the host.
    with tf.device("CPU:0"):
        value = spec._from_compatible_tensor_list(list(tensors))
    if value is None:
        return None
    return _C.convert_tf_to_pytorch(value, **plan.options)
