"""Conversions as operators of torch's: `to_torch` and `to_tf` inside torch.compile.

``tensor_bridge::to_torch`` takes a TensorFlow tensor or variable as what torch calls an opaque
object: an input of the compiled graph of which the guards and the fake kernel know only the shape,
dtype and device. ``tensor_bridge::to_tf`` returns an opaque object.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _devices, _dtypes, _triton
from tensor_bridge.errors import FrameworkError, UnsupportedDtypeError

if TYPE_CHECKING:
    import torch

_OPAQUE = "tensor_bridge.TfTensor"
_REMEDY = (
    "call tensor_bridge.autograd.compile_conversions() before, or convert outside the compiled "
    "function"
)
# The attribute with sizes, dtype and device of the fake result of `to_tf` while torch traces.
_TRACED = "_tensor_bridge_traced"


# Whether conversions are operators. Compiled functions are guarded by it.
_compiled = False


# ---- traced by torch.compile ---------------------------------------------------------------------


def _to_torch(t: Any, **options: Any) -> Any:
    import torch

    if not _compiled:
        _leave("TensorFlow tensors", _REMEDY)
    if isinstance(t, dict):
        return {key: _to_torch(child, **options) for key, child in t.items()}
    if isinstance(t, (list, tuple)) and not hasattr(t, "_fields"):
        children = [_to_torch(child, **options) for child in t]
        return tuple(children) if isinstance(t, tuple) else children
    if not _is_dense(t):
        _leave("this value")
    given = {"copy": None, "device": None, "on_write": "copy"} | options
    if len(given) > 3 or given["on_write"] != "copy":
        _leave("these options")
    device = None if given["device"] is None else str(torch.device(given["device"]))
    return torch.ops.tensor_bridge.to_torch(t, given["copy"], device)


def _to_tf(x: Any, **options: Any) -> Any:
    import torch

    if not _compiled:
        _leave("torch tensors", _REMEDY)
    if isinstance(x, dict):
        return {key: _to_tf(child, **options) for key, child in x.items()}
    if isinstance(x, (list, tuple)) and not hasattr(x, "_fields"):
        children = [_to_tf(child, **options) for child in x]
        return tuple(children) if isinstance(x, tuple) else children
    if not isinstance(x, torch.Tensor) or x.layout != torch.strided or not _has_dtype(x.dtype):
        _leave("this value")
    given = {"copy": None, "grad": "detach"} | options
    if len(given) > 2 or (given["grad"] != "detach" and x.requires_grad):
        _leave("these options")
    return torch.ops.tensor_bridge.to_tf(x, given["copy"])


def _leave(what: str, remedy: str = "convert outside") -> None:
    """Breaks the graph: the conversion runs outside it, or fails under fullgraph=True."""
    import torch

    torch._dynamo.graph_break(
        msg=f"tensor_bridge: {what} cannot be converted inside a compiled graph; {remedy}"
    )


def _is_dense(t: Any) -> bool:
    """Whether the operator takes a value, which may be torch's fake of it."""
    t = _real(t)
    if not isinstance(t, _opaque_kinds()):
        return False
    try:
        _traced(t)
    except UnsupportedDtypeError:
        return False
    return True


def _has_dtype(dtype: torch.dtype) -> bool:
    try:
        _dtypes.tf_dtype(dtype)
    except UnsupportedDtypeError:
        return False
    return True


# What torch.compiler.assume_constant_result does: called for real while torch traces.
_is_dense.__dict__["_dynamo_marked_constant"] = True
_has_dtype.__dict__["_dynamo_marked_constant"] = True


@cache
def break_graphs() -> None:
    """Makes the extension's functions known to torch.compile, which breaks its graphs there.

    torch.compile breaks its graph at any function of an extension, but for unknown ones it asks the
    user to report them. Called when torch._dynamo is imported.
    """
    from types import BuiltinFunctionType

    import torch

    traced: dict[str, Any] = {"convert_tf_to_pytorch": _to_torch, "convert_pytorch_to_tf": _to_tf}
    for name, function in vars(_C).items():
        if isinstance(function, BuiltinFunctionType):
            substitute = torch.compiler.substitute_in_graph(function, skip_signature_check=True)
            substitute(traced.get(name, _untraced))


def _untraced(*args: Any, **options: Any) -> Any:
    _leave("this value")


# ---- the operators -------------------------------------------------------------------------------


def compile_conversions() -> None:
    """Makes `to_torch` and `to_tf` operators of a compiled graph, from now on in this process.

    Without it torch.compile runs a conversion between two graphs, and ``fullgraph=True`` is an
    error. With it, ``to_torch`` of dense tensors and variables, and of lists, tuples and dicts of
    them, becomes ``torch.ops.tensor_bridge.to_torch``, and ``to_tf`` ``tensor_bridge::to_tf``. A
    graph is compiled for the shape, dtype and device of each TensorFlow tensor, and guarded by
    them. Gradients do not pass through; `tf_to_torch` is for that.

    TensorFlow tensors are then opaque objects for torch.compile: a compiled function may take,
    return and convert them, and nothing else.

    Raises:
      FrameworkError: This torch has no opaque objects (2.13 has them), or TensorFlow was imported
        first and would make triton, which torch.compile needs, abort the process.
    """
    global _compiled
    _triton.check("torch.compile")
    # Importing it calls `break_graphs`. If that failed, this import raises the reason.
    import_module("torch._dynamo")
    break_graphs()
    operators()
    _compiled = True


