"""Variables: by value, a snapshot; or live, written through to the variable.

Also Keras variables, variables that a distribution strategy keeps in several places, and the way
back: `assign`.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _dense, _dtypes, _explanation, _refusals
from tensor_bridge.composite._registry import (
    TO_TF,
    TO_TORCH,
    Assembly,
    Composite,
    Conversion,
    Options,
    dense,
    for_tensorflow,
    for_tf_dtype,
    instead,
    of_parts,
    part,
    to_dense_torch,
)
from tensor_bridge.errors import (
    CopyRequiredError,
    InvalidOptionError,
    MismatchError,
    TensorFlowError,
    UnsupportedDtypeError,
    UnsupportedTypeError,
)

if TYPE_CHECKING:
    import torch

    from tensor_bridge._explanation import Explanation

__all__ = ["COMPOSITES", "LiveView", "assign", "assign_each"]


# ---- by value ------------------------------------------------------------------------------------

# By hand: the library reads a variable and converts what it read at once.


def _to_torch(variable: Any, options: Options) -> Any:
    if options.get("live"):
        return LiveView(variable, options)
    if for_tf_dtype(variable.dtype.name) is not None:
        return TO_TORCH.convert(_read(variable), **options)
    return _C.variable_to_torch(*_refusals.variable_source(variable), **dense(options))


def _explain(variable: Any, options: Options) -> Explanation:
    if options.get("live"):
        return _check_live(variable, options)
    if for_tf_dtype(variable.dtype.name) is not None:
        return TO_TORCH.explain(_read(variable), options)
    source = _refusals.variable_source(variable)
    return _explanation.from_native(_C.explain_variable(*source, **dense(options)))


# ---- live ----------------------------------------------------------------------------------------


def _check_live(variable: Any, options: Options) -> Explanation:
    """What a live view would be; raises what forbids one. The variable stays as it is."""
    if options.get("copy") is True:
        raise InvalidOptionError(
            "live=True shows the variable's memory, and copy=True asks for a copy; leave one out"
        )
    _refusals.require_copy_allowed(
        options.get("copy"),
        "live=True first gives the variable a buffer of its own, inside TensorFlow",
    )
    if options.get("on_write", "copy") == "raise":
        raise InvalidOptionError(
            'live=True writes through to the variable, and on_write="raise" forbids writes; leave '
            "one out"
        )
    source = _refusals.variable_source(variable)
    keywords = dense(options) | {"copy": None, "on_write": "copy"}
    found = _explanation.from_native(_C.explain_variable(*source, **keywords))
    if found.action == "refused":
        _C.variable_to_torch(*source, **keywords)  # raises it
    # A variable that TensorFlow copies at each read stops being one when it is given its buffer.
    if found.action == "copied" and "copied by TensorFlow" not in found.reason:
        raise CopyRequiredError(
            f"live=True needs memory that both frameworks can use, but {found.reason}. Leave "
            "live=True out, and use tensor_bridge.assign() to change the variable"
        )
    if not _has_deep_copy(variable.dtype):
        raise UnsupportedDtypeError(
            f"TensorFlow cannot copy a variable of dtype {variable.dtype.name} into a buffer of "
            "its own, which live=True needs. Leave live=True out, and use tensor_bridge.assign() "
            "to change the variable"
        )
    return replace(
        found,
        action="shared",
        on_write="alias",
        reason="the variable moves to a buffer of its own, which torch shows until TensorFlow's "
        "next update; writes go through",
    )


def _read(variable: Any) -> Any:
    """An eager tensor over the variable's present buffer."""
    import tensorflow as tf

    handle, _, _ = _refusals.variable_source(variable)
    return tf.raw_ops.ReadVariableOp(resource=handle, dtype=variable.dtype)


@cache
def _has_deep_copy(dtype: Any) -> bool:
    """Whether `_move_to_private_buffer` works for the dtype: not for float8, int4 and their kin."""
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2

    if dtype.is_quantized:
        return True
    empty = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    empty.tensor_shape.dim.add(size=0)
    with tf.device("CPU:0"):
        try:
            tf.raw_ops.DeepCopy(x=tf.io.parse_tensor(empty.SerializeToString(), dtype))
        except tf.errors.OpError:
            return False
    return True


def _move_to_private_buffer(variable: Any) -> Any:
    """Gives the variable a buffer that nothing else shows; returns an eager tensor over it."""
    import tensorflow as tf

    handle, _, _ = _refusals.variable_source(variable)
    with tf.device(handle.device):
        # A scatter update leaves the variable in a mode in which every read is a copy, so that
        # nothing could show its memory. The next scatter moves it away and turns the mode on again.
        tf.raw_ops.DisableCopyOnRead(resource=handle)
        value = _read(variable)
        # DeepCopy has no kernel for quantized dtypes; a bitcast shows the same buffer.
        plain = tf.bitcast(value, tf.uint8) if variable.dtype.is_quantized else value
        fresh = tf.raw_ops.DeepCopy(x=plain)
        if variable.dtype.is_quantized:
            fresh = tf.bitcast(fresh, variable.dtype)
        tf.raw_ops.AssignVariableOp(resource=handle, value=fresh)
        del value, plain, fresh
        return _read(variable)


