"""A TensorFlow variable and the torch tensor that stands for it, kept equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _classify, _convert, composite
from tensor_bridge.errors import GradientError, UnsupportedTypeError

if TYPE_CHECKING:
    import torch

__all__ = ["Mirror", "resource"]


def resource(variable: Any) -> Any:
    """The tf.Variable that a variable is, or that a Keras variable holds.

    Raises:
      UnsupportedTypeError: it is neither, or has no value yet.
    """
    if _classify.is_resource_variable(variable):
        return variable
    # Keras 3, whose `value` may be cast by an autocast scope; mixed precision in tf_keras.
    for name in ("_value", "_variable"):
        inner = getattr(variable, name, None)
        if inner is not None and _classify.is_resource_variable(inner):
            return inner
    raise UnsupportedTypeError(
        "expected a tf.Variable or a Keras variable with a value, got a "
        f"{type(variable).__module__}.{type(variable).__qualname__}"
    )


def _version(x: torch.Tensor) -> int:
    return -1 if x.is_inference() else x._version


class Mirror:
    """A variable, and what is known of the torch tensor that has its value.

    Both show the same memory until one of them is written; neither write reaches the other side by
    itself. `push` gives the variable what torch has, `pull` the other way round.

    Attributes:
      variable: The tf.Variable.
      handle: What a tape watches and takes for a source.
      trainable: Whether `own` is a Parameter; a buffer else.
      own: The Parameter or buffer that stands for the variable. Calls may use other tensors
        (`torch.func.functional_call`).
    """

    __slots__ = ("_address", "_seen", "_seen_address", "_source", "_version", "handle", "own",
                 "trainable", "variable")  # fmt: skip

    def __init__(self, variable: Any, trainable: bool) -> None:
        import torch

        self.variable = resource(variable)
        self.trainable = trainable
        self._source = _classify.variable_source(self.variable)
        self.handle = self.variable.handle
        value = self._read()
        self.own: Any = value.detach()
        if trainable:
            differentiable = value.is_floating_point() or value.is_complex()
            self.own = torch.nn.Parameter(self.own, differentiable)
        self._sync(self.own)

    def _read(self) -> torch.Tensor:
        """The variable's value, over its memory; while it is held, an update moves the variable."""
        return _C.convert_variable(*self._source)

    def _sync(self, x: torch.Tensor, seen: torch.Tensor | None = None) -> None:
        # `_seen` keeps its buffer alive, so that no other value can have the same address; it has a
        # storage of its own, so that no write in torch changes it.
        self._seen = self._read() if seen is None else seen
        self._seen_address = _convert.torch_address(self._seen)
        self._address = _convert.torch_address(x)
        self._version = _version(x)

    def _is_unchanged(self, x: torch.Tensor) -> bool:
        return _convert.torch_address(x) == self._address and _version(x) == self._version

    def _changed_value(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The variable's value, read twice, if TensorFlow changed it since both were equal."""
        value = self._read()
        address = _convert.torch_address(value)
        if address == self._seen_address:
            return None
        again = self._read()
        if _convert.torch_address(again) == address:
            return value, again
        # Every read is a copy: tf.gather of a variable and scatter updates make it so, and move it.
        import tensorflow as tf
        import torch

        tf.raw_ops.DisableCopyOnRead(resource=self.handle)
        value = self._read()
        if not torch.equal(value, self._seen):
            return value, self._read()
        self._seen = value
        self._seen_address = _convert.torch_address(value)
        return None

    def push(self, x: torch.Tensor) -> None:
        """Gives the variable the value of ``x``, unless it has it: one assign, no copy.

        Raises:
          MismatchError: ``x`` has another shape or dtype.
          GradientError: both sides were changed since they were equal.
        """
        if self._is_unchanged(x):
            return
        if x is self.own and self._changed_value() is not None:
            raise GradientError(
                f"the variable {self.variable.name!r} was changed in TensorFlow and in torch since "
                "they were equal; choose one of the values before the next call: pull() takes "
                "TensorFlow's, push() takes torch's"
            )
        self.force(x)

    def force(self, x: torch.Tensor) -> None:
        """Gives the variable the value of ``x``, whatever it has."""
        composite.assign(self.variable, x.detach())
        self._sync(x)

    def pull(self, x: torch.Tensor, *, force: bool = False) -> bool:
        """Gives ``x`` the variable's value if TensorFlow, and nobody else, changed it.

        Args:
          x: The tensor that stands for the variable.
          force: Also if ``x`` was changed.

        Returns:
          Whether it did.
        """
        if not force and not self._is_unchanged(x):
            return False
        found = (self._read(), self._read()) if force else self._changed_value()
        if found is None:
            return False
        value, seen = found
        x.data = value.detach()
        self._sync(x, seen)
        return True
