"""`assign`: torch values become those of variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tensor_bridge import _C, _dtypes, _refusals
from tensor_bridge._options import checks_keywords
from tensor_bridge.composite._registry import for_tensorflow, part
from tensor_bridge.composite.live_view import LiveView, shows_a_view
from tensor_bridge.composite.variable import inner, keras_value, local_parts
from tensor_bridge.errors import MismatchError, TensorFlowError, UnsupportedTypeError


@checks_keywords
def assign(target: Any, source: Any, *, copy: bool | None = None) -> None:
    """Assigns torch values to a TensorFlow variable, without a copy where memory can be shared.

    The variable and the tensor share memory until one of them is written: the next in-place write
    in torch moves the torch tensor onto memory of its own, and TensorFlow's next update moves the
    variable. A tensor that `convert_pytorch_to_tf` would copy is copied once.

    Args:
      target: A tf.Variable, a Keras variable, a variable mirrored by a distribution strategy (every
        replica gets the value), or a Keras layer or model.
      source: A torch tensor of the variable's shape and dtype; for a layer or a model a mapping
        from the paths of its weights to such tensors, as `convert_tf_to_pytorch` gives it. Nothing
        is assigned unless everything fits.
      copy: None shares if possible and copies otherwise; False never copies; True always does.

    Raises:
      MismatchError: A shape, a dtype or the names differ from the target's.
      UnsupportedTypeError: The target is no variable, or the source no torch tensor.
      CopyRequiredError: copy=False, and sharing is not possible.
      SymbolicTensorError: A graph is being built.

    Example:
      >>> import tensorflow as tf, torch, tensor_bridge
      >>> v = tf.Variable([1.0, 2.0])
      >>> tensor_bridge.assign(v, torch.tensor([3.0, 4.0]))
      >>> v.numpy().tolist()
      [3.0, 4.0]
    """
    from tensor_bridge._frameworks import ensure_tensorflow

    if isinstance(source, Mapping):
        from tensor_bridge.composite import keras

        pairs = keras.pairs(target, source)
    else:
        pairs = [("", target, source)]
    ensure_tensorflow()
    assign_each(pairs, copy)


def assign_each(pairs: Iterable[tuple[str, Any, Any]], copy: bool | None = None) -> list[Any]:
    """`assign` for each (name, target, source), or for none of them; the name is for errors.

    Returns:
      The TensorFlow tensor that each target was given.
    """
    planned = []
    for name, variable, x in pairs:
        if name:
            with part(name):
                planned.append(_plan_assign(variable, x, copy))
        else:
            planned.append(_plan_assign(variable, x, copy))
    for variables, value in planned:
        _assign(variables, value)
    return [value for _, value in planned]


def _variables(target: Any) -> list[Any]:
    """The TensorFlow variables that `target` stands for; each gets the value."""
    found = for_tensorflow(target)
    name = None if found is None else found.name
    if name == "variable":
        return [target]
    if name == "keras variable":
        return _variables(keras_value(target))
    if name == "wrapped variable":
        return _variables(inner(target))
    if name == "distributed variable":
        return [v for value in local_parts(target) for v in _variables(value)]
    if name == "sharded variable":
        raise UnsupportedTypeError(
            "expected one variable, got a sharded one; assign to its parts one by one: "
            "for shard, x in zip(variable.variables, tensors)"
        )
    kind = _refusals.a_class(target)
    raise UnsupportedTypeError(
        f"expected a tf.Variable, a Keras variable or a Keras layer to assign to, got {kind}"
    )


def _plan_assign(target: Any, x: Any, copy: bool | None) -> tuple[list[Any], Any]:
    """The variables to assign to, and the value as a TensorFlow tensor; assigns nothing."""
    if isinstance(x, LiveView):
        x = x.tensor
    if not _C.is_torch_tensor(x):
        kind = _refusals.a_class(x)
        raise UnsupportedTypeError(f"expected a torch.Tensor to assign, got {kind}")
    variables = _variables(target)
    for variable in variables:
        _refusals.variable_handle(variable)  # raises inside a graph
        if not variable.shape.is_compatible_with(tuple(x.shape)):
            raise MismatchError(
                f"expected shape {tuple(variable.shape)}, the variable's, got {tuple(x.shape)}; "
                "give x.reshape(), x.expand() or a part of x that has it"
            )
    variable = variables[0]
    options: dict[str, Any] = {"copy": copy}
    row = _dtypes.row_of(variable.dtype.name)
    if row is not None and row.kind in ("viewed", "converted", "quantized"):
        options["dtype"] = variable.dtype  # torch lacks it
    elif row is None or str(x.dtype) != row.torch_name:
        advice = f"; cast it first: x.to({row.torch_name})" if row and row.torch_name else ""
        raise MismatchError(
            f"expected a tensor for dtype {variable.dtype.name}, the variable's, got "
            f"{x.dtype}{advice}"
        )
    if copy is None and shows_a_view(x):
        # Nothing keeps the bytes of a live view: writes to it would reach this variable too.
        options["copy"] = True
    return variables, _C.tensor_to_tf(x, **options)


def _assign(variables: list[Any], value: Any) -> None:
    import tensorflow as tf
    from tensorflow.python.eager import context  # private; TensorFlow 2.12 to 2.21

    assign = tf.raw_ops.AssignVariableOp
    for variable in variables:
        handle = variable.handle
        device = handle.device
        try:
            if device == value.device and not context.context().device_name:
                assign(resource=handle, value=value)  # 4 us less than inside a scope
            else:
                with tf.device(device):
                    assign(resource=handle, value=value)
        except tf.errors.OpError as e:
            raise TensorFlowError(f"could not assign to {variable.name!r}: {e}") from e
