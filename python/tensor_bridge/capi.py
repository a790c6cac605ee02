"""`TensorBridge`: the conversion through ctypes, over the C ABI of ``libtensor_bridge.so``.

For programs that load the library themselves, and as a worked example of ``c_api.h``. Keywords,
write protection and exceptions are those of `tensor_bridge.convert_tf_to_pytorch`; a call takes
some microseconds longer, because ctypes does.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any, Literal

from tensor_bridge import _classify, _frameworks, _options
from tensor_bridge.errors import BY_STATUS, FrameworkError, InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from tensor_bridge._explanation import Explanation

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
    library.tb_use_torch.argtypes = (ctypes.c_int32, ctypes.c_int32)
    library.tb_py_set_gil_functions.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    library.tb_py_set_gil_functions.restype = None
    library.tb_py_is_eager_tensor.argtypes = (obj,)
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
    library.tb_live_owners.restype = ctypes.c_int64
    for name in (
        "tb_use_torch",
        "tb_py_is_eager_tensor",
        "tb_py_tf_to_torch",
        "tb_py_tf_explain",
        "tb_py_variable_to_torch",
        "tb_py_variable_explain",
        "tb_py_torch_to_tf",
        "tb_py_torch_explain",
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
    from tensor_bridge import _explanation

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
    ) -> torch.Tensor:
        """The same as `tensor_bridge.convert_tf_to_pytorch`, through ctypes."""
        eager = self._is_eager(t)
        if not eager and not _classify.is_resource_variable(t):
            raise _classify.refusal(t)
        self._ensure_ready()
        options = self._options(copy, device, on_write, raw, scale, zero_point, axis)
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
        x: torch.Tensor,
        *,
        copy: bool | None = None,
        device: Any = None,
        dtype: Any = None,
        grad: Literal["detach", "raise"] = "detach",
    ) -> Any:
        """The same as `tensor_bridge.convert_pytorch_to_tf` for one dense tensor."""
        import torch

        # By real type, not by __class__: the memory behind is read.
        if not issubclass(type(x), torch.Tensor):
            raise _classify.refusal_back(x)
        self._ensure_back_ready()
        options = self._back_options(copy, dtype, grad)
        result = ctypes.c_void_p()
        self._check(self._library.tb_py_torch_to_tf(x, options, ctypes.byref(result)))
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
    ) -> Explanation:
        """The same as `tensor_bridge.explain`, through ctypes."""
        from tensor_bridge import _explanation

        native = _Explanation(struct_size=ctypes.sizeof(_Explanation))
        shape = (ctypes.c_int64 * _MAX_DIMS)()
        try:
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
        x: torch.Tensor,
        *,
        copy: bool | None = None,
        dtype: Any = None,
        grad: Literal["detach", "raise"] = "detach",
    ) -> Explanation:
        """What `convert_pytorch_to_tf` would do with one dense tensor, and why."""
        import torch

        from tensor_bridge import _explanation

        native = _Explanation(struct_size=ctypes.sizeof(_Explanation))
        shape = (ctypes.c_int64 * _MAX_DIMS)()
        try:
            if not issubclass(type(x), torch.Tensor):
                raise _classify.refusal_back(x)
            self._ensure_back_ready()
            options = self._back_options(copy, dtype, grad)
            self._check(self._library.tb_py_torch_explain(x, options, native, shape, _MAX_DIMS))
        except Exception as e:
            return _explanation.refused(e)
        return _as_explanation(native, shape)

    def _is_eager(self, t: Any) -> bool:
        return bool(self._library.tb_py_is_eager_tensor(t))

    def _ensure_ready(self) -> None:
        if not self._ready:
            self._check(self._library.tb_use_torch(*_frameworks.ensure()))
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
