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
from tensor_bridge.errors import BY_STATUS, FrameworkError, InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from tensor_bridge._explanation import Explanation
    from tensor_bridge.composite.string import StringTensor

__all__ = ["TensorBridge"]

# TensorFlow's TensorShape::MaxDimensions().
_MAX_DIMS = 254
_COPY = {None: -1, False: 0, True: 1}
_ON_WRITE = {"copy": 0, "raise": 1, "alias": 2}
_GRAD = {"detach": 0, "raise": 1}


class _ConvertOptions(ctypes.Structure):
    """``tb_convert_options`` of c_api.h."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("copy", ctypes.c_int32),
        ("on_write", ctypes.c_int32),
        ("raw", ctypes.c_int32),
        ("has_device", ctypes.c_int32),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("has_axis", ctypes.c_int32),
        ("axis", ctypes.c_int64),
        ("num_scales", ctypes.c_int64),
        ("scale", ctypes.POINTER(ctypes.c_double)),
        ("zero_point", ctypes.POINTER(ctypes.c_int64)),
    )


class _ConvertBackOptions(ctypes.Structure):
    """``tb_convert_back_options`` of c_api.h."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("copy", ctypes.c_int32),
        ("grad", ctypes.c_int32),
        ("tf_dtype", ctypes.c_int32),
    )