@cache
def _opaque_kinds() -> tuple[type, ...]:
    import tensorflow as tf

    # The class has no public name (TensorFlow 2.12 to 2.21).
    from tensorflow.python.ops.resource_variable_ops import BaseResourceVariable

    return type(tf.constant(0)), BaseResourceVariable


def _layout(value: Any) -> list[Any]:
    """The properties that a graph is compiled for."""
    return [tuple(value.shape), value.dtype, value.device]


def _real(value: Any) -> Any:
    return getattr(value, "real_obj", value)


def _traced(value: Any) -> tuple[Any, torch.dtype, torch.device]:
    """Sizes, dtype and device of what an opaque object becomes in torch."""
    import torch

    sizes: Any
    known = getattr(value, _TRACED, None)
    if known is not None:
        sizes, dtype, device = known
        return sizes, dtype, device
    kind, _, index = value.device.rpartition("/device:")[2].partition(":")
    where = torch.device("cpu")
    if kind == "GPU":
        where = torch.device("cuda", _devices.gpu_of_logical(int(index)))
    return tuple(value.shape), _dtypes.torch_dtype(value.dtype), where


def _register_kinds() -> Any:
    """Makes TensorFlow's classes opaque to torch; returns torch's function that fakes an object.

    Raises:
      FrameworkError: This torch has no opaque objects.
    """
    import torch

    try:
        from torch._library import opaque_object
        from torch._library.fake_class_registry import maybe_to_fake_obj

        # 2.14 has new names, and warns of the old ones.
        if hasattr(opaque_object, "register_custom_class"):
            from torch._custom_class_base import CustomClassBase as Base

            register, typ = opaque_object.register_custom_class, "symbolic"
        else:
            from torch._opaque_base import OpaqueBase as Base

            register, typ = opaque_object.register_opaque_type, "reference"
        infos = opaque_object._OPAQUE_TYPES
        module, _, name = _OPAQUE.rpartition(".")
        kind = type(name, (Base,), {"__module__": module})
        register(kind, typ=typ, guard_fn=_layout)
    except (ImportError, AttributeError, TypeError) as e:
        raise FrameworkError(
            f"expected a torch whose operators take opaque objects, as 2.13 has them, got "
            f"{torch.__version__}; update torch, or convert outside the compiled function",
            name="torch",
        ) from e
    # The function asks for a metaclass of torch's, which makes isinstance() true for fakes in
    # traced code. TensorFlow's classes have another metaclass, and work as opaque types without it.
    for each in _opaque_kinds():
        infos[each] = infos[kind]
    return maybe_to_fake_obj


@cache
def operators() -> SimpleNamespace:
    """Defines the operators and their opaque type, once.

    Raises:
      FrameworkError: This torch has no opaque objects.
    """
    import tensorflow as tf
    import torch
    from torch._guards import detect_fake_mode

    fake_object = _register_kinds()

    def to_torch(t: Any, copy: bool | None, device: str | None) -> torch.Tensor:
        result: torch.Tensor = _C.convert_tf_to_pytorch(t, copy=copy, device=device)
        return result

    def fake_to_torch(t: Any, copy: bool | None, device: str | None) -> torch.Tensor:
        sizes, dtype, where = _traced(_real(t))
        return torch.empty(sizes, dtype=dtype, device=where if device is None else device)

    def to_tf(x: torch.Tensor, copy: bool | None) -> Any:
        return _C.convert_pytorch_to_tf(x, copy=copy)

    def fake_to_tf(x: torch.Tensor, copy: bool | None) -> Any:
        stand_in = tf.zeros([0], _dtypes.tf_dtype(x.dtype))
        setattr(stand_in, _TRACED, (tuple(x.shape), x.dtype, x.device))
        return fake_object(detect_fake_mode([x]), stand_in)

    define: Any = torch.library.custom_op
    to_torch_op = define(
        "tensor_bridge::to_torch",
        to_torch,
        mutates_args=(),
        schema=f"({_OPAQUE} t, bool? copy, str? device) -> Tensor",
    )
    to_torch_op.register_fake(fake_to_torch)
    to_tf_op = define(
        "tensor_bridge::to_tf",
        to_tf,
        mutates_args=(),
        schema=f"(Tensor x, bool? copy) -> {_OPAQUE}",
    )
    to_tf_op.register_fake(fake_to_tf)
    return SimpleNamespace(to_torch=to_torch_op, to_tf=to_tf_op)
