"""`TensorBridge`: both conversions through ctypes, over the C ABI of ``libtensor_bridge.so``.

For programs that load the library themselves, and as a worked example of ``c_api.h``. Tensors,
plain variables and strings; keywords, write protection and exceptions are those of the package's
functions. A call takes some microseconds longer, because ctypes does.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from tensor_bridge import _explanation, _frameworks, _options, _refusals, config
from tensor_bridge._options import checks_keywords
from tensor_bridge.errors import BY_STATUS, FrameworkError, InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    import torch

    from tensor_bridge._explanation import Direction, Explanation
    from tensor_bridge.composite.string import StringTensor

__all__ = ["TensorBridge"]

# TensorFlow's TensorShape::MaxDimensions().
_MAX_DIMS = 254
_SHAPE = ctypes.c_int64 * _MAX_DIMS
_COPY = {None: -1, False: 0, True: 1}
_ON_WRITE = {"copy": 0, "raise": 1, "alias": 2}
_GRAD = {"detach": 0, "raise": 1}


def _fields(kind: Any, *names: str) -> tuple[tuple[str, Any], ...]:
    return tuple((name, kind) for name in names)


class _ConvertOptions(ctypes.Structure):
    """``tb_convert_options`` of c_api.h."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        *_fields(ctypes.c_int32, "copy", "on_write", "raw"),
        *_fields(ctypes.c_int32, "has_device", "device_type", "device_id", "has_axis"),
        *_fields(ctypes.c_int64, "axis", "num_scales"),
        ("scale", ctypes.POINTER(ctypes.c_double)),
        ("zero_point", ctypes.POINTER(ctypes.c_int64)),
    )


class _ConvertBackOptions(ctypes.Structure):
    """``tb_convert_back_options`` of c_api.h."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        *_fields(ctypes.c_int32, "copy", "grad", "tf_dtype"),
    )


class _Explanation(ctypes.Structure):
    """``tb_explanation`` of c_api.h."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        *_fields(ctypes.c_int32, "action", "status", "on_write", "ndim"),
        ("nbytes", ctypes.c_int64),
        *_fields(ctypes.c_char_p, "tf_dtype", "torch_dtype"),
        ("device", ctypes.c_char * 32),
        ("reason", ctypes.c_char * 1024),
    )


_STATUS, _OBJECT, _TEXT = ctypes.c_int32, ctypes.py_object, ctypes.c_char_p
_POINTER = ctypes.c_void_p
_OUT = ctypes.POINTER(_POINTER)
_SIZES = ctypes.POINTER(ctypes.c_int64)
_OPTIONS, _TO_TF_OPTIONS = ctypes.POINTER(_ConvertOptions), ctypes.POINTER(_ConvertBackOptions)
_EXPLAINED = ctypes.POINTER(_Explanation)
_SHAPED = (_EXPLAINED, _SIZES, ctypes.c_int32)
_VARIABLE = (_OBJECT, _POINTER, ctypes.c_int32)
# What the functions of c_api.h that are used here return and take.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "tb_last_error": (_TEXT,),
    "tb_version": (_TEXT,),
    "tb_live_owners": (ctypes.c_int64,),
    "tb_convert_options_init": (None, _OPTIONS),
    "tb_convert_back_options_init": (None, _TO_TF_OPTIONS),
    "tb_py_use_torch": (_STATUS, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32),
    "tb_py_copying_reason": (_TEXT,),
    "tb_py_set_gil_functions": (None, _POINTER, _POINTER),
    "tb_py_is_eager_tensor": (_STATUS, _OBJECT),
    "tb_py_has_handle": (_STATUS, _OBJECT),
    "tb_py_tf_to_torch": (_STATUS, _OBJECT, _OPTIONS, _OUT),
    "tb_py_tf_explain": (_STATUS, _OBJECT, _OPTIONS, *_SHAPED),
    "tb_py_variable_to_torch": (_STATUS, *_VARIABLE, _OPTIONS, _OUT),
    "tb_py_variable_explain": (_STATUS, *_VARIABLE, _OPTIONS, *_SHAPED),
    "tb_py_torch_to_tf": (_STATUS, _OBJECT, _TO_TF_OPTIONS, _OUT),
    "tb_py_torch_explain": (_STATUS, _OBJECT, _TO_TF_OPTIONS, *_SHAPED),
    "tb_py_strings_from_tf": (_STATUS, _OBJECT, _OUT),
    "tb_py_strings_from_torch": (_STATUS, _OBJECT, _OBJECT, _SIZES, ctypes.c_int32, _OUT),
    "tb_py_strings_to_torch": (_STATUS, _POINTER, _OPTIONS, _OUT, _OUT),
    "tb_py_strings_to_tf": (_STATUS, _POINTER, _TO_TF_OPTIONS, _OUT),
    "tb_strings_ndim": (ctypes.c_int32, _POINTER),
    "tb_strings_count": (ctypes.c_int64, _POINTER),
    "tb_strings_shape": (_SIZES, _POINTER),
    "tb_strings_nbytes": (_STATUS, _POINTER, _SIZES),
    "tb_strings_gather": (_STATUS, _POINTER, _SIZES, _TEXT, ctypes.c_int64),
    "tb_strings_explain": (_STATUS, _POINTER, _OPTIONS, _EXPLAINED),
    "tb_strings_explain_back": (_STATUS, _POINTER, _TO_TF_OPTIONS, _EXPLAINED),
    "tb_strings_release": (None, _POINTER),
}


