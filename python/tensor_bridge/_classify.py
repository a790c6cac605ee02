"""What a value is, by the names of its classes: nothing here imports a framework."""

from __future__ import annotations

from typing import Any

from tensor_bridge._loaded import loaded_tensorflow
from tensor_bridge.errors import (
    SymbolicTensorError,
    TensorBridgeError,
    UnsupportedTypeError,
)

__all__ = [
    "RESOURCE_VARIABLE",
    "UNINITIALIZED",
    "class_names",
    "is_resource_variable",
    "is_tensorflow_value",
    "refusal",
    "refusal_back",
    "variable_handle",
    "variable_source",
]

_GRAPH_TENSOR = (
    "tensorflow.python.framework.tensor.Tensor",  # 2.14 and newer
    "tensorflow.python.framework.ops.Tensor",  # 2.12, 2.13
)
RESOURCE_VARIABLE = "tensorflow.python.ops.resource_variable_ops.BaseResourceVariable"
UNINITIALIZED = "torch.nn.parameter.UninitializedTensorMixin"
_COMPOSITE = "tensorflow.python.framework.composite_tensor.CompositeTensor"


def class_names(value: Any) -> list[str]:
    """Full names of the classes in the value's method resolution order."""
    return [f"{c.__module__}.{c.__qualname__}" for c in type(value).__mro__]


def is_resource_variable(value: Any) -> bool:
    """Whether the value is a TensorFlow 2 variable (not a Keras or distributed one)."""
    return RESOURCE_VARIABLE in class_names(value)


def is_tensorflow_value(value: Any) -> bool:
    """Whether the value is a tensor, symbolic ones included, or made of tensors."""
    names = class_names(value)
    return _COMPOSITE in names or any(name in names for name in _GRAPH_TENSOR)


def is_graph_tensor(value: Any) -> bool:
    """Whether the value is a tf.Tensor; of values that are no eager tensor, one of a graph."""
    names = class_names(value)
    return any(name in names for name in _GRAPH_TENSOR)


def is_keras_tensor(value: Any) -> bool:
    """Whether the value is a symbolic input or output of Keras's functional API."""
    return _is_keras(class_names(value), "KerasTensor")


def variable_handle(variable: Any) -> Any:
    """The handle with which operations reach a variable's value now.

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
    """(handle, context capsule, dtype number) with which a variable is read natively.

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


def refusal(value: Any) -> TensorBridgeError:
    """The exception that says why ``value`` is not converted to torch, and what to do."""
    names = class_names(value)
    kind = names[0].removeprefix("builtins.")
    if any(name in names for name in _GRAPH_TENSOR):
        return SymbolicTensorError(
            f"expected an eager tf.Tensor, got a graph tensor ({kind}): inside a tf.function there "
            "is no value yet. Convert outside the tf.function, run it eagerly "
            "(tf.config.run_functions_eagerly(True)), or make the torch code a function of "
            "TensorFlow's: tensor_bridge.autograd.torch_to_tf, or tf.py_function if nothing is "
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
    if _COMPOSITE in names or kind.startswith("tensorflow."):
        return UnsupportedTypeError(
            f"expected a tf.Tensor or tf.Variable, got a {kind}; convert the dense tensors that "
            "it is made of (its components, value or values)"
        )
    if loaded_tensorflow() is None:
        return UnsupportedTypeError(
            f"expected a tf.Tensor or tf.Variable, got a {kind}; TensorFlow is not loaded in this "
            "process, so it cannot be a TensorFlow value"
        )
    return UnsupportedTypeError(
        f"expected a tf.Tensor or tf.Variable, got a {kind}; convert the tensors inside it one by "
        "one, or make one of it first (tf.convert_to_tensor)"
    )


def refusal_back(value: Any) -> TensorBridgeError:
    """The exception that says why ``value`` is not converted to TensorFlow, and what to do."""
    names = class_names(value)
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if any(name in names for name in _GRAPH_TENSOR) or kind.startswith("tensorflow."):
        return UnsupportedTypeError(
            f"expected a torch.Tensor, got a {kind}: it is TensorFlow's already, nothing to convert"
        )
    if "numpy.ndarray" in names:
        return UnsupportedTypeError(
            "expected a torch.Tensor, got a numpy.ndarray; use tf.convert_to_tensor()"
        )
    if UNINITIALIZED in names:
        return UnsupportedTypeError(
            f"expected a torch.Tensor with a value, got a {kind}: the lazy module that it belongs "
            "to has not seen an input yet. Call the module once, then convert"
        )
    return UnsupportedTypeError(f"expected a torch.Tensor, got a {kind}")
