"""How functions that are made here look to their users."""

from __future__ import annotations

from typing import Any


def name_after(wrapper: Any, fn: Any) -> None:
    """Gives a wrapper the name and documentation of what it wraps.

    It does not set ``__wrapped__``, which `tf.function` and `inspect` would follow.
    """
    wrapper.__name__ = getattr(fn, "__name__", type(fn).__name__)
    wrapper.__doc__ = getattr(fn, "__doc__", None)
