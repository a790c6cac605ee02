"""A TensorFlow variable and the torch tensor that stands for it, kept equal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _dense, _refusals
from tensor_bridge.composite import _assign
from tensor_bridge.errors import GradientError, UnsupportedTypeError

if TYPE_CHECKING:
    import torch


def resource(variable: Any) -> Any:
    """The tf.Variable that a variable is, or that a Keras variable holds.

    Raises:
      UnsupportedTypeError: it is neither, or has no value yet.
    """
    if _refusals.is_resource_variable(variable):
        return variable
    # Keras 3, whose `value` may be cast by an autocast scope; mixed precision in tf_keras.
    for name in ("_value", "_variable"):
        inner = getattr(variable, name, None)
        if inner is not None and _refusals.is_resource_variable(inner):
            return inner
    raise UnsupportedTypeError(
        "expected a tf.Variable or a Keras variable with a value, got a "
        f"{_refusals.class_name(variable)}"
    )


def _version(x: torch.Tensor) -> int:
    return -1 if x.is_inference() else x._version


def _bits(x: torch.Tensor) -> torch.Tensor:
    """The elements as integers: NaN is equal to itself, and 0.0 is not -0.0."""
    import torch

    sizes = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    x = torch.view_as_real(x.detach().resolve_conj()) if x.is_complex() else x.detach()
    return x.reshape(-1).view(sizes[x.element_size()])


def _have_same_bits(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[bool]:
    """Which pairs have the same elements. It waits for a GPU once, not once for each pair."""
    import torch

    found: list[Any] = []
    with torch.no_grad():
        for x, y in pairs:
            if x.shape != y.shape or x.dtype != y.dtype:
                found.append(False)
            elif x.is_cuda and y.is_cuda:
                found.append((_bits(x) == _bits(y.to(x.device))).all())
            else:
                found.append(torch.equal(_bits(x.cpu()), _bits(y.cpu())))
        on_gpu = [same for same in found if not isinstance(same, bool)]
        if not on_gpu:
            return found
        answers = iter(torch.stack([same.to(on_gpu[0].device) for same in on_gpu]).tolist())
    return [same if isinstance(same, bool) else next(answers) for same in found]


class Mirror:
    """A variable, and what is known about the torch tensor that has its value.

    Both share memory until one of them is written; a write does not reach the other by itself.
    `push_all` gives variables the values of their tensors, `pull_all` gives tensors the values of
    their variables.

    Attributes:
      variable: The tf.Variable.
      handle: What a tape watches and takes for a source.
      trainable: Whether `own` is a Parameter; otherwise it is a buffer.
      own: The Parameter or buffer that stands for the variable. Calls may use other tensors
        (`torch.func.functional_call`).
    """

    __slots__ = ("_address", "_device", "_seen", "_seen_address", "_source", "_version", "handle",
                 "own", "trainable", "variable")  # fmt: skip

    def __init__(self, variable: Any, trainable: bool) -> None:
        import torch

        self.variable = resource(variable)
        self.trainable = trainable
        self._source = _refusals.variable_source(self.variable)
        self.handle = self.variable.handle
        self._device = self.handle.device
        value = self._read()
        self.own: Any = value.detach()
        if trainable:
            differentiable = value.is_floating_point() or value.is_complex()
            self.own = torch.nn.Parameter(self.own, differentiable)
        self._sync(self.own)

    def _read(self) -> torch.Tensor:
        """The variable's value, in its memory; while it is held, an update moves the variable."""
        return _C.variable_to_torch(*self._source)

    def _sync(self, x: torch.Tensor, seen: torch.Tensor | None = None) -> None:
        # `_seen` keeps the buffer alive, so that no other value can have the same address; it has a
        # storage of its own, so that no write in torch changes it.
        self._seen = self._read() if seen is None else seen
        self._seen_address = _dense.torch_address(self._seen)
        self._address = _dense.torch_address(x)
        self._version = _version(x)

    def _is_known_changed(self, x: torch.Tensor) -> bool:
        return _dense.torch_address(x) != self._address or _version(x) != self._version

    def _moves_when_written(self) -> bool:
        """Whether the tensor shares the variable's memory, so that every write moves it.

        Otherwise the memory is torch's own and the variable has a copy (on a GPU, before torch
        2.13, or of a strided tensor). It is then written in place, and writes by fused optimizers,
        through `x.data` or through arrays over it do not raise the version.
        """
        return bool(self._address == self._seen_address)

    def _changed_value(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The variable's value, read twice, if TensorFlow changed it since both were equal."""
        value = self._read()
        address = _dense.torch_address(value)
        if address == self._seen_address:
            return None
        again = self._read()
        if _dense.torch_address(again) == address:
            return value, again
        # After tf.gather of a variable, or a scatter update, every read is a copy.
        import tensorflow as tf

        tf.raw_ops.DisableCopyOnRead(resource=self.handle)
        value = self._read()
        if not all(_have_same_bits([(value, self._seen)])):
            return value, self._read()
        self._seen = value
        self._seen_address = _dense.torch_address(value)
        return None

    def force(self, x: torch.Tensor) -> None:
        """Gives the variable the value of ``x``, whatever it has."""
        _assign.assign_each([("", self.variable, x.detach())])
        self._sync(x)

    def pull(self, x: torch.Tensor, *, force: bool = False) -> bool:
        """Gives ``x`` the variable's value if TensorFlow changed it and torch did not.

        Args:
          x: The tensor that stands for the variable.
          force: Whether to do it even if ``x`` was changed.

        Returns:
          Whether ``x`` got the value.
        """
        if not force and not _unchanged([(self, x)]):
            return False
        found = (self._read(), self._read()) if force else self._changed_value()
        if found is None:
            return False
        value, seen = found
        x.data = value.detach()
        self._sync(x, seen)
        return True


@cache
def _executor() -> tuple[Any, Any, type[Exception]]:
    """The function that runs an operation without tape and device scope; the context; the error."""
    # Private; TensorFlow 2.12 to 2.21.
    from tensorflow.python import pywrap_tfe
    from tensorflow.python.eager import context, core

    return pywrap_tfe.TFE_Py_Execute, context.context()._handle, core._NotOkStatusException


def _values(mirrors: Sequence[Mirror]) -> list[Any] | None:
    """The variables' values as TensorFlow tensors; None if they can be read only one by one.

    TensorFlow's own operation for many variables (what Grappler makes of ReadVariableOp) takes
    1.0 us for each of 200, one ReadVariableOp 3.6 us.
    """
    device = mirrors[0]._device
    for mirror in mirrors:
        if mirror._device != device:
            return None
    execute, context, error = _executor()
    count = len(mirrors)
    dtypes = [mirror._source[2] for mirror in mirrors]
    handles = [mirror.handle for mirror in mirrors]
    attributes = ("N", count, "dtypes", dtypes)
    try:
        found: list[Any] = execute(context, device, "_ReadVariablesOp", handles, attributes, count)
    except error:  # for example a deleted variable: reading one by one tells which
        return None
    return found


Pairs = Sequence[tuple[Mirror, "torch.Tensor"]]
"""Mirrors, each with the tensor that stands for its variable."""


def _unchanged(pairs: Pairs) -> Pairs:
    """The pairs whose tensor was not written since both sides were equal."""
    kept = [(m, x) for m, x in pairs if not m._is_known_changed(x)]
    unsure = [(x, m._seen) for m, x in kept if not m._moves_when_written()]
    if not unsure:
        return kept
    answers = iter(_have_same_bits(unsure))
    return [(m, x) for m, x in kept if m._moves_when_written() or next(answers)]


def _moved(pairs: Pairs) -> list[tuple[Mirror, torch.Tensor, Any]]:
    """Mirrors whose variable may have changed since the last sync, each with its current value.

    The value is None if variables can be read only one by one.
    """
    values = _values([mirror for mirror, _ in pairs]) if pairs else []
    if values is None:
        return [(mirror, x, None) for mirror, x in pairs]
    address = _C.tf_address
    return [
        (mirror, x, value)
        for (mirror, x), value in zip(pairs, values, strict=True)
        if address(value) != mirror._seen_address
    ]


def pull_all(pairs: Pairs) -> None:
    """`Mirror.pull` for many mirrors at once."""
    moved = _moved(_unchanged(pairs))
    if not moved:
        return
    again = _values([mirror for mirror, _, _ in moved]) or [None] * len(moved)
    convert, address = _C.convert_tf_to_pytorch, _C.tf_address
    for (mirror, x, value), repeated in zip(moved, again, strict=True):
        if value is None or repeated is None or address(value) != address(repeated):
            mirror.pull(x)  # a read may be a copy; then pull() compares the values
            continue
        seen = convert(value)
        if _dense.torch_address(seen) != mirror._seen_address:
            x.data = convert(value)
            mirror._sync(x, seen)


def push_all(pairs: Pairs) -> None:
    """Gives variables the values of their tensors, if they differ: one assign each, no copy.

    Nothing is assigned unless everything can be assigned.

    Raises:
      MismatchError: a tensor has another shape or dtype than its variable.
      GradientError: both sides of a variable were changed since they were equal.
    """
    unchanged = {(id(m), id(x)) for m, x in _unchanged(pairs)}
    pairs = [(m, x) for m, x in pairs if (id(m), id(x)) not in unchanged]
    if not pairs:
        return
    once = set()
    for mirror, _ in pairs:
        # A variable that is given twice can take only one of two values.
        if id(mirror.variable) in once:
            raise _conflict(mirror)
        once.add(id(mirror.variable))
    for mirror, _, _ in _moved([(m, x) for m, x in pairs if x is m.own]):
        if mirror._changed_value() is not None:
            raise _conflict(mirror)
    given = _assign.assign_each([("", mirror.variable, x.detach()) for mirror, x in pairs])
    for (mirror, x), value in zip(pairs, given, strict=True):
        # A variable on another device than the value has a copy of it.
        here = value.device == mirror._device
        mirror._sync(x, _C.convert_tf_to_pytorch(value) if here else None)


def _conflict(mirror: Mirror) -> GradientError:
    return GradientError(
        f"the variable {mirror.variable.name!r} was changed in TensorFlow and in torch since they "
        "were equal; choose one of the values before the next call: pull() takes TensorFlow's, "
        "push() takes torch's"
    )
