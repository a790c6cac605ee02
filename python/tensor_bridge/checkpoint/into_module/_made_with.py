"""What layers were made with and a file does not hold. Not for: what the module computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tensor_bridge.errors import InvalidOptionError

__all__ = ["MadeWith", "made_with_of"]


@dataclass(frozen=True)
class MadeWith:
    """Options of layers on which the meaning of their weights depends; None is unknown.

    Attributes:
      forget_bias: What LSTM cells of TensorFlow 1 and Sonnet 1 add to the forget gate's bias when
        they run.
      reset_after: Whether a GRU without a bias multiplies by the reset gate after its kernel.
      dim_ordering: "tf" or "th", how Keras 1 laid out the kernels of convolutions.
      backend: "tensorflow" or "theano", which turns the kernels of convolutions around.
    """

    forget_bias: float | None = None
    reset_after: bool | None = None
    dim_ordering: str | None = None
    backend: str | None = None


_ALLOWED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "forget_bias": ("a number", ()),
    "reset_after": ("True or False", (True, False)),
    "dim_ordering": ("'tf' or 'th'", ("tf", "th")),
    "backend": ("'tensorflow' or 'theano'", ("tensorflow", "theano")),
}


def made_with_of(given: Mapping[str, Any] | None) -> MadeWith:
    """The caller's options, looked at.

    Raises:
      InvalidOptionError: An unknown one, or a value that it cannot have.
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
        text, values = _ALLOWED[name]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value not in values if values else not number:
            raise InvalidOptionError(f"expected {name} to be {text}, got {value!r}")
    return MadeWith(**given)
