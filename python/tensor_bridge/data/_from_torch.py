"""from_torch: a torch Dataset or DataLoader as a tf.data.Dataset."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

from tensor_bridge import _C, _structures
from tensor_bridge._frameworks import ensure, ensure_tensorflow
from tensor_bridge._options import checks_keywords
from tensor_bridge._py_function import py_function
from tensor_bridge._refusals import a_class
from tensor_bridge.composite import StringTensor, for_torch
from tensor_bridge.data._buffers import has_buffer, read
from tensor_bridge.errors import MismatchError, TensorBridgeError, UnsupportedTypeError


@checks_keywords
def from_torch(data: Any, *, element_spec: Any = None) -> Any:
    """Makes a tf.data.Dataset from a torch Dataset, IterableDataset or DataLoader.

    Elements keep their structure (lists become tuples). Tensors keep their shape and dtype, and
    share torch's memory if TensorFlow can use it, as with `convert_pytorch_to_tf`; they never pass
    through NumPy. Numbers and strings become scalars; lists and tuples of strings become vectors.
    NumPy arrays and scalars keep their dtype, and are copied.

    A dataset with ``__len__`` and ``__getitem__`` is read by index, in order. Everything else is
    iterated again for each pass of the tf.data.Dataset.

    TensorFlow cannot save positions in the result, because it runs Python code.
    `tensor_bridge.data.TorchDataset` over it needs ``resume="replay"``, or ``"position"`` if data
    has indices.

    Args:
      data: The dataset or loader.
      element_spec: Nest of tf.TypeSpec of an element. By default that of the first element; for a
        DataLoader the batch size is then unknown.

    Returns:
      A tf.data.Dataset, which keeps ``data`` alive.

    Raises:
      UnsupportedTypeError: data cannot be iterated more than once, TensorFlow cannot represent its
        elements, or element_spec does not consist of tf.TypeSpec.
      MismatchError: data is empty, and element_spec is not given.

    Example:
      >>> import torch, tensor_bridge
      >>> data = torch.utils.data.TensorDataset(torch.arange(3), torch.ones(3, 2))
      >>> ds = tensor_bridge.data.from_torch(data)
      >>> ds.element_spec[1].shape, len(ds)
      (TensorShape([2]), 3)
    """
    ensure()
    ensure_tensorflow()
    from torch.utils.data import DataLoader, IterableDataset

    loads = isinstance(data, DataLoader)
    indexed = (
        not loads
        and not isinstance(data, IterableDataset)
        and hasattr(data, "__getitem__")
        and hasattr(data, "__len__")
    )
    if not indexed and (not hasattr(data, "__iter__") or isinstance(data, Iterator)):
        raise UnsupportedTypeError(
            "expected a torch Dataset, IterableDataset or DataLoader, which can be iterated more "
            f"than once, got {a_class(data)}"
        )
    if element_spec is None:
        element_spec = _first_spec(data, indexed, batched=loads)
    _check_spec(element_spec)
    source = _Source(data, element_spec)
    return source.by_index() if indexed else source.by_iteration()


def _check_spec(spec: Any) -> None:
    import tensorflow as tf

    for part in tf.nest.flatten(spec):
        if not isinstance(part, tf.TypeSpec):
            raise UnsupportedTypeError(
                "expected element_spec to be a tf.TypeSpec or a nest of them, such as "
                f"tf.TensorSpec([None], tf.float32), got {part!r} in it"
            )


def _first_spec(data: Any, indexed: bool, *, batched: bool) -> Any:
    import tensorflow as tf

    try:
        first = data[0] if indexed else next(iter(data))
    except (StopIteration, IndexError):
        raise MismatchError(
            "the dataset is empty, so its elements are not known; give element_spec="
        ) from None

    def spec(value: Any) -> Any:
        found = tf.type_spec_from_value(value)
        if batched and isinstance(found, tf.TensorSpec) and found.shape.rank:
            return tf.TensorSpec([None, *found.shape[1:]], found.dtype)
        if batched and isinstance(found, tf.RaggedTensorSpec):
            shape = [None, *found.shape[1:]]
            return tf.RaggedTensorSpec(
                shape, found.dtype, found.ragged_rank, found.row_splits_dtype
            )
        if batched and isinstance(found, tf.SparseTensorSpec):
            return tf.SparseTensorSpec([None, *found.shape[1:]], found.dtype)
        return found

    return tf.nest.map_structure(spec, _to_tensorflow(first))


def _to_tensorflow(value: Any) -> Any:
    """A torch element as TensorFlow values in dicts and tuples."""
    if _C.is_torch_tensor(value):
        return _C.convert_pytorch_to_tf(value)
    if has_buffer(value) and not isinstance(value, (str, bytes)):
        return _C.convert_pytorch_to_tf(read(value))
    if isinstance(value, (bool, int, float, complex)):
        import torch

        return _C.convert_pytorch_to_tf(torch.tensor(value, device="cpu"))
    if isinstance(value, (str, bytes)) or _is_strings(value):
        return _C.convert_pytorch_to_tf(StringTensor.from_list(value))
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return tuple(_to_tensorflow(part) for part in value)
    if for_torch(value) is None and _structures.is_node(value):
        _, parts, rebuild = _structures.children(value)
        return rebuild([_to_tensorflow(part) for part in parts])
    return _C.convert_pytorch_to_tf(value)


def _is_strings(value: Any) -> bool:
    """Whether it is a list or tuple of strings, a DataLoader's batch of strings."""
    return (
        type(value) in (list, tuple)
        and len(value) > 0
        and all(isinstance(item, (str, bytes)) for item in value)
    )


