"""Live views: torch tensors over a TensorFlow variable's memory; writes reach the variable."""

from __future__ import annotations

import os
import threading
import weakref
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _dense, _explanation, _refusals
from tensor_bridge.composite._registry import (
    TO_TF,
    Composite,
    Options,
    dense,
    instead,
    to_dense_torch,
)
from tensor_bridge.errors import CopyRequiredError, InvalidOptionError, UnsupportedDtypeError

if TYPE_CHECKING:
    import torch

    from tensor_bridge._explanation import Explanation

__all__ = ["COMPOSITES", "LiveView", "check_live", "read_value", "shows_a_view"]


def check_live(variable: Any, options: Options) -> Explanation:
    """The explanation of a live view; raises if it is impossible. Does not change the variable."""
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
    found = _explanation.from_native(_C.explain_variable(*source, **keywords), "to_torch")
    if found.action == "refused":
        _C.variable_to_torch(*source, **keywords)  # raises it
    # If TensorFlow copies the variable at each read, giving it its own buffer ends that.
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


def read_value(variable: Any) -> Any:
    """An eager tensor over the variable's current buffer."""
    import tensorflow as tf

    handle, _, _ = _refusals.variable_source(variable)
    return tf.raw_ops.ReadVariableOp(resource=handle, dtype=variable.dtype)


@cache
def _has_deep_copy(dtype: Any) -> bool:
    """Whether `_move_to_private_buffer` works for the dtype; float8, int4 and the like fail."""
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
    """Gives the variable a buffer that nothing else uses; returns an eager tensor over it."""
    import tensorflow as tf

    handle, _, _ = _refusals.variable_source(variable)
    with tf.device(handle.device):
        # After a scatter update every read of the variable is a copy, so nothing could share its
        # memory. The next scatter update moves the variable and turns that mode on again.
        tf.raw_ops.DisableCopyOnRead(resource=handle)
        value = read_value(variable)
        # DeepCopy has no kernel for quantized dtypes; a bitcast shows the same buffer.
        plain = tf.bitcast(value, tf.uint8) if variable.dtype.is_quantized else value
        fresh = tf.raw_ops.DeepCopy(x=plain)
        if variable.dtype.is_quantized:
            fresh = tf.bitcast(fresh, variable.dtype)
        tf.raw_ops.AssignVariableOp(resource=handle, value=fresh)
        del value, plain, fresh
        return read_value(variable)


_views: weakref.WeakSet[LiveView] = weakref.WeakSet()
_views_lock = threading.Lock()
# The lock is held during fork(), so that no other thread holds it in the child for good.
os.register_at_fork(
    before=_views_lock.acquire,
    after_in_parent=_views_lock.release,
    after_in_child=_views_lock.release,
)


class LiveView:
    """A torch tensor over a TensorFlow variable's memory: each side sees the other's writes.

    Made by ``to_torch(variable, live=True)``. TensorFlow first moves the variable to a buffer that
    nothing else uses (the old buffer may also belong to its initial value, or to another variable),
    so an earlier view of the same variable ends.

    The view ends at TensorFlow's next update of the variable (assign, an optimizer's step, a
    restored checkpoint): TensorFlow never updates a buffer that something else uses, but moves the
    variable to a new one. `tensor` then keeps the last values, and writes to it reach nothing else.

    Values that TensorFlow reads from the variable after the call (``variable.read_value()``,
    results of a tf.function, values kept by a tape) may share this memory and change with it.
    Writes are not synchronised with operations that TensorFlow runs at the same time.

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
        check_live(self.variable, self._options)
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
        """Whether `tensor` still shares the variable's memory.

        Compares addresses. The tensor keeps its buffer alive, so its address is not reused.
        """
        import tensorflow as tf

        try:
            value = read_value(self.variable)
        except tf.errors.OpError:  # the variable was deleted
            tf.raw_ops.NoOp()  # keeps the error from later ones (adapters/tensorflow/run_op.cc)
            return False
        if tuple(value.shape) != tuple(self._tensor.shape):
            return False
        return self._tensor.numel() == 0 or _C.tf_address(value) == _dense.torch_address(
            self._tensor
        )

    def refresh(self) -> torch.Tensor:
        """Makes the view valid again, over the variable's current value, and returns `tensor`.

        A valid view is unchanged. Otherwise `tensor` is a new tensor; the former tensor keeps the
        old values.
        """
        if not self.valid:
            self._tensor = self._make()
        return self._tensor

    def __repr__(self) -> str:
        name = getattr(self.variable, "name", "?")
        return f"LiveView({name!r}, shape={tuple(self._tensor.shape)}, dtype={self._tensor.dtype})"


def shows_a_view(x: torch.Tensor) -> bool:
    """Whether `x` is a live view or part of one, so that writes to it reach a variable."""
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


COMPOSITES = (
    Composite(
        name="live view",
        torch_keys=("tensor_bridge.composite.live_view.LiveView",),
        to_tf=instead(TO_TF, _viewed),
    ),
)
