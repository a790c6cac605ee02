"""Positions in a dataset: TensorFlow's iterator state as bytes, and undelivered elements."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C
from tensor_bridge.data import _iterator_state, _pipeline, _state
from tensor_bridge.data._state import MODES, VERSION, most_epochs, sealed
from tensor_bridge.errors import InvalidOptionError, ResumeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tensor_bridge.data._spec import ElementPlan

__all__ = [
    "MODES",
    "VERSION",
    "check_dataset",
    "check_mode",
    "checked",
    "copied",
    "kept",
    "most_epochs",
    "none_of_service",
    "restore",
    "save",
    "save_best",
    "sealed",
]

# The modes that "auto" tries, from the best one to the one that always works.
_FALLBACKS = ("exact", "position", "replay")

# tensorflow::data::ExternalStatePolicy
_IGNORE, _FAIL = 1, 2
_STATEFUL = re.compile(r"(\w+) is stateful")
_UNSAVED = re.compile(r"(\w+) does not support checkpointing")


def none_of_service() -> ResumeError:
    """The error for a position of tf.data service."""
    return ResumeError(
        "tf.data service does not save positions: its workers own them. Resume at the start of an "
        "epoch (set_epoch), or iterate without the service"
    )


def check_mode(mode: Any) -> str:
    """Checks and returns the value of ``resume=``.

    Raises:
      InvalidOptionError: It is not a mode.
    """
    if mode not in MODES:
        raise InvalidOptionError(
            f"resume must be 'auto', 'exact', 'position' or 'replay', got {mode!r}"
        )
    return str(mode)


def check_dataset(dataset: Any, mode: str) -> None:
    """Checks in advance that positions in the dataset can be saved in the mode.

    Raises:
      ResumeError: They cannot be saved.
    """
    import tensorflow as tf

    if mode not in ("exact", "position"):
        return
    try:
        # A new dataset, because each iterator draws the seeds of an epoch.
        iterator = iter(_pipeline.anew(dataset))
        generates = "GeneratorDataset" in _pipeline.operations(dataset)
    except tf.errors.OpError:
        return  # too large for a graph; `save` finds out
    save(iterator._iterator_resource, mode)
    if generates:  # refused only after its iterator exists, which the first element makes
        raise ResumeError(_unsaved("GeneratorDataset"))


def save_best(resource: Any, told: dict[str, str]) -> tuple[str, list[bytes] | None]:
    """Saves the position in the best mode that works, and warns once of what is lost.

    Args:
      resource: As in `save`.
      told: The warnings already given, with their reasons; extended.

    Returns:
      The mode, and the result of `save`; None for "replay".
    """
    for mode in _FALLBACKS:
        try:
            parts = None if mode == "replay" else save(resource, mode)
        except ResumeError as e:
            told.setdefault("cause", str(e.__cause__))
            continue
        if mode != "exact" and mode not in told:
            told[mode] = "warned"
            cause = _STATEFUL.search(told["cause"]) or _UNSAVED.search(told["cause"])
            why = f"TensorFlow saves no state of {cause[1]}" if cause else told["cause"]
            warnings.warn(_LOST[mode].format(why), stacklevel=5)
        return mode, parts
    raise AssertionError("replay saves nothing")


_LOST = {
    "position": (
        "this state holds the position in the dataset, but {}, which starts anew when it is "
        "loaded. resume='position' says that this is meant, resume='exact' refuses such datasets"
    ),
    "replay": (
        "this state holds how many elements were delivered: {}. When it is loaded as many are made "
        "and skipped, which is right if the dataset yields the same elements again. "
        "resume='replay' says that this is meant, resume='exact' refuses such datasets"
    ),
}


def save(resource: Any, mode: str) -> list[bytes]:
    """TensorFlow's state of an iterator, which must not be in use.

    Raises:
      ResumeError: The pipeline cannot be saved in this mode; the message names the operation.
    """
    import tensorflow as tf

    policy = _FAIL if mode == "exact" else _IGNORE
    try:
        state = tf.raw_ops.SerializeIterator(resource_handle=resource, external_state_policy=policy)
    except tf.errors.OpError as e:
        raise ResumeError(_refusal(str(e))) from e
    # One by one: together they may exceed the 2 GiB of a message.
    parts = (tf.io.serialize_tensor(part) for part in tf.unstack(state))
    return [_C.tf_strings_list(part) for part in parts]


def _refusal(message: str) -> str:
    stateful = _STATEFUL.search(message)
    if stateful:
        return (
            f"the position in this dataset cannot be saved exactly: the operation "
            f"{stateful[1]} in it keeps a state outside the pipeline, which TensorFlow does not "
            "save. Use stateless operations (tf.random.stateless_*, seeds from the data), or "
            "resume='position', which keeps the position and lets such operations start anew, or "
            "resume='replay', which skips as many elements as were delivered"
        )
    unsaved = _UNSAVED.search(message)
    if unsaved:
        return _unsaved(unsaved[1])
    return f"TensorFlow cannot save the position in this dataset: {message}"


def _unsaved(operation: str) -> str:
    return (
        f"TensorFlow cannot save the position in a {operation} (Dataset.from_generator, "
        "tensor_bridge.data.from_torch). If it yields the same elements each time, "
        "resume='replay' skips as many as were delivered"
    )


def restore(resource: Any, parts: Sequence[bytes]) -> None:
    """Moves a new iterator of the same pipeline to the position that `save` saved.

    Raises:
      ResumeError: TensorFlow refuses the state.
    """
    import tensorflow as tf

    try:
        state = tf.stack([tf.io.parse_tensor(tf.constant(part), tf.variant) for part in parts])
        tf.raw_ops.DeserializeIterator(resource_handle=resource, serialized=state)
    except tf.errors.OpError as e:
        raise ResumeError(
            f"the saved position does not fit this dataset; was the pipeline changed? {e}"
        ) from e


def copied(flat: Sequence[Any]) -> list[Any]:
    """The values of an element for a state: tensors with memory of their own."""
    return [
        value.detach().to("cpu", copy=True) if _C.is_torch_tensor(value) else value
        for value in flat
    ]


def kept(state: dict[str, Any]) -> dict[str, Any]:
    """The state with new containers, so that changes to one do not reach the other."""
    return {name: list(v) if isinstance(v, list | tuple) else v for name, v in state.items()}


def checked(
    state: Any, expected: dict[str, Any], plan: ElementPlan, last_epoch: int
) -> dict[str, Any]:
    """The state, checked to be whole and of a dataset like this one, before TensorFlow sees it.

    Args:
      state: The caller's state.
      expected: Values with which it must agree.
      plan: The form of the elements.
      last_epoch: The largest number of an epoch.

    Raises:
      ResumeError: The state is damaged, or of another dataset.
    """
    _state.check(state, last_epoch)
    _check_identity(state, expected)
    _state.check_pending(state, plan)
    if state["iterator"] is not None:
        _iterator_state.check(state["iterator"])
    if state["rank"] != expected["rank"]:
        return _of_another_rank(state, expected["rank"])
    return kept(state)


def _check_identity(state: dict[str, Any], expected: dict[str, Any]) -> None:
    automatic = expected["resume"] == "auto"
    for name, value in expected.items():
        if state.get(name) == value or (automatic and name == "rank"):
            continue
        if automatic and name == "resume" and state.get(name) in MODES:
            continue  # the state itself tells its value
        raise ResumeError(
            f"the state belongs to another dataset: it was saved with {name} "
            f"{state.get(name)!r}, this one has {value!r}"
        )


def _of_another_rank(state: dict[str, Any], rank: int) -> dict[str, Any]:
    """The position of this rank after as many elements as the other rank had.

    Lightning saves the state of the first rank and loads it on all ranks.
    """
    if state["delivered"]:
        warnings.warn(
            f"this state is of rank {state['rank']}, and this is rank {rank}: as many of its own "
            "elements are made and skipped, which is right if the dataset yields the same elements "
            "again. A state saved by each rank, in a file of its own, is exact",
            stacklevel=5,
        )
    return sealed({**state, "resume": "replay", "iterator": None, "pending": [], "failed": []})