class _Source:
    """The functions that TensorFlow calls. Holds the running passes."""

    def __init__(self, data: Any, spec: Any) -> None:
        import tensorflow as tf

        self._data = data
        self._spec = spec
        self._parts = tf.nest.flatten(spec, expand_composites=True)
        self._types = [part.dtype for part in self._parts]
        self._passes: dict[int, Iterator[Any]] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def _flat(self, element: Any) -> list[Any]:
        import tensorflow as tf

        converted = _to_tensorflow(element)
        try:
            tf.nest.assert_same_structure(self._spec, converted, expand_composites=True)
        except (ValueError, TypeError):
            raise MismatchError(
                f"expected an element of the structure {self._spec}, got {_described(converted)}"
            ) from None
        flat = tf.nest.flatten(converted, expand_composites=True)
        for part, value in zip(self._parts, flat, strict=True):
            if part.dtype != value.dtype or not part.shape.is_compatible_with(value.shape):
                raise MismatchError(
                    f"expected {part.dtype.name} of shape {part.shape} in an element, got "
                    f"{value.dtype.name} of shape {value.shape}; give element_spec= with None for "
                    "the sizes that vary"
                )
        return list(flat)

    def _packed(self, flat: Any) -> Any:
        import tensorflow as tf

        for part, value in zip(self._parts, flat, strict=True):
            value.set_shape(part.shape)
        return tf.nest.pack_sequence_as(self._spec, list(flat), expand_composites=True)

    def by_index(self) -> Any:
        import tensorflow as tf

        def get(index: Any) -> list[Any]:
            return self._flat(self._data[_number(index)])

        def element(index: Any) -> Any:
            return self._packed(py_function(get, [index], self._types))

        plain = tf.autograph.experimental.do_not_convert(element)
        return tf.data.Dataset.range(len(self._data)).map(plain)

    def by_iteration(self) -> Any:
        import tensorflow as tf

        # Private; TensorFlow 2.12 to 2.21.
        from tensorflow.python.data.ops import from_generator_op

        def begin(_: Any) -> Any:
            return py_function(self._begin, [], tf.int64)

        def step(number: Any) -> Any:
            return self._packed(py_function(self._step, [number], self._types))

        def end(number: Any) -> Any:
            return py_function(self._end, [number], tf.int64)

        # As Dataset.from_generator, but with functions that do not use NumPy. The last one runs
        # when an iterator is deleted before its end.
        none = tf.zeros([], tf.int64)

        def one_pass(_: Any) -> Any:
            calls = map(tf.autograph.experimental.do_not_convert, (begin, step, end))
            return from_generator_op._GeneratorDataset(none, *calls, self._spec)

        return tf.data.Dataset.range(1).flat_map(tf.autograph.experimental.do_not_convert(one_pass))

    def _begin(self) -> Any:
        import tensorflow as tf

        iterator = iter(self._data)
        with self._lock:
            number = next(self._numbers)
            self._passes[number] = iterator
        return tf.constant(number, tf.int64)

    def _step(self, number: Any) -> list[Any]:
        try:
            # StopIteration becomes the end of the dataset.
            return self._flat(next(self._passes[_number(number)]))
        except TensorBridgeError as e:
            raise type(e)(f"from_torch: {e}") from e

    def _end(self, number: Any) -> Any:
        with self._lock:
            self._passes.pop(_number(number), None)
        return number


def _described(element: Any) -> Any:
    import tensorflow as tf

    return tf.nest.map_structure(tf.type_spec_from_value, element)


def _number(t: Any) -> int:
    return int(_C.tensor_to_torch(t).item())
