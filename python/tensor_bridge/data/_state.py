"""The fields of a saved position, and the digest over all of them.

Not for: TensorFlow's part (_iterator_state.py). The digest finds accidents; it does not say who
wrote a state.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C
from tensor_bridge.errors import ResumeError

if TYPE_CHECKING:
    from tensor_bridge.data._spec import ElementPlan

MODES = ("auto", "exact", "position", "replay")
VERSION = 2

_LARGEST = 2**63 - 1
# For a dataset that reshuffles: TensorFlow draws the seeds of all earlier epochs, 45 us each.
_LAST_RESHUFFLED = 10**6
_LAST_EPOCH = 2**31 - 1


def most_epochs(reshuffles: bool) -> int:
    """The largest number of an epoch."""
    return _LAST_RESHUFFLED if reshuffles else _LAST_EPOCH


# ---- the digest ----------------------------------------------------------------------------------


def sealed(state: dict[str, Any]) -> dict[str, Any]:
    """The state with the digest over its other fields."""
    fields = {name: value for name, value in state.items() if name != "digest"}
    return {**fields, "digest": _digest(fields)}


def _digest(fields: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(fields):
        _feed(digest.update, name)
        try:
            _feed(digest.update, fields[name])
        except _NoPlainValueError as e:
            raise ResumeError(f"{name}: expected plain values and tensors, got {e}") from None
    return digest.hexdigest()


class _NoPlainValueError(Exception):
    """Never leaves this module."""


def _feed(update: Callable[[bytes | memoryview], None], value: Any) -> None:
    """Feeds the value with its type and length, so that no two values give the same bytes."""
    if value is None or type(value) is bool:
        update(f"{value};".encode())
    elif type(value) is int:
        update(f"int {value:x};".encode())  # Python refuses decimal digits of a long int
    elif type(value) in (str, bytes):
        data = value.encode("utf-8", "surrogatepass") if type(value) is str else value
        update(f"{type(value).__name__} {len(data)};".encode())
        update(data)
    elif type(value) in (list, tuple):  # some formats have only one of the two
        update(f"list {len(value)};".encode())
        for item in value:
            _feed(update, item)
    elif _C.is_torch_tensor(value):
        _feed_tensor(update, value)
    else:
        raise _NoPlainValueError(f"a {type(value).__module__}.{type(value).__qualname__}")


def _feed_tensor(update: Callable[[bytes | memoryview], None], tensor: Any) -> None:
    import torch

    if tensor.layout is not torch.strided or tensor.is_nested or tensor.device.type == "meta":
        raise _NoPlainValueError(f"a tensor of layout {tensor.layout} on {tensor.device}")
    update(f"tensor {tensor.dtype} {tuple(tensor.shape)};".encode())
    plain = tensor.detach().resolve_conj().resolve_neg().to("cpu").contiguous()
    size = plain.numel() * plain.element_size()
    if size:
        update(memoryview((ctypes.c_char * size).from_address(plain.data_ptr())))


# ---- the schema ----------------------------------------------------------------------------------


def check(state: Any, last_epoch: int) -> None:
    """Checks the fields of a state, and that they are unchanged since they were saved.

    Raises:
      ResumeError: The state is of another version, or damaged; the message names the field.
    """
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise _other_version(state)
    expected = {"digest", "version", *_FIELDS}
    if set(state) != expected:
        names = sorted(map(repr, set(state) ^ expected))
        raise ResumeError(
            f"expected the fields of a state, got a state with {names[0]} missing or too many"
        )
    for name, (words, fits) in _FIELDS.items():
        if not fits(state[name]):
            raise _refused(name, words, state[name])
    if state["epoch"] > last_epoch:
        raise _refused("epoch", f"an int from 0 to {last_epoch}", state["epoch"])
    _check_together(state)
    if (
        _digest({name: value for name, value in state.items() if name != "digest"})
        != state["digest"]
    ):
        raise ResumeError(
            "digest: expected the digest of the state's other fields, got another one: the state "
            "was damaged or edited since state_dict() made it. Load another copy, or begin an "
            "epoch (set_epoch)"
        )


def _other_version(state: Any) -> ResumeError:
    if isinstance(state, dict) and type(state.get("version")) is int and state["version"] == 1:
        return ResumeError(
            f"version: expected {VERSION}, got 1: a state of tensor_bridge 0.1.0, which has no "
            "digest, so that nothing can tell whether it is whole. Load it with the release that "
            "saved it, go on to the end of the epoch, and begin the next one here with set_epoch()"
        )
    got = f"version {_short(state.get('version'))}" if isinstance(state, dict) else _short(state)
    return ResumeError(
        f"expected a state made by state_dict() of this release (version {VERSION}), got {got}; "
        "load it with the release that saved it, or begin an epoch (set_epoch)"
    )


def _short(value: Any) -> str:
    if type(value) in (bool, int, str, bytes, type(None)):
        # Making the digits of a long number takes quadratic time, and Python refuses it.
        if type(value) is int and value.bit_length() > 64:
            return f"an int of {value.bit_length()} bits"
        text = repr(value[:40] if isinstance(value, str | bytes) else value)
        return text if len(text) <= 60 else f"{text[:60]}..."
    return f"a {type(value).__module__}.{type(value).__qualname__}"


def _refused(name: str, words: str, got: Any) -> ResumeError:
    return ResumeError(f"{name}: expected {words}, got {_short(got)}")


def _is_int(value: Any, most: int = _LARGEST) -> bool:
    return type(value) is int and 0 <= value <= most


def _is_list(value: Any) -> bool:
    return type(value) in (list, tuple)


# By name: what is expected, in words, and whether a value is that. Up to "shard" they say which
# loader saved the state. In its pass number "epoch", which "ended" or did not, "delivered" elements
# went to the program. "iterator" is TensorFlow's checkpoint, behind "pending": the elements that
# were made and not delivered, flat, or what was raised for those that "failed".
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "spec": ("a str", lambda v: type(v) is str),
    "resume": (f"one of {MODES}", lambda v: type(v) is str and v in MODES),
    "strings": ("'tensor' or 'list'", lambda v: type(v) is str and v in ("tensor", "list")),
    "rank": ("an int of at least 0", _is_int),
    "world_size": ("an int of at least 1", lambda v: _is_int(v) and v > 0),
    "shard": (
        "None, 'file' or 'data'",
        lambda v: v is None or (type(v) is str and v in ("file", "data")),
    ),
    "epoch": (f"an int from 0 to {_LAST_EPOCH}", lambda v: _is_int(v, _LAST_EPOCH)),
    "delivered": (f"an int from 0 to {_LARGEST}", _is_int),
    "ended": ("a bool", lambda v: type(v) is bool),
    "iterator": (
        "None or a list of bytes",
        lambda v: (
            v is None
            or (_is_list(v) and len(v) > 0 and all(type(part) is bytes and part for part in v))
        ),
    ),
    "pending": ("a list of lists", lambda v: _is_list(v) and all(map(_is_list, v))),
    "failed": ("a list of bools", lambda v: _is_list(v) and all(type(f) is bool for f in v)),
}


def _check_together(state: dict[str, Any]) -> None:
    """Checks fields that depend on each other."""
    if state["rank"] >= state["world_size"]:
        words = f"a rank of the {_short(state['world_size'])} in world_size"
        raise _refused("rank", words, state["rank"])
    if len(state["failed"]) != len(state["pending"]):
        words = f"as many as in pending, {len(state['pending'])}"
        raise ResumeError(f"failed: expected {words}, got {len(state['failed'])}")
    resume, saved = state["resume"], state["iterator"] is not None
    if saved and (resume not in ("exact", "position") or state["ended"]):
        words = "None where resume is 'auto' or 'replay', and at the end of a pass"
        raise _refused("iterator", words, state["iterator"])
    begun = state["delivered"] or state["pending"]
    if begun and not (saved or state["ended"] or resume == "replay"):
        raise _refused("iterator", "a list of bytes in the middle of a pass", None)
    if resume == "replay" and state["pending"]:
        raise _refused("pending", "no elements where resume is 'replay'", state["pending"])


def check_pending(state: dict[str, Any], plan: ElementPlan) -> None:
    """Checks the undelivered elements in a state.

    Raises:
      ResumeError: They are not elements of the dataset.
    """
    for number, (flat, failed) in enumerate(zip(state["pending"], state["failed"], strict=True)):
        name = f"pending[{number}]"
        if failed:
            kinds = [type(item) for item in flat]
            if kinds != [int, int, int, str] or not all(_is_int(n) for n in flat[:3]):
                raise ResumeError(f"{name}: expected three numbers and a str, got another failure")
            if max(flat[1:3]) > 2**31 - 1:
                raise ResumeError(f"{name}: expected codes of 31 bits, got {flat[1:3]}")
            continue
        problem = plan.problem(flat)
        if problem is not None:
            raise ResumeError(f"{name}: expected the values of an element, got {problem}")
