"""Elements that could not be made: the extension's exception, and the public one."""

from __future__ import annotations

import re

from tensor_bridge import errors
from tensor_bridge.errors import PipelineError, TensorBridgeError

_TENSORFLOW = 8  # TB_TENSORFLOW
# The function that TensorFlow wraps around the operation that we run.
_WRAPPER = re.compile(r"^\{\{function_node __wrapped__\w*?Iterator[^}]*\}\} ")
_CODES = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
]


class Failure(Exception):  # noqa: N818  # never leaves `Elements`
    """Raised by the extension for an element that could not be made."""


def failure(ordinal: int, status: int, code: int, message: str) -> Failure:
    """Makes the exception; the extension calls it."""
    return Failure(ordinal, status, code, message)


def public(ordinal: int, status: int, code: int, message: str) -> TensorBridgeError:
    """The public exception for a failure."""
    if status != _TENSORFLOW or code == 0:
        kind = errors.BY_STATUS.get(status, errors.InternalError)
        return kind(f"element {ordinal}: {message}")
    error = PipelineError(
        f"the pipeline failed at element {ordinal}: {_WRAPPER.sub('', message)}. Ask for the next "
        "element to continue after it, or leave such elements out: ds.ignore_errors(), or "
        "on_error='skip'"
    )
    error.ordinal = ordinal
    error.code = _CODES[code] if 0 <= code < len(_CODES) else str(code)
    return error