def _capsule_pointer(capsule: Any) -> int | None:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.argtypes = (ctypes.py_object, ctypes.c_char_p)
    get.restype = ctypes.c_void_p
    # TensorFlow's context capsule has no name.
    pointer: int | None = get(capsule, None)
    return pointer


def _take_reference(pointer: ctypes.c_void_p) -> Any:
    """The object behind a new reference, which is taken over."""
    borrowed = ctypes.cast(pointer, ctypes.py_object)
    value = borrowed.value  # a second reference
    ctypes.pythonapi.Py_DecRef(borrowed)
    return value


def _copy_number(copy: Any) -> int:
    if copy is not None and not isinstance(copy, bool):
        raise InvalidOptionError(f"copy must be None, True or False, got {copy!r}")
    return _COPY[copy]


def _number_of(name: str, value: Any, numbers: dict[str, int]) -> int:
    """The number of a keyword's text."""
    if not isinstance(value, str) or value not in numbers:
        *most, last = map(repr, numbers)
        raise InvalidOptionError(f"{name} must be {', '.join(most)} or {last}, got {value!r}")
    return numbers[value]


def _as_explanation(native: _Explanation, shape: Any, direction: Direction) -> Explanation:
    sizes = None if native.ndim < 0 else tuple(shape[: native.ndim])
    texts = (native.tf_dtype.decode(), native.torch_dtype.decode(), native.device.decode())
    reason = native.reason.decode(errors="replace")
    numbers = (native.action, native.status, native.on_write)
    return _explanation.from_native((*numbers, sizes, native.nbytes, *texts, reason), direction)


def _is_dense(x: Any) -> bool:
    """Whether `x` is a torch tensor with a value, or else a StringTensor; others are refused.

    By real type, because its memory is read.
    """
    from torch import Tensor
    from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

    lazy = (UninitializedBuffer, UninitializedParameter)
    dense = issubclass(type(x), Tensor) and not issubclass(type(x), lazy)
    strings = "tensor_bridge.composite.string.StringTensor"
    if not dense and strings not in _refusals.class_names(x):
        raise _refusals.refusal_to_tf(x)
    return dense


def _nested(items: list[bytes], shape: list[int]) -> Any:
    """The items in nested lists of this shape."""
    if not shape:
        return items[0]
    rows: list[Any] = items
    for depth in range(len(shape) - 1, 0, -1):
        size = shape[depth]
        rows = [rows[i * size : (i + 1) * size] for i in range(prod(shape[:depth]))]
    return rows