_views: weakref.WeakSet[LiveView] = weakref.WeakSet()
_views_lock = threading.Lock()
# A child of fork() would find it locked for good by a thread that it does not have.
os.register_at_fork(
    before=_views_lock.acquire,
    after_in_parent=_views_lock.release,
    after_in_child=_views_lock.release,
)


class LiveView:
    """A torch tensor that shows a TensorFlow variable: writes go through, both ways.

    Made by ``to_torch(variable, live=True)``. TensorFlow first moves the variable to a buffer that
    nothing else shows (its buffer may be that of its initial value, or of another variable), so an
    earlier view of the same variable ends.

    The view ends at TensorFlow's next update of the variable (assign, an optimizer's step, a
    restored checkpoint): TensorFlow never updates a buffer that something else shows, it moves the
    variable to another one. `tensor` then keeps the last values, and writes to it reach nobody.

    Values that TensorFlow reads from the variable after the call (``variable.read_value()``, what a
    tf.function returns, what a tape keeps) may be the same memory, so they change with it. Writes
    are not synchronised with operations that TensorFlow runs at the same time.

    Attributes:
      variable: The variable.
    """

    __slots__ = ("__weakref__", "_options", "_tensor", "variable")

    def __init__(self, variable: Any, options: Options) -> None:
        self.variable = variable
        self._options = dict(options)
        self._tensor = self._make()
        with _views_lock:
            _views.add(self)

    def _make(self) -> torch.Tensor:
        _check_live(self.variable, self._options)
        value = _move_to_private_buffer(self.variable)
        options = self._options | {"copy": False, "on_write": "alias"}
        tensor: torch.Tensor = to_dense_torch(value, options)
        return tensor

    @property
    def tensor(self) -> torch.Tensor:
        """The torch tensor. In-place writes are writes to the variable while the view is valid."""
        return self._tensor

    @property
    def valid(self) -> bool:
        """Whether `tensor` still shows the variable's memory.

        Compares addresses. The tensor keeps its buffer alive, so an address is never used twice.
        """
        import tensorflow as tf

        try:
            value = _read(self.variable)
        except tf.errors.OpError:  # the variable was deleted
            tf.raw_ops.NoOp()  # keeps the error from later ones (adapters/tensorflow/run_op.cc)
            return False
        if tuple(value.shape) != tuple(self._tensor.shape):
            return False
        return self._tensor.numel() == 0 or _C.tf_address(value) == _dense.torch_address(
            self._tensor
        )

    def refresh(self) -> torch.Tensor:
        """Makes the view valid again, over the variable's present value, and returns `tensor`.

        A view that is valid stays as it is. Otherwise `tensor` is a new tensor; one that was taken
        before keeps the old values.
        """
        if not self.valid:
            self._tensor = self._make()
        return self._tensor

    def __repr__(self) -> str:
        name = getattr(self.variable, "name", "?")
        return f"LiveView({name!r}, shape={tuple(self._tensor.shape)}, dtype={self._tensor.dtype})"


def _shows_a_view(x: torch.Tensor) -> bool:
    """Whether writes to `x` go through to a variable, because it is (part of) a live view."""
    if not _views:
        return False
    with _views_lock:
        views = list(_views)
    try:
        address = _dense.torch_address(x)
    except RuntimeError:  # no memory of its own: sparse, meta, wrapped
        return False
    for view in views:
        first = _dense.torch_address(view.tensor)
        if first <= address < first + max(1, view.tensor.nbytes):
            return True
    return False


def _viewed(view: LiveView, options: Options) -> tuple[Any, Options]:
    _refusals.require_copy_allowed(
        options.get("copy"),
        "the memory of a live view changes with the variable",
        "Use copy=None, or the variable itself: view.variable",
    )
    return view.tensor, {**options, "copy": True}


# ---- Keras ---------------------------------------------------------------------------------------


def _keras_value(variable: Any) -> Any:
    if getattr(variable, "_value", variable) is None:
        raise UnsupportedTypeError(
            "expected a Keras variable with a value, got one that is not initialised yet; build "
            "the layer or model first"
        )
    value = variable.value
    if for_tensorflow(value) is None and not _C.is_eager_tensor(value):
        names = _refusals.class_names(value)
        if any(name.startswith("tensorflow.") for name in names):
            raise _refusals.refusal_to_torch(value)
        raise UnsupportedTypeError(
            f"expected a Keras variable of the TensorFlow backend, got one that holds a {names[0]}"
            "; with another backend there is nothing of TensorFlow's to convert: use variable.value"
        )
    return value


