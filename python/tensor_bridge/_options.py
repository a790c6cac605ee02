"""Names of keywords, and the values that Python reads: devices, quantization parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from tensor_bridge import _C, _devices, _refusals
from tensor_bridge.errors import InvalidOptionError, UnsupportedDeviceError

if TYPE_CHECKING:
    from tensor_bridge._explanation import Explanation

# DLDeviceType of dlpack.h. torch calls ROCm's devices cuda.
_DEVICE_TYPES = {"cpu": 1, "cuda": 2}

EXTRA = {"strings": ("tensor", "list"), "unknown": ("raise", "keep"), "live": (False, True)}
"""Keywords that concern only composites and structures, and their possible values."""


def check_extra(name: str, value: Any) -> None:
    """Checks a keyword that concerns only composites and structures.

    Raises:
      InvalidOptionError: the keyword does not take this value.
    """
    allowed = EXTRA[name]
    if not any(value is a or (isinstance(a, str) and value == a) for a in allowed):
        raise InvalidOptionError(
            f"{name} must be {' or '.join(repr(a) for a in allowed)}, got {value!r}"
        )


_F = TypeVar("_F", bound=Callable[..., Any])


def checks_keywords(function: _F) -> _F:
    """Decorator of a public function or class: `refuse_keyword` tells of a wrong keyword."""
    return checks_keywords_or({})(function)


def checks_keywords_or(instead: Mapping[str, str]) -> Callable[[_F], _F]:
    """As `checks_keywords`, with what to do instead of some keywords that others have.

    Raises, when the function is called:
      InvalidOptionError: for a keyword in ``instead``.
    """

    def decorate(function: _F) -> _F:
        if isinstance(function, type):
            function.__init__ = decorate(function.__init__)  # type: ignore[misc]
            return function
        code = function.__code__
        count = code.co_argcount + code.co_kwonlyargcount
        names = code.co_varnames[code.co_posonlyargcount : count]
        known = frozenset(names)

        @wraps(function)
        def checked(*args: Any, **keywords: Any) -> Any:
            if not known.issuperset(keywords):
                wrong = next(name for name in keywords if name not in known)
                own = function.__name__ == "__init__"
                called = type(args[0]).__name__ if own else function.__name__
                if wrong in instead:
                    raise InvalidOptionError(f"{called}() has no {wrong}=; {instead[wrong]}")
                public = (name for name in names if name != "self" and name[0] != "_")
                refuse_keyword(wrong, " ".join(public), f"{called}() ")
            return function(*args, **keywords)

        return cast(_F, checked)

    return decorate


def refuse_keyword(name: str, known: str, called: str = "") -> NoReturn:
    """Refuses a keyword that does not exist.

    Args:
      name: The keyword.
      known: Those that there are, with spaces between them.
      called: What the text begins with: the function.

    Raises:
      TypeError: always.
    """
    from difflib import get_close_matches

    names = known.split()
    nearest = get_close_matches(name, names, 1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    expected = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    raise TypeError(
        f"{called}got an unexpected keyword argument {name!r}; expected {expected}{hint}"
    )


def device_pair(device: Any) -> tuple[int, int]:
    """(DLPack device type, index) of a ``device=`` value; index -1 means the current device.

    Raises:
      InvalidOptionError: torch does not know the device.
      UnsupportedDeviceError: a torch device that TensorFlow's tensors cannot be moved to.
    """
    import torch

    try:
        parsed = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as e:
        if isinstance(device, int) and not isinstance(device, bool) and device >= 0:
            raise UnsupportedDeviceError(
                f"device={device} means an accelerator, and torch has none in this process; "
                "expected cpu, or an index with a CUDA build of torch and a visible GPU"
            ) from e
        raise InvalidOptionError(
            f"device must be None or what torch.device() takes, got {device!r}: {e}"
        ) from e
    kind = _DEVICE_TYPES.get(parsed.type)
    if kind is None:
        raise UnsupportedDeviceError(
            f"device must be a cpu or cuda device, got {str(parsed)!r}; convert without device= "
            "and use Tensor.to()"
        )
    return kind, -1 if parsed.index is None else parsed.index


def _numbers(name: str, value: Any, convert: type) -> list[Any]:
    # Only plain numbers, sequences of them and torch tensors are taken: torch's item() and tolist()
    # do not go through NumPy.
    import torch

    if isinstance(value, torch.Tensor):
        try:
            value = value.tolist()
        except (RuntimeError, NotImplementedError) as e:
            raise InvalidOptionError(
                f"{name} must be a torch tensor whose values can be read, got one on "
                f"{value.device}: {e}"
            ) from e
    text = isinstance(value, (str, bytes, bytearray))
    items = list(value) if isinstance(value, Sequence) and not text else [value]
    numbers = []
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (int, float)):
            raise InvalidOptionError(
                f"{name} must be a number, a sequence of numbers or a torch tensor, "
                f"got {item!r} of type {type(item).__name__}"
            )
        if convert is int and isinstance(item, float) and not item.is_integer():
            raise InvalidOptionError(f"{name} must be an integer, got {item!r}")
        try:
            numbers.append(convert(item))
        except OverflowError as e:
            raise InvalidOptionError(f"{name} must fit in a float, got a larger int") from e
    return numbers


def quantization_lists(scale: Any, zero_point: Any) -> tuple[list[float], list[int]]:
    """``scale`` and ``zero_point`` as lists of equal length.

    Raises:
      InvalidOptionError: only one of them is given, the lengths differ, or a value is no number.
    """
    if scale is None or zero_point is None:
        missing = "scale" if scale is None else "zero_point"
        raise InvalidOptionError(f"scale and zero_point belong together, {missing} is missing")
    scales = _numbers("scale", scale, float)
    zero_points = _numbers("zero_point", zero_point, int)
    if len(scales) != len(zero_points):
        raise InvalidOptionError(
            f"scale and zero_point must have the same number of values, got {len(scales)} and "
            f"{len(zero_points)}"
        )
    if not scales:
        raise InvalidOptionError("scale and zero_point must not be empty")
    for zero in zero_points:
        if not -(2**31) <= zero < 2**31:
            raise InvalidOptionError(f"zero_point must fit in 32 bits, got {zero}")
    return scales, zero_points


def tf_dtype_number(dtype: Any) -> int:
    """TensorFlow's DataType number of a ``dtype=`` value: a tf.DType, its name or its number.

    Raises:
      InvalidOptionError: TensorFlow has no such dtype.
    """
    import tensorflow as tf

    try:
        return int(tf.as_dtype(dtype).as_datatype_enum)
    except (TypeError, KeyError) as e:
        raise InvalidOptionError(
            f"dtype must be None, a tf.DType or the name of one, got {dtype!r}"
        ) from e


def tf_device_name(device: Any) -> str:
    """Full name of the logical TensorFlow device that a ``device=`` value means.

    Takes TensorFlow's names ("GPU:0", "/device:CPU:1") and torch's ("cuda:0", torch.device).

    Raises:
      InvalidOptionError: not the name of a device.
      UnsupportedDeviceError: TensorFlow has no such device here.
    """
    import tensorflow as tf
    import torch

    text = str(device) if isinstance(device, torch.device) else device
    if not isinstance(text, str):
        raise InvalidOptionError(
            f"device must be None, a TensorFlow device name or a torch.device, got {device!r}"
        )
    kind, _, index = text.rsplit("/device:", 1)[-1].lstrip("/").partition(":")
    names = [d.name for d in tf.config.list_logical_devices()]
    kind = kind.upper()
    if kind == "CUDA":
        kind, index = "GPU", _logical_index(index, names)
    index = index or "0"
    for name in names:
        if name.endswith(f"/device:{kind}:{index}") or name == f"/device:{kind}:{index}":
            return str(name)
    raise UnsupportedDeviceError(
        f"device={device!r} is not a device of TensorFlow's here; expected one of "
        f"{', '.join(names)}"
    )


def _logical_index(index: str, names: Sequence[str]) -> str:
    """TensorFlow's number of the GPU ``cuda:<index>`` of torch; "none" if TensorFlow lacks it."""
    import torch

    if not any("/device:GPU:" in name for name in names) or not (index.isdigit() or index == ""):
        return index
    if index == "":
        _C.require_torch_cuda()
        index = str(torch.cuda.current_device()) if torch.cuda.is_available() else "0"
    logical = _devices.logical_of_gpu(int(index))
    return "none" if logical is None else str(logical)