@checks_keywords
class TensorBridge:
    """Converts through the C ABI, loaded with ctypes.

    Args:
      library: Path of ``libtensor_bridge.so``; by default the installed one.

    Raises:
      FrameworkError: The library cannot be loaded.

    Example:
      >>> import tensorflow as tf, tensor_bridge
      >>> tensor_bridge.TensorBridge().convert_tf_to_pytorch(tf.constant([1, 2]))
      tensor([1, 2], dtype=torch.int32)
    """

    def __init__(self, library: str | os.PathLike[str] | None = None) -> None:
        installed = "libtensor_bridge.so"
        path = os.fspath(config.library_dir() / installed if library is None else library)
        try:
            # PyDLL keeps the GIL: the library releases it itself where it waits or copies.
            self._library = ctypes.PyDLL(path)
            for name, (returned, *taken) in _FUNCTIONS.items():
                function = getattr(self._library, name)
                function.restype, function.argtypes = returned, taken
        except (OSError, AttributeError) as e:
            raise FrameworkError(
                f"libtensor_bridge.so could not be loaded from {path!r}: {e}. Leave library= out "
                "to use the installed one, or install tensor_bridge again"
            ) from e
        self._library.tb_py_set_gil_functions(
            ctypes.cast(ctypes.pythonapi.PyEval_SaveThread, ctypes.c_void_p),
            ctypes.cast(ctypes.pythonapi.PyEval_RestoreThread, ctypes.c_void_p),
        )
        self._ready = False
        self._to_tf_ready = False

    def __repr__(self) -> str:
        return f"TensorBridge({self._library._name!r})"

    @property
    def version(self) -> str:
        """Version of the library, "major.minor.patch"."""
        text: bytes = self._library.tb_version()
        return text.decode()

    def live_owners(self) -> int:
        """TensorFlow buffers that torch keeps alive through this library."""
        return int(self._library.tb_live_owners())

    @checks_keywords
    def convert_tf_to_pytorch(
        self,
        t: Any,
        *,
        copy: bool | None = None,
        device: torch.device | str | int | None = None,
        on_write: Literal["copy", "raise", "alias"] = "copy",
        raw: bool = False,
        scale: float | Sequence[float] | torch.Tensor | None = None,
        zero_point: int | Sequence[int] | torch.Tensor | None = None,
        axis: int | None = None,
        strings: Literal["tensor", "list"] = "tensor",
    ) -> Any:
        """The same as `tensor_bridge.convert_tf_to_pytorch`, through ctypes.

        For one dense tensor, a variable, or a tensor of strings.
        """
        eager = self._is_eager(t)
        self._ensure_ready()
        options = self._options(copy, device, on_write, raw, scale, zero_point, axis)
        _options.check_extra("strings", strings)
        if eager and self._is_string(t):
            return self._strings_to_torch(t, options, strings)
        if eager:
            return self._object(self._library.tb_py_tf_to_torch, t, options)
        return self._object(self._library.tb_py_variable_to_torch, *self._variable(t), options)

    to_torch = convert_tf_to_pytorch

    @checks_keywords
    def convert_pytorch_to_tf(
        self,
        x: torch.Tensor | StringTensor,
        *,
        copy: bool | None = None,
        device: Any = None,
        dtype: Any = None,
        grad: Literal["detach", "raise"] = "detach",
    ) -> Any:
        """The same as `tensor_bridge.convert_pytorch_to_tf` for one dense tensor or strings."""
        dense = _is_dense(x)
        self._ensure_to_tf_ready()
        options = self._to_tf_options(copy, dtype, grad)
        if dense:
            tensor = self._object(self._library.tb_py_torch_to_tf, x, options)
        else:
            with self._torch_strings(x) as view:
                tensor = self._object(self._library.tb_py_strings_to_tf, view, options)
        return tensor if device is None else _options.place(tensor, device, copy)

    to_tf = convert_pytorch_to_tf

    @checks_keywords
    def explain(
        self,
        t: Any,
        *,
        copy: bool | None = None,
        device: torch.device | str | int | None = None,
        on_write: Literal["copy", "raise", "alias"] = "copy",
        raw: bool = False,
        scale: float | Sequence[float] | torch.Tensor | None = None,
        zero_point: int | Sequence[int] | torch.Tensor | None = None,
        axis: int | None = None,
        strings: Literal["tensor", "list"] = "tensor",
    ) -> Explanation:
        """The same as `tensor_bridge.explain`, through ctypes."""
        try:
            _options.check_extra("strings", strings)
            eager = self._is_eager(t)
            self._ensure_ready()
            options = self._options(copy, device, on_write, raw, scale, zero_point, axis)
            if not eager:
                variable = self._variable(t)
                explain = self._library.tb_py_variable_explain
                return self._explained("to_torch", explain, *variable, options)
            if not self._is_string(t):
                return self._explained("to_torch", self._library.tb_py_tf_explain, t, options)
            explain = self._library.tb_strings_explain
            with self._tf_strings(t) as view:
                explanation = self._explained_strings("to_torch", explain, view, options)
            return _explanation.of_strings(explanation, as_list=strings == "list")
        except Exception as e:
            return _explanation.refused(e)

    @checks_keywords
    def explain_to_tf(
        self,
        x: torch.Tensor | StringTensor,
        *,
        copy: bool | None = None,
        dtype: Any = None,
        grad: Literal["detach", "raise"] = "detach",
    ) -> Explanation:
        """What `convert_pytorch_to_tf` would do with one dense tensor, and why."""
        try:
            dense = _is_dense(x)
            self._ensure_to_tf_ready()
            options = self._to_tf_options(copy, dtype, grad)
            if dense:
                return self._explained("to_tf", self._library.tb_py_torch_explain, x, options)
            explain = self._library.tb_strings_explain_back
            with self._torch_strings(x) as view:
                explanation = self._explained_strings("to_tf", explain, view, options)
            return _explanation.of_strings(explanation)
        except Exception as e:
            return _explanation.refused(e)

    def _object(self, function: Any, *arguments: Any) -> Any:
        """The object that a function puts into its last place."""
        result = ctypes.c_void_p()
        self._check(function(*arguments, ctypes.byref(result)))
        return _take_reference(result)

    def _explained(self, direction: Direction, function: Any, *arguments: Any) -> Explanation:
        native, shape = _Explanation(struct_size=ctypes.sizeof(_Explanation)), _SHAPE()
        self._check(function(*arguments, native, shape, _MAX_DIMS))
        return _as_explanation(native, shape, direction)

    def _explained_strings(
        self, direction: Direction, function: Any, view: Any, options: Any
    ) -> Explanation:
        native = _Explanation(struct_size=ctypes.sizeof(_Explanation))
        self._check(function(view, options, native))
        return _as_explanation(native, self._library.tb_strings_shape(view), direction)

    @contextmanager
    def _strings(self, function: Any, *arguments: Any) -> Iterator[ctypes.c_void_p]:
        """A ``tb_strings*``, released at the end."""
        view = ctypes.c_void_p()
        self._check(function(*arguments, ctypes.byref(view)))
        try:
            yield view
        finally:
            self._library.tb_strings_release(view)

    def _tf_strings(self, t: Any) -> AbstractContextManager[ctypes.c_void_p]:
        """Over TensorFlow's memory."""
        return self._strings(self._library.tb_py_strings_from_tf, t)

    def _torch_strings(self, x: Any) -> AbstractContextManager[ctypes.c_void_p]:
        """Over the two tensors of a StringTensor."""
        shape = (ctypes.c_int64 * len(x.shape))(*x.shape)
        from_torch = self._library.tb_py_strings_from_torch
        return self._strings(from_torch, x.bytes, x.offsets, shape, len(shape))

    def _strings_to_torch(self, t: Any, options: _ConvertOptions, strings: str) -> Any:
        from tensor_bridge.composite.string import StringTensor

        with self._tf_strings(t) as view:
            shape = self._library.tb_strings_shape(view)[: self._library.tb_strings_ndim(view)]
            if strings == "list":
                allowed = options.copy != _COPY[False]
                _refusals.require_copy_allowed(allowed, _explanation.LIST_REASON)
                return _nested(self._all_strings(view), shape)
            data = ctypes.c_void_p()
            to_torch = self._library.tb_py_strings_to_torch
            offsets = self._object(to_torch, view, options, ctypes.byref(data))
            return StringTensor(_take_reference(data), offsets, shape)

    def _all_strings(self, view: ctypes.c_void_p) -> list[bytes]:
        nbytes = ctypes.c_int64()
        self._check(self._library.tb_strings_nbytes(view, ctypes.byref(nbytes)))
        block = ctypes.create_string_buffer(nbytes.value)
        offsets = (ctypes.c_int64 * (self._library.tb_strings_count(view) + 1))()
        self._check(self._library.tb_strings_gather(view, offsets, block, nbytes))
        data = block.raw
        return [data[begin:end] for begin, end in pairwise(offsets)]

    def _is_eager(self, t: Any) -> bool:
        """Whether it is an eager tensor, or else a variable; other values are refused."""
        eager = bool(self._library.tb_py_is_eager_tensor(t))
        if not eager and not _refusals.is_resource_variable(t):
            raise _refusals.refusal_to_torch(t)
        return eager

    def _is_string(self, t: Any) -> bool:
        """Whether an eager tensor holds strings. Without a handle it has no dtype to ask for."""
        return bool(self._library.tb_py_has_handle(t)) and t.dtype.name == "string"

    def _ensure_ready(self) -> None:
        if not self._ready:
            self._check(self._library.tb_py_use_torch(*_frameworks.ensure()))
            reason = self._library.tb_py_copying_reason()
            if reason is not None:
                _frameworks.say_that_it_copies(reason.decode(errors="replace"))
            self._ready = True

    def _ensure_to_tf_ready(self) -> None:
        self._ensure_ready()
        if not self._to_tf_ready:
            _frameworks.ensure_tensorflow()
            self._to_tf_ready = True

    def _variable(self, variable: Any) -> tuple[Any, int | None, int]:
        handle, context, tf_dtype = _refusals.variable_source(variable)
        return handle, _capsule_pointer(context), tf_dtype

    def _options(
        self, copy: Any, device: Any, on_write: Any, raw: Any, *quantization: Any
    ) -> _ConvertOptions:
        scale, zero_point, axis = quantization
        options = _ConvertOptions()
        self._library.tb_convert_options_init(options)
        options.copy = _copy_number(copy)
        options.on_write = _number_of("on_write", on_write, _ON_WRITE)
        if not isinstance(raw, bool):
            raise InvalidOptionError(f"raw must be True or False, got {raw!r}")
        options.raw = int(raw)
        if device is not None:
            options.has_device = 1
            options.device_type, options.device_id = _options.device_pair(device)
        if axis is not None:
            if not isinstance(axis, int) or isinstance(axis, bool):
                raise InvalidOptionError(f"axis must be None or an int, got {axis!r}")
            if not -(2**63) <= axis < 2**63:  # ctypes would cut it off
                raise InvalidOptionError(f"axis must fit in 64 bits, got {axis!r}")
            options.has_axis = 1
            options.axis = axis
        if scale is not None or zero_point is not None:
            scales, zero_points = _options.quantization_lists(scale, zero_point)
            options.num_scales = len(scales)
            # The structure keeps the arrays alive.
            options.scale = (ctypes.c_double * len(scales))(*scales)
            options.zero_point = (ctypes.c_int64 * len(scales))(*zero_points)
        return options

    def _to_tf_options(self, copy: Any, dtype: Any, grad: Any) -> _ConvertBackOptions:
        options = _ConvertBackOptions()
        self._library.tb_convert_back_options_init(options)
        options.copy = _copy_number(copy)
        options.grad = _number_of("grad", grad, _GRAD)
        if dtype is not None:
            options.tf_dtype = _options.tf_dtype_number(dtype)
        return options

    def _check(self, status: int) -> None:
        if status != 0:
            message: bytes = self._library.tb_last_error()
            raise BY_STATUS[status](message.decode(errors="replace"))
