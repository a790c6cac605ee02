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

from tensor_bridge import _classify, _explanation, _frameworks, _options
from tensor_bridge.errors import BY_STATUS, CopyRequiredError, FrameworkError, InvalidOptionError

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


def _default_library() -> str:
    """The library beside the extension module, found without loading either."""
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec("tensor_bridge._C")
    if spec is None or spec.origin is None:
        raise FrameworkError(
            "the extension module tensor_bridge._C is missing; install tensor_bridge again, or "
            "give the path of libtensor_bridge.so",
            name="tensor_bridge._C",
        )
    return str(Path(spec.origin).parent / "libtensor_bridge.so")


def _declare(library: ctypes.PyDLL) -> None:
    """Argument types of the functions used here; the rest of c_api.h needs none."""
    status, obj, out = ctypes.c_int32, ctypes.py_object, ctypes.POINTER(ctypes.c_void_p)
    options = ctypes.POINTER(_ConvertOptions)
    explanation = (ctypes.POINTER(_Explanation), ctypes.POINTER(ctypes.c_int64), ctypes.c_int32)
    library.tb_last_error.restype = ctypes.c_char_p
    library.tb_version.restype = ctypes.c_char_p
    library.tb_convert_options_init.argtypes = (options,)
    library.tb_convert_options_init.restype = None
    library.tb_py_use_torch.argtypes = (ctypes.c_int32,) * 3
    library.tb_py_copying_reason.restype = ctypes.c_char_p
    library.tb_py_set_gil_functions.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    library.tb_py_set_gil_functions.restype = None
    library.tb_py_is_eager_tensor.argtypes = (obj,)
    library.tb_py_has_handle.argtypes = (obj,)
    library.tb_py_tf_to_torch.argtypes = (obj, options, out)
    library.tb_py_tf_explain.argtypes = (obj, options, *explanation)
    variable = (obj, ctypes.c_void_p, ctypes.c_int32)
    library.tb_py_variable_to_torch.argtypes = (*variable, options, out)
    library.tb_py_variable_explain.argtypes = (*variable, options, *explanation)
    back = ctypes.POINTER(_ConvertBackOptions)
    library.tb_convert_back_options_init.argtypes = (back,)
    library.tb_convert_back_options_init.restype = None
    library.tb_py_torch_to_tf.argtypes = (obj, back, out)
    library.tb_py_torch_explain.argtypes = (obj, back, *explanation)
    library.tb_py_strings_from_tf.argtypes = (obj, out)
    sizes, strings = ctypes.POINTER(ctypes.c_int64), ctypes.c_void_p
    library.tb_py_strings_from_torch.argtypes = (obj, obj, sizes, ctypes.c_int32, out)
    library.tb_py_strings_to_torch.argtypes = (strings, options, out, out)
    library.tb_py_strings_to_tf.argtypes = (strings, back, out)
    library.tb_strings_nbytes.argtypes = (strings, sizes)
    library.tb_strings_gather.argtypes = (strings, sizes, ctypes.c_char_p, ctypes.c_int64)
    library.tb_strings_explain.argtypes = (strings, options, explanation[0])
    library.tb_strings_explain_back.argtypes = (strings, back, explanation[0])
    library.tb_strings_release.argtypes = (strings,)
    library.tb_strings_release.restype = None
    library.tb_strings_ndim.argtypes = library.tb_strings_count.argtypes = (strings,)
    library.tb_strings_shape.argtypes = (strings,)
    library.tb_strings_ndim.restype = ctypes.c_int32
    library.tb_strings_count.restype = ctypes.c_int64
    library.tb_strings_shape.restype = sizes
    library.tb_live_owners.restype = ctypes.c_int64
    for name in (
        "tb_py_use_torch",
        "tb_py_is_eager_tensor",
        "tb_py_has_handle",
        "tb_py_tf_to_torch",
        "tb_py_tf_explain",
        "tb_py_variable_to_torch",
        "tb_py_variable_explain",
        "tb_py_torch_to_tf",
        "tb_py_torch_explain",
        "tb_py_strings_from_tf",
        "tb_py_strings_from_torch",
        "tb_py_strings_to_torch",
        "tb_py_strings_to_tf",
        "tb_strings_nbytes",
        "tb_strings_gather",
        "tb_strings_explain",
        "tb_strings_explain_back",
    ):
        getattr(library, name).restype = status


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
    return "tensor_bridge.composite.string.StringTensor" in _classify.class_names(x)


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
        path = _default_library() if library is None else os.fspath(library)
        try:
            # PyDLL keeps the GIL: the library releases it itself where it waits or copies.
            self._library = ctypes.PyDLL(path)
            _declare(self._library)
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
        if not eager and not _classify.is_resource_variable(t):
            raise _classify.refusal(t)
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
            raise _classify.refusal_back(x)
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
            elif _classify.is_resource_variable(t):
                function, subject = self._library.tb_py_variable_explain, self._variable(t)
            else:
                return _explanation.refused(_classify.refusal(t))
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
                raise _classify.refusal_back(x)
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
                if options.copy == _COPY[False]:
                    raise CopyRequiredError(_explanation.LIST_NEEDS_COPY)
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
        handle, context, tf_dtype = _classify.variable_source(variable)
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