class _Explanation(ctypes.Structure):
    """``tb_explanation`` of c_api.h."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("action", ctypes.c_int32),
        ("status", ctypes.c_int32),
        ("on_write", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("nbytes", ctypes.c_int64),
        ("tf_dtype", ctypes.c_char_p),
        ("torch_dtype", ctypes.c_char_p),
        ("device", ctypes.c_char * 32),
        ("reason", ctypes.c_char * 1024),
    )


_STATUS, _OBJECT, _TEXT = ctypes.c_int32, ctypes.py_object, ctypes.c_char_p
_POINTER = ctypes.c_void_p
_OUT = ctypes.POINTER(_POINTER)
_SIZES = ctypes.POINTER(ctypes.c_int64)
_OPTIONS, _BACK = ctypes.POINTER(_ConvertOptions), ctypes.POINTER(_ConvertBackOptions)
_EXPLAINED = ctypes.POINTER(_Explanation)
_SHAPED = (_EXPLAINED, _SIZES, ctypes.c_int32)
_VARIABLE = (_OBJECT, _POINTER, ctypes.c_int32)
# What the functions of c_api.h that are used here return and take.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "tb_last_error": (_TEXT,),
    "tb_version": (_TEXT,),
    "tb_live_owners": (ctypes.c_int64,),
    "tb_convert_options_init": (None, _OPTIONS),
    "tb_convert_back_options_init": (None, _BACK),
    "tb_py_use_torch": (_STATUS, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32),
    "tb_py_copying_reason": (_TEXT,),
    "tb_py_set_gil_functions": (None, _POINTER, _POINTER),
    "tb_py_is_eager_tensor": (_STATUS, _OBJECT),
    "tb_py_has_handle": (_STATUS, _OBJECT),
    "tb_py_tf_to_torch": (_STATUS, _OBJECT, _OPTIONS, _OUT),
    "tb_py_tf_explain": (_STATUS, _OBJECT, _OPTIONS, *_SHAPED),
    "tb_py_variable_to_torch": (_STATUS, *_VARIABLE, _OPTIONS, _OUT),
    "tb_py_variable_explain": (_STATUS, *_VARIABLE, _OPTIONS, *_SHAPED),
    "tb_py_torch_to_tf": (_STATUS, _OBJECT, _BACK, _OUT),
    "tb_py_torch_explain": (_STATUS, _OBJECT, _BACK, *_SHAPED),
    "tb_py_strings_from_tf": (_STATUS, _OBJECT, _OUT),
    "tb_py_strings_from_torch": (_STATUS, _OBJECT, _OBJECT, _SIZES, ctypes.c_int32, _OUT),
    "tb_py_strings_to_torch": (_STATUS, _POINTER, _OPTIONS, _OUT, _OUT),
    "tb_py_strings_to_tf": (_STATUS, _POINTER, _BACK, _OUT),
    "tb_strings_ndim": (ctypes.c_int32, _POINTER),
    "tb_strings_count": (ctypes.c_int64, _POINTER),
    "tb_strings_shape": (_SIZES, _POINTER),
    "tb_strings_nbytes": (_STATUS, _POINTER, _SIZES),
    "tb_strings_gather": (_STATUS, _POINTER, _SIZES, _TEXT, ctypes.c_int64),
    "tb_strings_explain": (_STATUS, _POINTER, _OPTIONS, _EXPLAINED),
    "tb_strings_explain_back": (_STATUS, _POINTER, _BACK, _EXPLAINED),
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


def _as_explanation(native: _Explanation, shape: ctypes.Array[ctypes.c_int64]) -> Explanation:
    return _explanation.from_native(
        (
            native.action,
            native.status,
            native.on_write,
            None if native.ndim < 0 else tuple(shape[: native.ndim]),
            native.nbytes,
            native.tf_dtype.decode(),
            native.torch_dtype.decode(),
            native.device.decode(),
            native.reason.decode(errors="replace"),
        )
    )


def _is_torch_tensor(x: Any) -> bool:
    """Whether `x` is a torch tensor with a value: by real type, because its memory is read."""
    from torch import Tensor
    from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

    lazy = (UninitializedBuffer, UninitializedParameter)
    return issubclass(type(x), Tensor) and not issubclass(type(x), lazy)


def _is_string_tensor(x: Any) -> bool:
    return "tensor_bridge.composite.string.StringTensor" in _refusals.class_names(x)


def _nested(items: list[bytes], shape: list[int]) -> Any:
    """The items in nested lists of this shape."""
    if not shape:
        return items[0]
    rows: list[Any] = items
    for depth in range(len(shape) - 1, 0, -1):
        size = shape[depth]
        rows = [rows[i * size : (i + 1) * size] for i in range(prod(shape[:depth]))]
    return rows


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
        if library is None:
            library = config.library_dir() / "libtensor_bridge.so"
        path = os.fspath(library)
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
        self._back_ready = False

    @property
    def version(self) -> str:
        """Version of the library, "major.minor.patch"."""
        text: bytes = self._library.tb_version()
        return text.decode()

    def live_owners(self) -> int:
        """TensorFlow buffers that torch keeps alive through this library."""
        return int(self._library.tb_live_owners())

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
        if not eager and not _refusals.is_resource_variable(t):
            raise _refusals.refusal(t)
        self._ensure_ready()
        options = self._options(copy, device, on_write, raw, scale, zero_point, axis)
        _options.check_extra("strings", strings)
        if eager and self._is_string(t):
            return self._strings_to_torch(t, options, strings)
        result = ctypes.c_void_p()
        if eager:
            status = self._library.tb_py_tf_to_torch(t, options, ctypes.byref(result))
        else:
            source = self._variable(t)
            status = self._library.tb_py_variable_to_torch(*source, options, ctypes.byref(result))
        self._check(status)
        return _take_reference(result)

    to_torch = convert_tf_to_pytorch

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
        dense = _is_torch_tensor(x)
        if not dense and not _is_string_tensor(x):
            raise _refusals.refusal_back(x)
        self._ensure_back_ready()
        options = self._back_options(copy, dtype, grad)
        result = ctypes.c_void_p()
        if dense:
            self._check(self._library.tb_py_torch_to_tf(x, options, ctypes.byref(result)))
        else:
            with self._torch_strings(x) as view:
                self._check(self._library.tb_py_strings_to_tf(view, options, ctypes.byref(result)))
        tensor = _take_reference(result)
        return tensor if device is None else _options.place(tensor, device, copy)

    to_tf = convert_pytorch_to_tf

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
        native = _Explanation(struct_size=ctypes.sizeof(_Explanation))
        shape = (ctypes.c_int64 * _MAX_DIMS)()
        try:
            _options.check_extra("strings", strings)
            if self._is_eager(t) and self._is_string(t):
                self._ensure_ready()
                options = self._options(copy, device, on_write, raw, scale, zero_point, axis)
                with self._tf_strings(t) as view:
                    self._check(self._library.tb_strings_explain(view, options, native))
                    self._copy_shape(view, shape)
                explanation = _as_explanation(native, shape)
                return _explanation.of_strings(explanation, as_list=strings == "list")
            if self._is_eager(t):
                subject: tuple[Any, ...] = (t,)
                function = self._library.tb_py_tf_explain
            elif _refusals.is_resource_variable(t):
                function, subject = self._library.tb_py_variable_explain, self._variable(t)
            else:
                return _explanation.refused(_refusals.refusal(t))
            self._ensure_ready()
            options = self._options(copy, device, on_write, raw, scale, zero_point, axis)
            self._check(function(*subject, options, native, shape, _MAX_DIMS))
        except Exception as e:
            return _explanation.refused(e)
        return _as_explanation(native, shape)

    def explain_back(
        self,
        x: torch.Tensor | StringTensor,
        *,
        copy: bool | None = None,
        dtype: Any = None,
        grad: Literal["detach", "raise"] = "detach",
    ) -> Explanation:
        """What `convert_pytorch_to_tf` would do with one dense tensor, and why."""
        native = _Explanation(struct_size=ctypes.sizeof(_Explanation))
        shape = (ctypes.c_int64 * _MAX_DIMS)()
        try:
            dense = _is_torch_tensor(x)
            if not dense and not _is_string_tensor(x):
                raise _refusals.refusal_back(x)
            self._ensure_back_ready()
            options = self._back_options(copy, dtype, grad)
            if not dense:
                with self._torch_strings(x) as view:
                    self._check(self._library.tb_strings_explain_back(view, options, native))
                    self._copy_shape(view, shape)
                return _explanation.of_strings(_as_explanation(native, shape))
            self._check(self._library.tb_py_torch_explain(x, options, native, shape, _MAX_DIMS))
        except Exception as e:
            return _explanation.refused(e)
        return _as_explanation(native, shape)

    @contextmanager
    def _tf_strings(self, t: Any) -> Iterator[ctypes.c_void_p]:
        """A ``tb_strings*`` over TensorFlow's memory."""
        view = ctypes.c_void_p()
        self._check(self._library.tb_py_strings_from_tf(t, ctypes.byref(view)))
        try:
            yield view
        finally:
            self._library.tb_strings_release(view)

    @contextmanager
    def _torch_strings(self, x: Any) -> Iterator[ctypes.c_void_p]:
        """A ``tb_strings*`` over the two tensors of a StringTensor."""
        view = ctypes.c_void_p()
        shape = (ctypes.c_int64 * len(x.shape))(*x.shape)
        self._check(
            self._library.tb_py_strings_from_torch(
                x.bytes, x.offsets, shape, len(shape), ctypes.byref(view)
            )
        )
        try:
            yield view
        finally:
            self._library.tb_strings_release(view)

    def _copy_shape(self, view: ctypes.c_void_p, out: ctypes.Array[ctypes.c_int64]) -> None:
        ndim = self._library.tb_strings_ndim(view)
        out[:ndim] = self._library.tb_strings_shape(view)[:ndim]

    def _strings_to_torch(self, t: Any, options: _ConvertOptions, strings: str) -> Any:
        from tensor_bridge.composite.string import StringTensor

        with self._tf_strings(t) as view:
            shape = self._library.tb_strings_shape(view)[: self._library.tb_strings_ndim(view)]
            if strings == "list":
                allowed = options.copy != _COPY[False]
                _refusals.require_copy_allowed(allowed, _explanation.LIST_REASON)
                return _nested(self._all_strings(view), shape)
            data, offsets = ctypes.c_void_p(), ctypes.c_void_p()
            self._check(
                self._library.tb_py_strings_to_torch(
                    view, options, ctypes.byref(data), ctypes.byref(offsets)
                )
            )
            return StringTensor(_take_reference(data), _take_reference(offsets), shape)

    def _all_strings(self, view: ctypes.c_void_p) -> list[bytes]:
        nbytes = ctypes.c_int64()
        self._check(self._library.tb_strings_nbytes(view, ctypes.byref(nbytes)))
        block = ctypes.create_string_buffer(nbytes.value)
        offsets = (ctypes.c_int64 * (self._library.tb_strings_count(view) + 1))()
        self._check(self._library.tb_strings_gather(view, offsets, block, nbytes))
        data = block.raw
        return [data[begin:end] for begin, end in pairwise(offsets)]

    def _is_eager(self, t: Any) -> bool:
        return bool(self._library.tb_py_is_eager_tensor(t))

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

    def _ensure_back_ready(self) -> None:
        self._ensure_ready()
        if not self._back_ready:
            _frameworks.ensure_tensorflow()
            self._back_ready = True

    def _variable(self, variable: Any) -> tuple[Any, int | None, int]:
        handle, context, tf_dtype = _refusals.variable_source(variable)
        return handle, _capsule_pointer(context), tf_dtype

    def _options(
        self,
        copy: Any,
        device: Any,
        on_write: Any,
        raw: Any,
        scale: Any,
        zero_point: Any,
        axis: Any,
    ) -> _ConvertOptions:
        options = _ConvertOptions()
        self._library.tb_convert_options_init(options)
        options.copy = _copy_number(copy)
        if not isinstance(on_write, str) or on_write not in _ON_WRITE:
            raise InvalidOptionError(
                f"on_write must be 'copy', 'raise' or 'alias', got {on_write!r}"
            )
        if not isinstance(raw, bool):
            raise InvalidOptionError(f"raw must be True or False, got {raw!r}")
        options.on_write = _ON_WRITE[on_write]
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

    def _back_options(self, copy: Any, dtype: Any, grad: Any) -> _ConvertBackOptions:
        options = _ConvertBackOptions()
        self._library.tb_convert_back_options_init(options)
        options.copy = _copy_number(copy)
        if not isinstance(grad, str) or grad not in _GRAD:
            raise InvalidOptionError(f"grad must be 'detach' or 'raise', got {grad!r}")
        options.grad = _GRAD[grad]
        if dtype is not None:
            options.tf_dtype = _options.tf_dtype_number(dtype)
        return options

    def _check(self, status: int) -> None:
        if status != 0:
            message: bytes = self._library.tb_last_error()
            raise BY_STATUS[status](message.decode(errors="replace"))