def _keras_source(variable: Any, options: Options) -> tuple[Any, Options]:
    value = _keras_value(variable)
    if options.get("live") and _C.is_eager_tensor(value):
        raise InvalidOptionError(
            "live=True needs a variable, but inside an autocast or stateless scope a Keras "
            "variable gives a tensor; convert it outside"
        )
    return value, options


# ---- distributed ---------------------------------------------------------------------------------


def _local_parts(variable: Any) -> tuple[Any, ...]:
    # MirroredVariable and its like, PerReplica: one for each replica. ShardedVariable: the shards.
    parts: Iterable[Any] = variable.values if hasattr(variable, "values") else variable.variables
    return tuple(parts)


def _local_to_torch(kind: str) -> Conversion:
    def take_apart(variable: Any, options: Options) -> Assembly:
        parts = [(f"[{i}]", value, options, None) for i, value in enumerate(_local_parts(variable))]
        return kind, parts, tuple

    return of_parts(TO_TORCH, take_apart)


def _inner(variable: Any) -> Any:
    """The variable inside one that a parameter server strategy or mixed precision wraps."""
    # Mixed precision forwards every other attribute, get() too.
    inner = getattr(variable, "_variable", None)
    return variable.get() if inner is None else inner


# ---- assign --------------------------------------------------------------------------------------


def assign(target: Any, source: Any, *, copy: bool | None = None) -> None:
    """Assigns torch values to a TensorFlow variable, without a copy where memory can be shared.

    The variable takes over the bytes as they are now: the next in-place write on the torch side
    moves torch onto memory of its own, and TensorFlow's next update moves the variable. What
    `convert_pytorch_to_tf` would copy is copied once.

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
    """The variables of TensorFlow's own that `target` stands for; each gets the value."""
    found = for_tensorflow(target)
    name = None if found is None else found.name
    if name == "variable":
        return [target]
    if name == "keras variable":
        return _variables(_keras_value(target))
    if name == "wrapped variable":
        return _variables(_inner(target))
    if name == "distributed variable":
        return [v for value in _local_parts(target) for v in _variables(value)]
    if name == "sharded variable":
        raise UnsupportedTypeError(
            "expected one variable, got a sharded one; assign to its parts one by one: "
            "for shard, x in zip(variable.variables, tensors)"
        )
    kind = _refusals.class_name(target)
    raise UnsupportedTypeError(
        f"expected a tf.Variable, a Keras variable or a Keras layer to assign to, got a {kind}"
    )


def _plan_assign(target: Any, x: Any, copy: bool | None) -> tuple[list[Any], Any]:
    """The variables to assign to, and the value as a TensorFlow tensor; assigns nothing."""
    if isinstance(x, LiveView):
        x = x.tensor
    if not _C.is_torch_tensor(x):
        kind = _refusals.class_name(x)
        raise UnsupportedTypeError(f"expected a torch.Tensor to assign, got a {kind}")
    variables = _variables(target)
    for variable in variables:
        _refusals.variable_handle(variable)  # raises inside a graph
        if not variable.shape.is_compatible_with(tuple(x.shape)):
            raise MismatchError(
                f"expected shape {tuple(variable.shape)}, the variable's, got {tuple(x.shape)}"
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
    if copy is None and _shows_a_view(x):
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


_VALUES = "tensorflow.python.distribute.values."

COMPOSITES = (
    Composite(
        name="variable",
        tf_keys=(_refusals.RESOURCE_VARIABLE,),
        to_torch=Conversion(_to_torch, _explain),
    ),
    Composite(
        name="live view",
        torch_keys=("tensor_bridge.composite.variable.LiveView",),
        to_tf=instead(TO_TF, _viewed),
    ),
    Composite(
        name="keras variable",
        tf_keys=(
            "keras.src.backend.common.variables.Variable",
            "keras.src.backend.common.variables.KerasVariable",  # Keras 3.0 to 3.6
        ),
        to_torch=instead(TO_TORCH, _keras_source),
    ),
    Composite(
        name="distributed variable",
        tf_keys=(_VALUES + "DistributedVariable",),
        to_torch=_local_to_torch("distributed variable"),
    ),
    Composite(
        name="per replica",
        tf_keys=(_VALUES + "PerReplica", _VALUES + "Mirrored"),
        to_torch=_local_to_torch("per replica"),
    ),
    Composite(
        name="sharded variable",
        tf_keys=("tensorflow.python.distribute.sharded_variable.ShardedVariable",),
        to_torch=_local_to_torch("sharded variable"),
    ),
    Composite(
        name="wrapped variable",
        tf_keys=(
            # Keras 2, by its three homes.
            "keras.mixed_precision.autocast_variable.AutoCastVariable",
            "keras.src.mixed_precision.autocast_variable.AutoCastVariable",
            "tf_keras.src.mixed_precision.autocast_variable.AutoCastVariable",
            "tensorflow.python.distribute.ps_values.AggregatingVariable",
            "tensorflow.python.distribute.ps_values.CachingVariable",
        ),
        to_torch=instead(TO_TORCH, lambda variable, options: (_inner(variable), options)),
    ),
)
