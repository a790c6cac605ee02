"""What a value is, by the names of its classes, and the exception if it cannot be converted.

Nothing here imports a framework that is not loaded.
"""

from __future__ import annotations

import sys
from collections import UserDict
from collections.abc import Iterator, Mapping, Set
from typing import Any

from tensor_bridge._loaded import loaded_tensorflow
from tensor_bridge.errors import (
    CopyRequiredError,
    SymbolicTensorError,
    TensorBridgeError,
    UnsupportedTypeError,
)

_GRAPH_TENSOR = (
    "tensorflow.python.framework.tensor.Tensor",  # TensorFlow 2.14 and newer
    "tensorflow.python.framework.ops.Tensor",  # TensorFlow 2.12, 2.13
)
RESOURCE_VARIABLE = "tensorflow.python.ops.resource_variable_ops.BaseResourceVariable"
UNINITIALIZED = "torch.nn.parameter.UninitializedTensorMixin"
TORCH_MODULE = "torch.nn.modules.module.Module"
_COMPOSITE = "tensorflow.python.framework.composite_tensor.CompositeTensor"


def copy_refusal(reason: str, advice: str = "Use copy=None") -> str:
    """The message if ``copy=False`` forbids a needed copy; copy_policy.h has C++'s."""
    return f"copy=False, but a copy is needed: {reason}. {advice}"


def require_copy_allowed(copy: bool | None, reason: str, advice: str = "Use copy=None") -> None:
    """Called wherever Python itself copies; the library has its own function.

    Raises:
      CopyRequiredError: ``copy`` is False.
    """
    if copy is False:
        raise CopyRequiredError(copy_refusal(reason, advice))


def class_names(value: Any) -> list[str]:
    """Full names of the classes in the value's method resolution order."""
    return [f"{c.__module__}.{c.__qualname__}" for c in type(value).__mro__]


def class_name(value: Any) -> str:
    """Full name of the value's class, without the module for Python's builtin classes."""
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def a_class(value: Any) -> str:
    """Name of the value's class, after "a" or "an"."""
    return with_article(class_name(value))


def with_article(name: str) -> str:
    """The name after "a" or "an"."""
    return f"{'an' if name[:1] in 'aeiouAEIO' else 'a'} {name}"


def is_resource_variable(value: Any) -> bool:
    """Whether the value is a TensorFlow 2 variable (not a Keras or distributed one)."""
    return RESOURCE_VARIABLE in class_names(value)


def is_tensorflow_value(value: Any) -> bool:
    """Whether the value is a tensor, symbolic ones included, or made of tensors."""
    names = class_names(value)
    return _COMPOSITE in names or any(name in names for name in _GRAPH_TENSOR)


def is_graph_tensor(value: Any) -> bool:
    """Whether the value is a tf.Tensor. If it is not an eager tensor, it is one of a graph."""
    names = class_names(value)
    return any(name in names for name in _GRAPH_TENSOR)


def is_keras_tensor(value: Any) -> bool:
    """Whether the value is a symbolic input or output of Keras's functional API."""
    return _is_keras(class_names(value), "KerasTensor")


def variable_handle(variable: Any) -> Any:
    """The handle through which operations reach a variable's current value.

    Raises:
      SymbolicTensorError: a graph is being built: reading now would freeze the value.
    """
    from tensorflow.python.eager import context  # loaded: there is a variable

    if not context.executing_eagerly():
        raise SymbolicTensorError(
            "expected a variable outside a graph, got one inside a tf.function, where it has no "
            "value yet; convert it before or after the call, or wrap the torch code in "
            "tf.py_function"
        )
    handle = variable.handle
    if type(handle).__name__ != "EagerTensor":
        raise SymbolicTensorError(
            "expected a variable outside a graph, got one that belongs to a graph, where its value "
            "lives in a session; read it there (session.run), or create the variable eagerly"
        )
    return handle


def variable_source(variable: Any) -> tuple[Any, Any, int]:
    """(handle, context capsule, dtype number), which native code reads a variable with.

    Raises:
      SymbolicTensorError: as `variable_handle`.
    """
    from tensorflow.python.eager import context

    handle = variable_handle(variable)
    current = context.context()
    current.ensure_initialized()
    return handle, current._handle, variable.dtype.as_datatype_enum


def _is_keras(names: list[str], kind: str) -> bool:
    return any(
        name.endswith(kind) and name.split(".")[0] in ("keras", "tf_keras") for name in names
    )


_LOADER = "tensor_bridge.data.loader(dataset) iterates over its elements as torch tensors"
_TORCH_S = "iterate over it: its elements are torch's already"
_FROM_TORCH = "tensor_bridge.data.from_torch(data) makes a tf.data.Dataset of it"

# What to do with a class's objects, by the call and the class's full name.
_REMEDIES = {
    "to_torch": {
        "tensorflow.python.data.ops.dataset_ops.DatasetV2": _LOADER,
        "tensorflow.python.data.ops.iterator_ops.IteratorBase": _LOADER,
        TORCH_MODULE: "it is torch's already, nothing to convert",
        "torch.utils.data.dataset.Dataset": _TORCH_S,
        "torch.utils.data.dataloader.DataLoader": _TORCH_S,
        "tensor_bridge.data._loader.LoaderBase": _TORCH_S,
    },
    "to_tf": {
        TORCH_MODULE: (
            "convert its weights, module.state_dict(), or make it a TensorFlow function: "
            "tensor_bridge.autograd.torch_to_tf(module)"
        ),
        "torch.utils.data.dataset.Dataset": _FROM_TORCH,
        "torch.utils.data.dataloader.DataLoader": _FROM_TORCH,
        "tensor_bridge.data._loader.LoaderBase": "a tf.data.Dataset makes its elements: use that",
    },
}
_DLPACK = {
    "to_torch": "tensor_bridge.dlpack.from_dlpack(x)",
    "to_tf": "tensor_bridge.dlpack.from_dlpack(x, framework='tensorflow')",
}


