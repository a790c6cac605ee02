"""TensorFlow's recording of gradients, as far as this package uses it.

This is the only file here that depends on TensorFlow's version: the names below are private. They
are the same in TensorFlow 2.12 to 2.21, except `record_operation`, which was in ``eager.tape`` in
2.12. `tf.GradientTape` and `tf.custom_gradient` wrap them, and the wrappers' Python costs more than
a small function's own gradient: 270 of 530 us, and 220 of 460 us, with TensorFlow 2.21.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

from tensor_bridge import _C
from tensor_bridge.composite import _registry


@cache
def api() -> SimpleNamespace:
    """The functions, looked up once."""
    from tensorflow.python import pywrap_tfe
    from tensorflow.python.eager import context

    try:
        from tensorflow.python.eager import record
    except ImportError:  # TensorFlow 2.12
        from tensorflow.python.eager import tape as record
    return SimpleNamespace(
        new_tape=pywrap_tfe.TFE_Py_TapeSetNew,
        add_tape=pywrap_tfe.TFE_Py_TapeSetAdd,
        remove_tape=pywrap_tfe.TFE_Py_TapeSetRemove,
        watch=pywrap_tfe.TFE_Py_TapeWatch,
        should_record=pywrap_tfe.TFE_Py_TapeSetShouldRecordBackprop,
        possible_types=pywrap_tfe.TFE_Py_TapeSetPossibleGradientTypes,
        gradient=pywrap_tfe.TFE_Py_TapeGradient,
        record_operation=record.record_operation,
        executing_eagerly=context.executing_eagerly,
    )


def is_recorded(tensors: Sequence[Any]) -> bool:
    """Whether a tape or a forward accumulator of this thread watches any of the tensors."""
    return bool(api().possible_types(list(tensors)))


@cache
def _kind(dtype: int) -> tuple[bool, bool]:
    """Whether a dtype, given by its number, is one of plain numbers, and whether differentiable."""
    import tensorflow as tf

    found = tf.dtypes.as_dtype(dtype)
    plain = _registry.for_tf_dtype(found.name) is None
    return plain, plain and bool(found.is_floating or found.is_complex)


def is_dense(t: Any) -> bool:
    """Whether a value is an eager tensor of plain numbers."""
    return _C.is_eager_tensor(t) and _kind(t.dtype.as_datatype_enum)[0]


def differentiable(t: Any) -> bool:
    """Whether TensorFlow takes gradients of a tensor: it is floating-point or complex."""
    return _kind(t.dtype.as_datatype_enum)[1]


def dense(gradient: Any) -> Any:
    """A TensorFlow gradient as one dense tensor."""
    if gradient is None or _C.is_eager_tensor(gradient):
        return gradient
    import tensorflow as tf

    return tf.convert_to_tensor(gradient)


class Segment:
    """A piece of TensorFlow's graph of gradients: from sources to outputs, on one tape.

    On a persistent tape a gradient can be taken again and be recorded itself: gradients of any
    order need no second run of the function, and see the same random numbers. Under a persistent
    tape a `tf.function` also returns the intermediate values that higher orders may need: a
    training step of a ResNet50 takes a fifth longer, and a minute more to trace (TensorFlow 2.21).

    Attributes:
      sources: Watched tensors, or handles of watched variables.
      outputs: Tensors.
      persistent: Whether the tape is.
    """

    __slots__ = ("_lock", "_tape", "outputs", "persistent", "sources")

    def __init__(
        self, tape: Any, sources: list[Any], outputs: list[Any], lock: Any, persistent: bool = True
    ) -> None:
        self._tape = tape
        self._lock = lock
        self.sources = sources
        self.outputs = outputs
        self.persistent = persistent

    @property
    def used_up(self) -> bool:
        """Whether the tape is used up, so that no further gradient can be taken."""
        return self._tape is None

    @classmethod
    def record(
        cls, sources: list[Any], run: Callable[[], list[Any]], persistent: bool
    ) -> tuple[Segment, tuple[bool, ...]]:
        """Runs a function whose operations on ``sources`` are recorded.

        Args:
          sources: What is watched.
          run: Returns the outputs.
          persistent: Whether more than one gradient may be taken.

        Returns:
          The segment, and for each output whether it depends on a source.
        """
        tf = api()
        tape = tf.new_tape(persistent, False)
        try:
            for source in sources:
                tf.watch(tape, source)
            outputs = run()
            depends = tuple([tf.should_record([output]) for output in outputs])
        finally:
            tf.remove_tape(tape)
        return cls(tape, sources, outputs, threading.RLock(), persistent), depends

    def gradient(self, which: Sequence[int], upstream: list[Any]) -> list[Any]:
        """Gradients of the outputs numbered ``which`` to all sources; None for no dependence."""
        with self._lock:
            tape = self._tape
            if not self.persistent:
                self._tape = None
            found: list[Any] = api().gradient(
                tape,
                [self.outputs[i] for i in which],
                self.sources,
                upstream,
                self.sources,
                "none",
            )
        return found

    def recorded_gradient(
        self, which: Sequence[int], upstream: list[Any], finish: Callable[[Any], Any]
    ) -> tuple[list[Any], Segment, tuple[bool, ...]]:
        """Like `gradient`, but recorded on the tape.

        Args:
          which: Numbers of the outputs.
          upstream: A gradient for each.
          finish: Applied to each gradient, while it is still recorded.

        Returns:
          The gradients; the segment from the sources and ``upstream`` to the gradients that are not
          None; for each of these, whether it depends on a source or on ``upstream``.
        """
        tf = api()
        with self._lock:
            tf.add_tape(self._tape)
            try:
                for gradient in upstream:
                    tf.watch(self._tape, gradient)
                found = [g if g is None else finish(g) for g in self.gradient(which, upstream)]
                present = [g for g in found if g is not None]
                depends = tuple([tf.should_record([g]) for g in present])
            finally:
                tf.remove_tape(self._tape)
        segment = Segment(self._tape, [*self.sources, *upstream], present, self._lock)
        return found, segment, depends
