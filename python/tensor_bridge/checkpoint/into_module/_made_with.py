"""Options of layers that a file does not hold. Not for: what the module computes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tensor_bridge.errors import InvalidOptionError


@dataclass(frozen=True)
class MadeWith:
    """Options of layers on which the meaning of their weights depends; None is unknown.

    Attributes:
      forget_bias: The number that LSTM cells of TensorFlow 1 and Sonnet 1 add to the forget gate's
        bias at run time.
      reset_after: Whether a GRU without a bias multiplies by the reset gate after its kernel.
      dim_ordering: "tf" or "th", how Keras 1 laid out the kernels of convolutions.
      backend: "tensorflow" or "theano", which flips the kernels of convolutions.
      keras_version: Such as "1.2.2"; the meaning of ``running_std`` depends on it.
    """

    forget_bias: float | None = None
    reset_after: bool | None = None
    dim_ordering: str | None = None
    backend: str | None = None
    keras_version: str | None = None

    def or_of(self, source: Any) -> MadeWith:
        """These options, with unknown ones taken from the checkpoint."""
        return replace(
            self,
            backend=self.backend or getattr(source, "backend", None),
            keras_version=self.keras_version or getattr(source, "keras_version", None),
        )


def _is_bool(x: Any) -> bool:
    return isinstance(x, bool)


_ALLOWED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "forget_bias": ("a number", lambda x: isinstance(x, (int, float)) and not _is_bool(x)),
    "reset_after": ("True or False", _is_bool),
    "dim_ordering": ("'tf' or 'th'", lambda x: x in ("tf", "th")),
    "backend": ("'tensorflow' or 'theano'", lambda x: x in ("tensorflow", "theano")),
    "keras_version": (
        "a text such as '1.2.2'",
        lambda x: re.match(r"\d+\.\d+", str(x)) is not None,
    ),
}


def made_with_of(given: Mapping[str, Any] | None) -> MadeWith:
    """The caller's options, checked.

    Raises:
      InvalidOptionError: An option is unknown, or does not take its value.
    """
    if given is None:
        return MadeWith()
    if not isinstance(given, Mapping):
        raise InvalidOptionError(
            f"expected made_with to be a dict such as {{'forget_bias': 1.0}}, got {given!r}"
        )
    for name, value in given.items():
        if name not in _ALLOWED:
            raise InvalidOptionError(
                f"expected made_with to have {', '.join(_ALLOWED)}, got {name!r}"
            )
        text, allows = _ALLOWED[name]
        if not allows(value):
            raise InvalidOptionError(f"expected {name} to be {text}, got {value!r}")
    return MadeWith(**dict(given))
