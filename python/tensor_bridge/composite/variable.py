"""Variables: TensorFlow's own, Keras', and those of a distribution strategy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _explanation, _refusals
from tensor_bridge.composite._registry import (
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
)
from tensor_bridge.composite.live_view import LiveView, check_live, read_value
from tensor_bridge.errors import (
    InvalidOptionError,
    UnsupportedTypeError,
)

if TYPE_CHECKING:
    from tensor_bridge._explanation import Explanation

__all__ = ["COMPOSITES", "inner", "keras_value", "local_parts"]


# ---- by value ------------------------------------------------------------------------------------

# By hand: the library reads a variable and converts its value in one call.


def _to_torch(variable: Any, options: Options) -> Any:
    if options.get("live"):
        return LiveView(variable, options)
    if for_tf_dtype(variable.dtype.name) is not None:
        return TO_TORCH.convert(read_value(variable), **options)
    return _C.variable_to_torch(*_refusals.variable_source(variable), **dense(options))


def _explain(variable: Any, options: Options) -> Explanation:
    if options.get("live"):
        return check_live(variable, options)
    if for_tf_dtype(variable.dtype.name) is not None:
        return TO_TORCH.explain(read_value(variable), options)
    source = _refusals.variable_source(variable)
    return _explanation.from_native(_C.explain_variable(*source, **dense(options)), "to_torch")


# ---- Keras ---------------------------------------------------------------------------------------


def keras_value(variable: Any) -> Any:
    """The TensorFlow value that a Keras variable holds.

    Raises:
      UnsupportedTypeError: it has no value yet, or one of another backend.
    """
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
            "; with another backend there is no TensorFlow value to convert: use variable.value"
        )
    return value


def _keras_source(variable: Any, options: Options) -> tuple[Any, Options]:
    value = keras_value(variable)
    if options.get("live") and _C.is_eager_tensor(value):
        raise InvalidOptionError(
            "live=True needs a variable, but inside an autocast or stateless scope a Keras "
            "variable gives a tensor; convert it outside"
        )
    return value, options


# ---- distributed ---------------------------------------------------------------------------------


def local_parts(variable: Any) -> tuple[Any, ...]:
    """The variables of a distributed one."""
    # One for each replica (MirroredVariable, PerReplica and the like), or the shards of a
    # ShardedVariable.
    parts: Iterable[Any] = variable.values if hasattr(variable, "values") else variable.variables
    return tuple(parts)


def _local_to_torch(kind: str) -> Conversion:
    def take_apart(variable: Any, options: Options) -> Assembly:
        parts = [(f"[{i}]", value, options, None) for i, value in enumerate(local_parts(variable))]
        return kind, parts, tuple

    return of_parts(TO_TORCH, take_apart)


def inner(variable: Any) -> Any:
    """The variable that a parameter server strategy or mixed precision wraps."""
    # Mixed precision forwards every other attribute, get() too.
    inner = getattr(variable, "_variable", None)
    return variable.get() if inner is None else inner


_VALUES = "tensorflow.python.distribute.values."

COMPOSITES = (
    Composite(
        name="variable",
        tf_keys=(_refusals.RESOURCE_VARIABLE,),
        to_torch=Conversion(_to_torch, _explain),
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
            # Keras 2, in its three packages.
            "keras.mixed_precision.autocast_variable.AutoCastVariable",
            "keras.src.mixed_precision.autocast_variable.AutoCastVariable",
            "tf_keras.src.mixed_precision.autocast_variable.AutoCastVariable",
            "tensorflow.python.distribute.ps_values.AggregatingVariable",
            "tensorflow.python.distribute.ps_values.CachingVariable",
        ),
        to_torch=instead(TO_TORCH, lambda variable, options: (inner(variable), options)),
    ),
)