def _short(name: str) -> str:
    return name.rsplit("/device:", 1)[-1]


def _needs_copy(name: str, here: str, device: Any, copy: bool | None) -> bool:
    """Whether moving a tensor from one logical device to another copies its elements.

    Raises:
      CopyRequiredError: it does, and ``copy`` is False.
    """
    # Logical CPU devices are one host: TensorFlow moves a tensor between them without a copy.
    if name == here or (name.startswith("CPU:") and here.startswith("CPU:")):
        return False
    _refusals.require_copy_allowed(
        copy,
        f"device={device!r} moves the tensor from {here} to {name}",
        "Leave device= out, or allow the copy",
    )
    return True


def place(result: Any, device: Any, copy: bool | None) -> Any:
    """An eager tensor on the TensorFlow device that ``device`` means, copied there if need be.

    Raises:
      CopyRequiredError: ``copy`` is False and the move is a copy.
    """
    import tensorflow as tf

    name = tf_device_name(device)
    here = _short(result.backing_device)
    _needs_copy(_short(name), here, device, copy)
    if here == _short(name):
        return result
    # init_scope: the result is a value, even while a tf.function is being traced.
    with _devices.kept(), tf.init_scope(), tf.device(name):
        return tf.identity(result)


def explain_place(explanation: Explanation, device: Any, copy: bool | None) -> Explanation:
    """The explanation of the result after `place`.

    Raises:
      CopyRequiredError: ``copy`` is False and the move is a copy.
    """
    if explanation.action == "refused" or explanation.device is None:
        return explanation
    name = _short(tf_device_name(device))
    if not _needs_copy(name, explanation.device, device, copy):
        return replace(explanation, device=name)
    return replace(
        explanation,
        action="copied",
        device=name,
        reason=f"device={device!r} moves the tensor from {explanation.device}",
    )
