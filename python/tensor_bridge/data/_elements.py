"""Elements: one pass over a dataset, fed by the native iterator."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C
from tensor_bridge.data import _resume, _sharding
from tensor_bridge.data._failures import Failure, failure, public
from tensor_bridge.data._process import OfOneProcess
from tensor_bridge.data._stats import Stats
from tensor_bridge.errors import (
    DataServiceError,
    PipelineError,
    ResumeError,
    TensorBridgeError,
    TensorFlowError,
    WorldChangedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tensor_bridge.data._spec import ElementPlan

# Failures in a row after which on_error="skip" gives up: a pipeline that never recovers.
_MAX_FAILURES = 100
# Closed before the interpreter exits: their threads run code of TensorFlow and perhaps of Python.
_open: weakref.WeakSet[Elements] = weakref.WeakSet()
# In a forked child, iterators of the parent process.
_left: list[Any] = []


@atexit.register
def _close_all() -> None:
    for elements in list(_open):
        if elements._is_here():
            elements.close()


def _begin(dataset: Any) -> Any:
    import tensorflow as tf

    try:
        return iter(dataset)
    except tf.errors.OpError as e:
        raise TensorFlowError(f"TensorFlow could not begin a pass over the dataset: {e}") from e


@dataclass(frozen=True)
class Settings:
    """What one pass needs to know.

    Attributes:
      plan: What the elements are.
      prefetch: Elements that the thread makes ahead.
      resume: How positions are saved.
      skip_failures: Whether failed elements are left out.
      timeout: Seconds of waiting after which the service counts as dead; None waits forever.
      options: Keywords of the native conversion.
      addresses: Of tf.data service, if the elements come from one.
      identity: Values with which a state must agree.
      told: The warnings already given.
    """

    plan: ElementPlan
    prefetch: int
    resume: str
    skip_failures: bool
    timeout: float | None
    options: dict[str, Any]
    addresses: Callable[[], tuple[str, ...]] | None
    identity: dict[str, Any] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)

    def state(self, epoch: int, delivered: int = 0, *, ended: bool = False) -> dict[str, Any]:
        """A saved position without the states of TensorFlow and of the queue."""
        return {
            "version": _resume.VERSION,
            **self.identity,
            "epoch": epoch,
            "delivered": delivered,
            "ended": ended,
            "iterator": None,
            "pending": [],
            "failed": [],
        }


class Elements(OfOneProcess):
    """Iterator over one pass. Made by `TorchDataset`."""

    def __init__(
        self,
        dataset: Any,
        settings: Settings,
        epoch: int,
        state: dict[str, Any] | None,
        *,
        follows_world: bool,
    ) -> None:
        from tensorflow.python.eager import context  # private; TensorFlow 2.12 to 2.21

        super().__init__()
        self.epoch = epoch
        self._settings = settings
        self._follows = follows_world  # the part is that of a torch.distributed rank
        self._world = _sharding.world() if follows_world else None
        self._limit = -1.0 if settings.timeout is None else settings.timeout
        self._lock = threading.RLock()
        # Elements taken from the queue for a state, as flat values, or failures.
        self._pending: deque[list[Any] | Failure] = deque()
        self._position = 0  # elements and failures that were delivered
        self._offset = 0  # added to the native iterator's ordinals
        self._finished = False
        self._final = Stats()
        # An asynchronous executor would begin the pass later.
        with context.execution_mode(context.SYNC):
            self._iterator: Any = _begin(dataset)  # keeps the dataset's functions alive
            if state is not None:
                self._load(state)
        self._native: Any = _C.data_open(
            self._iterator._iterator_resource,
            context.context()._handle,
            settings.prefetch,
            settings.timeout is None,
            settings.plan.string_lists,
            settings.plan.components,
            settings.plan.structure,
            failure,
            **settings.options,
        )
        _open.add(self)
        if state is None:
            return
        if state["resume"] == "replay":
            self._skip(state["delivered"], of_other=state["rank"] != settings.identity["rank"])
        elif state["ended"]:
            _C.data_close(self._native)  # only pending elements remain

    # ---- iteration -------------------------------------------------------------------------------

    def __iter__(self) -> Elements:
        self._check_process()
        return self

    def _check_world(self) -> None:
        if self._finished or _sharding.world() is self._world:
            return
        self.close()
        raise WorldChangedError(
            "torch.distributed was initialised or destroyed in the middle of this pass, which gave "
            "each element to one rank of the world as it was when it began. Begin the pass after "
            "init_process_group(), or give rank= and world_size="
        )

    def __next__(self) -> Any:
        self._check_process()
        if self._follows:
            self._check_world()
        if self._pending or self._finished or self._settings.skip_failures:
            return _C.data_build(self._native, self.next_flat())
        try:
            element = _C.data_next(self._native, self._limit)
        except StopIteration:
            self._finish()
            raise
        except (Failure, TimeoutError) as e:
            raise self._raised(e) from None
        self._position += 1
        return element

    def next_flat(self) -> list[Any]:
        """The values of the next element, from which `build` makes it.

        Raises:
          StopIteration: There is no next element.
          PipelineError: The element could not be made.
        """
        self._check_process()
        if self._follows:
            self._check_world()
        failures = 0
        while True:
            try:
                flat = self._next_flat()
                self._position += 1
                return flat
            except StopIteration:
                self._finish()
                raise
            except (Failure, TimeoutError) as e:
                error = self._raised(e)
                failures += 1
                skip = self._settings.skip_failures and isinstance(error, PipelineError)
                if not skip or failures >= _MAX_FAILURES:
                    raise error from None

    def _next_flat(self) -> list[Any]:
        with self._lock:
            pending = self._pending.popleft() if self._pending else None
        if isinstance(pending, Failure):
            ordinal, *rest = pending.args  # counted like the native iterator's
            raise Failure(ordinal - self._offset, *rest)
        if pending is not None:
            return pending
        if self._finished:
            raise StopIteration
        return _C.data_next_flat(self._native, self._limit)

    def build(self, flat: list[Any]) -> Any:
        """Makes an element from its values."""
        self._check_process()
        return _C.data_build(self._native, flat)

    def _raised(self, error: Exception) -> TensorBridgeError:
        if isinstance(error, TimeoutError):
            return self._timed_out()
        self._position += 1
        ordinal, status, code, message = error.args
        return public(ordinal + self._offset, status, code, message)

    def _timed_out(self) -> DataServiceError:
        _C.data_cancel(self._native)
        self._finish()
        addresses = self._settings.addresses
        found = addresses() if addresses is not None else ()
        where = f" ({', '.join(found)})" if found else ""
        error = DataServiceError(
            f"no element came from tf.data service{where} for {self._settings.timeout} s, after "
            f"{self._position} elements. A worker may have died: TensorFlow's client waits for it "
            "for good. Start it again and iterate anew, or give a longer timeout="
        )
        error.addresses, error.delivered = found, self._position
        return error

    def _skip(self, count: int, *, of_other: bool) -> None:
        """Makes and drops ``count`` delivered elements; another rank may have had one more."""
        for _ in range(count):
            try:
                _C.data_next_flat(self._native, self._limit)
            except StopIteration:
                if of_other:
                    return
                raise ResumeError(
                    f"resume='replay' skips the {count} elements that were delivered, but the "
                    f"dataset ended after {self._position}; it yields other elements than before"
                ) from None
            except Failure:
                pass  # it was delivered as a failure
            self._position += 1

    # ---- state -----------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Number of elements and failures that were delivered."""
        return self._position

    @property
    def finished(self) -> bool:
        """Whether the end was reached, or the pass was closed."""
        return self._finished

    def state_dict(self, undelivered: list[list[Any]] | None = None) -> dict[str, Any]:
        """The position, with the elements that were made but not delivered.

        Args:
          undelivered: Values of elements that the caller took and has not delivered.

        Raises:
          ResumeError: This pipeline cannot be saved.
        """
        self._check_process()
        taken = undelivered or []
        if self._settings.addresses is not None:
            raise _resume.none_of_service()
        delivered = self._position - len(taken)
        state = self._settings.state(self.epoch, delivered, ended=self._finished)
        if self._settings.resume == "replay":
            return _resume.sealed(state)
        with self._lock:
            if not self._finished:
                _C.data_pause(self._native)
                try:
                    self._drain()
                    self._save(state)
                finally:
                    _C.data_resume(self._native)
            waiting = [*taken, *self._pending]
        if state["resume"] == "replay":
            return _resume.sealed(state)
        if self._settings.plan.has_opaque and waiting:
            raise ResumeError(
                "elements that were made ahead hold values that cannot be saved (datasets, "
                "optionals, ...); use prefetch=0 without timeout="
            )
        state["pending"] = [
            list(item.args) if isinstance(item, Failure) else _resume.copied(item)
            for item in waiting
        ]
        state["failed"] = [isinstance(item, Failure) for item in waiting]
        return _resume.sealed(state)

    def _save(self, state: dict[str, Any]) -> None:
        """Adds TensorFlow's part of the position."""
        resource, mode = self._iterator._iterator_resource, self._settings.resume
        if mode == "auto":
            state["resume"], state["iterator"] = _resume.save_best(resource, self._settings.told)
        else:
            state["iterator"] = _resume.save(resource, mode)

    def _drain(self) -> None:
        while True:
            try:
                self._pending.append(_C.data_next_flat(self._native, 0.0))
            except (StopIteration, TimeoutError):
                return
            except Failure as e:
                ordinal, *rest = e.args
                self._pending.append(Failure(ordinal + self._offset, *rest))

    def _load(self, state: dict[str, Any]) -> None:
        if state["resume"] == "replay":
            return
        self._position = state["delivered"]
        for flat, failed in zip(state["pending"], state["failed"], strict=True):
            # Copies: the state may be loaded again, and delivered tensors may be written to.
            self._pending.append(Failure(*flat) if failed else _resume.copied(flat))
        self._offset = self._position + len(self._pending)
        if state["iterator"] is not None:
            _resume.restore(self._iterator._iterator_resource, state["iterator"])

    # ---- the end ---------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Counts and times so far."""
        self._check_process()
        if self._finished:
            return self._final
        elements, size, failures, wait, compute, make, queued = _C.data_stats(self._native)
        return Stats(
            elements,
            size,
            failures,
            wait / 1e9,
            compute / 1e9,
            make / 1e9,
            queued + len(self._pending),
        )

    def _finish(self) -> None:
        if self._finished:
            return
        self._final = self.stats()
        self._finished = True
        _open.discard(self)
        _C.data_close(self._native)
        self._iterator = self._world = None
        self._follows = False

    def __del__(self) -> None:
        # One that is finished needs nothing, and at exit the names of modules are gone.
        if not hasattr(self, "_native") or self._finished:
            return
        if self._is_here():
            self._finish()  # before the functions that its thread may be running
        else:
            # TensorFlow would wait for the iterator's threads, which do not exist in this process.
            _left.append((self._iterator, self._native))

    def close(self) -> None:
        """Ends the pass: cancels TensorFlow's work for it, ends the thread, frees the queue."""
        self._check_process()
        self._pending.clear()
        self._finish()
