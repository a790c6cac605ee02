"""loader: batches of records, parsed as a whole by native threads ahead of the training step."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C
from tensor_bridge._frameworks import ensure
from tensor_bridge.data import _sharding
from tensor_bridge.data._loader import loader_class
from tensor_bridge.data._state import sealed
from tensor_bridge.data._stats import Stats
from tensor_bridge.errors import (
    InvalidOptionError,
    OutOfMemoryError,
    ResumeError,
    WorkerProcessError,
)
from tensor_bridge.records._damage import FAULTS, damaged
from tensor_bridge.records._mapped_files import MappedFiles
from tensor_bridge.records._paths import expand
from tensor_bridge.records._record_file import check_on_error
from tensor_bridge.records._spec_parser import SpecParser

if TYPE_CHECKING:
    import torch

    from tensor_bridge.data import Loader

_VERSION = 1
_LARGEST = 2**31 - 1
_ELSEWHERE = (
    "a loader of records was taken into another process, which has none of its threads; make it "
    "there, or use DataLoader(RecordDataset(...), num_workers=n)"
)


def loader(
    paths: Any,
    spec: Any,
    *,
    batch_size: int = 64,
    shuffle: bool = False,
    seed: int = 0,
    drop_last: bool = False,
    device: Any = None,
    pin_memory: bool = False,
    threads: int = 2,
    prefetch: int = 4,
    verify: bool = True,
    on_error: str = "raise",
    rank: int | None = None,
    world_size: int | None = None,
    equal_steps: bool = False,
) -> Loader:
    """Makes a loader of batches of parsed records.

    Native threads read, check and parse whole batches ahead, without the GIL. The order is the same
    with any number of threads. Files are mapped; compressed ones and URLs are held in memory,
    unpacked. Each rank of torch.distributed gets every world_size-th record, as it is when a pass
    begins.

    Args:
      paths: A path, a glob, a URL of fsspec, or an iterable of them.
      spec: Features by key, `SequenceFeatures`, or None for raw records.
      batch_size: Records of a batch; the last one has fewer.
      shuffle: Draws a new order of all records for every epoch.
      seed: Of that order; epoch n has the seed ``seed + n``.
      drop_last: Leaves the last batch out if it has fewer records.
      device: As in `tensor_bridge.data.loader`.
      pin_memory: As in `tensor_bridge.data.loader`.
      threads: How many threads make batches.
      prefetch: How many batches are made ahead.
      verify: Compares the checksums of the records' bytes.
      on_error: "raise", or "skip" to leave out records whose checksums are of other bytes; a batch
        then has fewer.
      rank: The number of this process; by default that of torch.distributed.
      world_size: The number of processes; by default that of torch.distributed too.
      equal_steps: Leaves out the records that not all ranks get.

    Returns:
      A `tensor_bridge.data.Loader`. A batch is what `parse_example` returns, a dict of the three
      dicts "context", "sequence" and "lengths" for a `SequenceFeatures`, or a StringTensor. Its
      tensors have one block of memory of their own. Its position can be saved and loaded exactly.

    Raises:
      RecordNotFoundError: A file that is not there.
      RecordError: A damaged file; of a batch when it is asked for, and the next call goes on behind
        it.
      InvalidOptionError, UnsupportedDtypeError: A keyword or a spec that means nothing.
    """
    ensure()
    dataset: Any = batches_class()(
        paths,
        spec,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        drop_last=drop_last,
        threads=threads,
        prefetch=prefetch,
        verify=verify,
        on_error=on_error,
        place=_sharding.check_place(rank, world_size),
        equal_steps=equal_steps,
    )
    return loader_class()(dataset, device=device, pin_memory=pin_memory)


class RecordBatchesBase:
    """The batches of a `loader`: one pass after the other, with a position."""

    def __init__(
        self,
        paths: Any,
        spec: Any,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        drop_last: bool,
        threads: int,
        prefetch: int,
        verify: bool,
        on_error: str,
        place: tuple[int, int] | None,
        equal_steps: bool,
    ) -> None:
        counts = {"batch_size": batch_size, "threads": threads, "prefetch": prefetch}
        for name, value in counts.items():
            if type(value) is not int or value < 1:
                raise InvalidOptionError(f"{name} must be an int of at least 1, got {value!r}")
        self.seed = int(seed)
        self.parser = SpecParser(spec)
        self.skip = check_on_error(on_error) == "skip"
        self.verify = verify
        self.files = MappedFiles(expand(paths), skip=self.skip)
        self.batch_size, self.threads, self.prefetch = batch_size, threads, prefetch
        self._order: dict[str, Any] = {
            "batch_size": batch_size,
            "shuffle": bool(shuffle),
            "seed": self.seed,
            "drop_last": bool(drop_last),
            "equal_steps": bool(equal_steps),
            "files": self.files.digest(),
        }
        self._place = place
        self._process = os.getpid()
        self._epoch = self._begin_at = 0
        # Weak: a pass refers to this, and the loader to both. No cycle keeps threads alive.
        self._pass: Callable[[], _Pass | None] = lambda: None
        self._placed = False  # the position was given since the latest pass was begun

    def __reduce__(self) -> Any:
        raise WorkerProcessError(_ELSEWHERE)

    def check_process(self) -> None:
        """Raises WorkerProcessError in a process that was forked."""
        if os.getpid() != self._process:
            raise WorkerProcessError(_ELSEWHERE)

    def __iter__(self) -> Iterator[Any]:
        return self.elements()

    def __len__(self) -> int:
        """Batches of a pass of this rank."""
        return self._batches(self._records(*self.place()))

    def place(self) -> tuple[int, int]:
        """Rank and world size."""
        return self._place or _sharding.place()

    def _records(self, rank: int, world_size: int) -> int:
        count = len(self.files)
        if self._order["equal_steps"]:
            return count // world_size
        return (count - rank + world_size - 1) // world_size

    def _batches(self, records: int) -> int:
        full, rest = divmod(records, self.batch_size)
        return full + (rest > 0 and not self._order["drop_last"])

    def numbers(self, epoch: int, rank: int, world_size: int) -> torch.Tensor:
        """The records of a pass, in its order, int64."""
        import torch

        count = len(self.files)
        if self._order["shuffle"]:
            generator = torch.Generator().manual_seed(self.seed + epoch)
            order = torch.randperm(count, generator=generator, device="cpu")
        else:
            order = torch.arange(count, device="cpu")
        mine = order[rank::world_size][: self._records(rank, world_size)]
        return mine[: self._batches(mine.shape[0]) * self.batch_size].contiguous()

    # ---- what a Loader asks for ------------------------------------------------------------------

    def elements(self) -> _Pass:
        """Begins a pass: at the position that was loaded, else at the next epoch's beginning."""
        self.check_process()
        self.close()
        begun = _Pass(self, self._epoch, self.place(), self._begin_at)
        self._pass, self._begin_at, self._placed = weakref.ref(begun), 0, False
        self._epoch += 1
        return begun

    def set_epoch(self, epoch: int) -> None:
        """The number of the next pass, which begins at its beginning."""
        if not 0 <= epoch <= _LARGEST:
            raise InvalidOptionError(f"expected an int from 0 to {_LARGEST}, got {epoch!r}")
        self._epoch, self._begin_at, self._placed = epoch, 0, True

    def state_dict(self) -> dict[str, Any]:
        """The position: of the pass that was begun last, or that was loaded."""
        self.check_process()
        latest = self._pass()
        if latest is not None and not self._placed:
            return latest.state_dict([])
        return self.state(self._epoch, self._begin_at, self.place())

    def state(self, epoch: int, delivered: int, place: tuple[int, int]) -> dict[str, Any]:
        """A position after so many batches."""
        return sealed(
            {
                "version": _VERSION,
                **self._order,
                "rank": place[0],
                "world_size": place[1],
                "epoch": epoch,
                "delivered": delivered,
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next pass begins at a saved position.

        Raises:
          ResumeError: It is damaged, or of other files, another order or another rank.
        """
        self.check_process()
        place = self.place()
        expected = self.state(0, 0, place)
        if set(state) != set(expected):
            raise ResumeError("expected a state that state_dict() of a loader of records made")
        for name in ("version", *self._order, "rank", "world_size"):
            if state[name] != expected[name]:
                raise ResumeError(
                    f"{name}: expected {expected[name]!r}, got {state[name]!r}: the state is of "
                    "another loader"
                )
        if sealed(state)["digest"] != state["digest"]:
            raise ResumeError("digest: the state was damaged or edited since it was made")
        epoch, delivered = state["epoch"], state["delivered"]
        self.close()
        if delivered >= self._batches(self._records(*place)) and delivered:
            epoch, delivered = epoch + 1, 0
        self._epoch, self._begin_at, self._placed = epoch, delivered, True

    def stats(self) -> Stats:
        """Counts and times of the latest pass."""
        latest = self._pass()
        return Stats() if latest is None else latest.stats()

    def close(self) -> None:
        """Ends the latest pass and its threads."""
        latest = self._pass()
        if latest is not None:
            latest.close()


class _Pass:
    """One pass over the batches."""

    def __init__(
        self, dataset: RecordBatchesBase, epoch: int, place: tuple[int, int], begin: int
    ) -> None:
        self._dataset, self._epoch, self._place = dataset, epoch, place
        self._numbers = dataset.numbers(epoch, *place)
        size = dataset.batch_size
        self._count = (self._numbers.shape[0] + size - 1) // size
        self._delivered = self._asked = min(begin, self._count)
        self._bytes = self._failures = 0
        self._wait = self._compute = self._make = 0.0
        self._left: float | None = None
        files = dataset.files
        self._queue: Any = _C.example_queue(
            dataset.parser.native,
            files.addresses.data_ptr(),
            files.sizes.data_ptr(),
            files.ends.data_ptr(),
            len(files.paths),
            files.offsets.data_ptr(),
            int(dataset.verify),
            int(dataset.skip),
            dataset.threads,
        )
        # Before the memory that the threads read goes; also at exit.
        self._end = weakref.finalize(self, _end, self._queue, files, dataset.parser)
        self._ask()

    def _ask(self) -> None:
        """Keeps as many batches in the making as are to be ahead."""
        size = self._dataset.batch_size
        end = min(self._count, self._delivered + self._dataset.prefetch)
        while self._asked < end:
            part = self._numbers[self._asked * size : (self._asked + 1) * size]
            _C.example_queue_submit(self._queue, part.data_ptr(), part.shape[0])
            self._asked += 1

    def __iter__(self) -> _Pass:
        return self

    def __next__(self) -> Any:
        self._dataset.check_process()
        if self._queue is None or self._delivered == self._count:
            self.close()
            raise StopIteration
        begin = time.perf_counter()
        if self._left is not None:
            self._compute += begin - self._left
        failure, columns, count, nbytes, _, _, took = _C.example_queue_take(self._queue)
        self._delivered += 1
        self._ask()
        self._left = time.perf_counter()
        self._wait += self._left - begin
        self._make += took / 1e9
        if failure is not None:
            self._failures += 1
            raise self._error(*failure)
        self._bytes += nbytes
        return self._dataset.parser.taken(columns, count)

    def _error(self, kind: int, fault: int, file: int, offset: int, message: str) -> Exception:
        if kind == 2:
            return OutOfMemoryError("there is no memory for a batch; use a smaller batch_size")
        path = self._dataset.files.paths[file] if file >= 0 else ""
        return damaged(path, FAULTS[fault] if fault else message, offset)

    # What a Mover asks for: an element in a flat form, and the element of it.

    def next_flat(self) -> list[Any]:
        """The next batch."""
        return [next(self)]

    def build(self, flat: list[Any]) -> Any:
        """The batch that `next_flat` gave."""
        return flat[0]

    def state_dict(self, undelivered: list[Any]) -> dict[str, Any]:
        """The position before the batches that were taken and not delivered."""
        delivered = self._delivered - len(undelivered)
        return self._dataset.state(self._epoch, delivered, self._place)

    def stats(self) -> Stats:
        """Counts and times."""
        return Stats(
            elements=self._delivered - self._failures,
            bytes=self._bytes,
            failures=self._failures,
            wait_seconds=self._wait,
            compute_seconds=self._compute,
            make_seconds=self._make,
            queued=0 if self._queue is None else _C.example_queue_ready(self._queue),
        )

    def close(self) -> None:
        """Ends the threads; there is no further batch."""
        self._queue = None
        self._end()


def _end(queue: Any, *_memory: Any) -> None:
    """Waits for the threads. What they use is still there, for the arguments keep it."""
    _C.example_queue_close(queue)


@cache
def batches_class() -> type[RecordBatchesBase]:
    """RecordBatchesBase as an IterableDataset, as libraries want it."""
    from torch.utils.data import IterableDataset

    class RecordBatches(RecordBatchesBase, IterableDataset):  # type: ignore[misc]
        __doc__ = RecordBatchesBase.__doc__

    return RecordBatches