def _remedy(value: Any, names: list[str], call: str) -> str | None:
    """What to do with a value that is neither converted nor taken apart; None if not known."""
    kind = type(value)
    known = _REMEDIES[call]
    for name in names:
        if name in known:
            return known[name]
    if value is None:
        return "leave it out; inside a list, tuple or dict None stays as it is"
    if hasattr(kind, "__dlpack__") and not names[0].startswith(("torch.", "tensorflow.")):
        return f"{_DLPACK[call]} takes its memory"
    if issubclass(kind, Mapping) and not issubclass(kind, (dict, UserDict)):
        return f"convert its dict: {call}(dict(x))"
    if issubclass(kind, Set):
        return f"convert a list, which has an order: {call}(list(x))"
    if issubclass(kind, Iterator):
        return f"convert what it yields: ({call}(x) for x in it)"
    return None


_OTHERS = ("builtins.", "jax", "keras.", "numpy.", "tensorflow.", "tf_keras.", "torch.")


def _registration(kind: str) -> str:
    """How to make the objects of a class convertible, if the caller may own the class."""
    if kind.startswith(_OTHERS) or kind.split(".")[0] in sys.stdlib_module_names:
        return ""
    return (
        ". If the class is your own, optree.register_pytree_node(cls, flatten, unflatten, "
        'namespace="tensor_bridge") makes it a structure of tensors, and '
        "tensor_bridge.register_composite a value with a counterpart in the other framework"
    )


def _not_loaded() -> str:
    if loaded_tensorflow() is not None:
        return ""
    return ". TensorFlow is not loaded in this process, so it cannot be a TensorFlow value"


def refusal_to_torch(value: Any) -> TensorBridgeError:
    """The exception that says why ``value`` is not converted to torch, and what to do."""
    names = class_names(value)
    kind = names[0].removeprefix("builtins.")
    got = with_article(kind)
    if any(name in names for name in _GRAPH_TENSOR):
        return SymbolicTensorError(
            f"expected an eager tf.Tensor, got a graph tensor ({kind}): inside a tf.function there "
            "is no value yet. Convert outside the tf.function, run it eagerly "
            "(tf.config.run_functions_eagerly(True)), or make the torch code a TensorFlow "
            "function: tensor_bridge.autograd.torch_to_tf, or tf.py_function if nothing is "
            "differentiated"
        )
    if _is_keras(names, "KerasTensor"):
        return SymbolicTensorError(
            f"expected an eager tf.Tensor, got a Keras symbolic tensor ({kind}), which describes "
            "an input and has no value. Call the model on data and convert its outputs"
        )
    if any(name == "torch.Tensor" or name == "torch._tensor.Tensor" for name in names):
        return UnsupportedTypeError(
            "expected a tf.Tensor or tf.Variable, got a torch.Tensor: nothing to convert"
        )
    if "numpy.ndarray" in names:
        return UnsupportedTypeError(
            "expected a tf.Tensor or tf.Variable, got a numpy.ndarray; use torch.from_numpy()"
        )
    if _is_keras(names, "Variable"):
        return UnsupportedTypeError(
            f"expected a tf.Tensor or tf.Variable, got a Keras variable ({kind}); convert its "
            "value: variable.value"
        )
    remedy = _remedy(value, names, "to_torch")
    if remedy is not None:
        return UnsupportedTypeError(
            f"expected a tf.Tensor or tf.Variable, got {got}; {remedy}{_not_loaded()}"
        )
    if _COMPOSITE in names or kind.startswith("tensorflow."):
        return UnsupportedTypeError(
            f"expected a tf.Tensor or tf.Variable, got {got}; convert the dense tensors "
            "inside it (components, value or values)"
        )
    return UnsupportedTypeError(
        f"expected a tf.Tensor or tf.Variable, got {got}; convert the tensors inside it one by "
        f"one, or make one of it first (tf.convert_to_tensor){_registration(names[0])}"
        f"{_not_loaded()}"
    )


def refusal_to_tf(value: Any) -> TensorBridgeError:
    """The exception that says why ``value`` is not converted to TensorFlow, and what to do."""
    names = class_names(value)
    kind = names[0].removeprefix("builtins.")
    got = with_article(kind)
    if any(name in names for name in _GRAPH_TENSOR) or kind.startswith("tensorflow."):
        return UnsupportedTypeError(
            f"expected a torch.Tensor, got {got}: it is TensorFlow's already, nothing to convert"
        )
    if "numpy.ndarray" in names:
        return UnsupportedTypeError(
            "expected a torch.Tensor, got a numpy.ndarray; use tf.convert_to_tensor()"
        )
    if UNINITIALIZED in names:
        return UnsupportedTypeError(
            f"expected a torch.Tensor with a value, got {got}: the lazy module that it belongs "
            "to has not seen an input yet. Call the module once, then convert"
        )
    remedy = _remedy(value, names, "to_tf") or (
        "convert the tensors inside it one by one, or make one of it first (torch.as_tensor)"
        + _registration(names[0])
    )
    return UnsupportedTypeError(f"expected a torch.Tensor, got {got}; {remedy}")
