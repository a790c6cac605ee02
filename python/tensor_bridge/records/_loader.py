"""loader(): whole batches of records, which native threads parse ahead of the training step."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C
from tensor_bridge._frameworks import ensure
from tensor_bridge._options import checks_keywords
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
    "a loader of records does not work in another process, which does not have its threads; make "
    "the loader there, or use DataLoader(RecordDataset(...), num_workers=n)"
)


@checks_keywords
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
    index: str | os.PathLike[str] | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    equal_steps: bool = False,
) -> Loader:
    """Makes a loader of batches of parsed records.

    Native threads read, check and parse whole batches ahead, without the GIL. The order is the same
    with any number of threads. Files are mapped; compressed files and URLs are read into memory and
    decompressed there. Each rank gets every world_size-th record. Rank and world size are those of
    torch.distributed when a pass begins.

    Args:
      paths: A path, a glob, a URL of fsspec, or an iterable of them.
      spec: Features by key, `SequenceFeatures`, or None for raw records.
      batch_size: The number of records in a batch; the last batch may have fewer.
      shuffle: Whether to draw a new order of all records for every epoch.
      seed: Seed of that order; epoch n uses ``seed + n``.
      drop_last: Whether to leave out the last batch if it has fewer records.
      device: As in `tensor_bridge.data.loader`.
      pin_memory: As in `tensor_bridge.data.loader`.
      threads: The number of threads that make batches.
      prefetch: The number of batches to make ahead.
      verify: Whether to compare the checksums of the records' bytes.
      on_error: "raise", or "skip" to leave out what does not match its checksum. A batch then has
        fewer records, down to none. `Loader.stats` counts what was left out, and a warning names
        each file once.
      index: A file that keeps the places of the records, so that opening reads no file of records;
        as for `RecordDataset`, also in what the files have to be.
      rank: The rank of this process; by default that of torch.distributed.
      world_size: The number of ranks; by default that of torch.distributed.
      equal_steps: Whether to leave out the last records, so that all ranks get the same number.

    Returns:
      A `tensor_bridge.data.Loader`. A batch is the result of `parse_example`; for a
      `SequenceFeatures` a dict of three such dicts, "context", "sequence" and "lengths"; without a
      spec a StringTensor. The tensors of a batch own one block of memory. The position can be saved
      and loaded exactly.

    Raises:
      RecordNotFoundError: A file is missing, or a pattern matches nothing.
      RecordError: A file is damaged. It is raised when the batch is requested; the next call
        continues after that batch, and with the next file if a record's length is damaged or
        missing. That damage is raised by ``len()`` too, and with `shuffle` when a pass begins.
      InvalidOptionError, UnsupportedDtypeError: A keyword or the spec is invalid.
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
        index=None if index is None else os.fspath(index),
        place=_sharding.check_place(rank, world_size),
        equal_steps=equal_steps,
    )
    return loader_class()(dataset, device=device, pin_memory=pin_memory)


class RecordBatchesBase:
    """The batches of a `loader`: one pass after the other, with a saved position."""

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
        index: str | None,
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
        self.files = MappedFiles(expand(paths), skip=self.skip, verify=verify, index=index)
        self.batch_size, self.threads, self.prefetch = batch_size, threads, prefetch
        self.drop_last = drop_last
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
        # A weak reference: a pass refers to this object, and a cycle would keep threads alive.
        self._pass: Callable[[], _Pass | None] = lambda: None
        self._placed = False  # whether a position was set after the latest pass began

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.files.paths)} files, batch_size={self.batch_size})"

    def __reduce__(self) -> Any:
        raise WorkerProcessError(_ELSEWHERE)

    def check_process(self) -> None:
        """Raises WorkerProcessError in a process that was forked."""
        if os.getpid() != self._process:
            raise WorkerProcessError(_ELSEWHERE)

    def __iter__(self) -> Iterator[Any]:
        return self.elements()

    def __len__(self) -> int:
        """The number of batches in a pass of this rank."""
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

    def numbers(self, epoch: int, rank: int, world_size: int, begin: int) -> torch.Tensor | None:
        """The numbers of a pass's records in order, int64 of shape ``(count,)``.

        None if they are every `world_size`-th record of the files from `rank` on, and are to be
        found while they are read: a pass over large files need not wait until all their lengths
        have been read.
        """
        import torch

        order = self._order
        shared = world_size > 1 and (order["equal_steps"] or self.files.located)
        if not (order["shuffle"] or self.skip or begin or shared):
            return None
        count = len(self.files)
        if order["shuffle"]:
            generator = torch.Generator().manual_seed(self.seed + epoch)
            drawn = torch.randperm(count, generator=generator, device="cpu")
        else:
            drawn = torch.arange(count, device="cpu")
        mine = drawn[rank::world_size][: self._records(rank, world_size)]
        return mine[begin * self.batch_size :].contiguous()

    # ---- what a Loader calls ---------------------------------------------------------------------

    def elements(self) -> _Pass:
        """Begins a pass, at the loaded position or else at the beginning of the next epoch."""
        self.check_process()
        self.close()
        begun = _Pass(self, self._epoch, self.place(), self._begin_at)
        self._pass, self._begin_at, self._placed = weakref.ref(begun), 0, False
        self._epoch += 1
        return begun

    def set_epoch(self, epoch: int) -> None:
        """Sets the number of the next pass. It starts at its first batch."""
        if not 0 <= epoch <= _LARGEST:
            raise InvalidOptionError(f"expected an int from 0 to {_LARGEST}, got {epoch!r}")
        self._epoch, self._begin_at, self._placed = epoch, 0, True

    def state_dict(self) -> dict[str, Any]:
        """The position of the latest pass, or the loaded position."""
        self.check_process()
        latest = self._pass()
        if latest is not None and not self._placed:
            return latest.state_dict([])
        return self.state(self._epoch, self._begin_at, self.place())

    def state(self, epoch: int, delivered: int, place: tuple[int, int]) -> dict[str, Any]:
        """The position after `delivered` batches."""
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
        """Makes the next pass begin at a saved position.

        Raises:
          ResumeError: `state` is damaged, or comes from other files, another order or another rank.
        """
        self.check_process()
        place = self.place()
        expected = self.state(0, 0, place)
        if set(state) != set(expected):
            raise ResumeError("expected a state from state_dict() of a loader of records")
        for name in ("version", *self._order, "rank", "world_size"):
            if state[name] != expected[name]:
                raise ResumeError(
                    f"{name}: expected {expected[name]!r}, got {state[name]!r}: the state comes "
                    "from another loader"
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
        if latest is not None:
            return latest.stats()
        found = self.files.skipped
        return Stats(skipped_records=found.skipped_records, skipped_bytes=found.skipped_bytes)

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
        self._delivered = self._begin = begin
        self._bytes = self._failures = 0
        found = dataset.files.skipped
        self._skipped, self._skipped_bytes = found.skipped_records, found.skipped_bytes
        self._wait = self._compute = self._make = 0.0
        self._left: float | None = None
        self._plan = dataset.parser.plan
        files = dataset.files
        self._numbers = numbers = dataset.numbers(epoch, *place, begin)
        ends, offsets = (None, None) if numbers is None else files.places()
        self._queue: Any = _C.example_queue(
            dataset.parser.native,
            files.addresses.data_ptr(),
            files.sizes.data_ptr(),
            _address(ends),
            len(files.paths),
            _address(offsets),
            _address(numbers),
            0 if numbers is None else numbers.shape[0],
            *place,
            dataset.batch_size,
            dataset.prefetch,
            dataset.threads,
            int(dataset.verify),
            int(dataset.skip),
            int(dataset.drop_last),
        )
        # Ends the threads before the memory that they read is released, also at exit.
        self._end = weakref.finalize(self, _end, self._queue, files, dataset.parser, numbers)

    def __iter__(self) -> _Pass:
        return self

    def __next__(self) -> Any:
        self._dataset.check_process()
        if self._queue is None:
            raise StopIteration
        begin = time.perf_counter()
        if self._left is not None:
            self._compute += begin - self._left
        taken = _C.example_queue_take(self._queue, self._plan)
        if taken is None:
            self.close()
            raise StopIteration
        failure, made, count, nbytes, skipped, skipped_bytes, took = taken
        self._delivered += 1
        self._left = time.perf_counter()
        self._wait += self._left - begin
        self._make += took / 1e9
        self._skipped += skipped
        self._skipped_bytes += skipped_bytes
        if failure is not None:
            self._failures += 1
            raise self._error(*failure)
        self._bytes += nbytes
        if skipped:
            self._tell()
        return self._dataset.parser.taken(made, count)

    def _tell(self) -> None:
        """Warns of the damage in the latest batch."""
        size = self._dataset.batch_size
        begin = (self._delivered - 1 - self._begin) * size
        assert self._numbers is not None  # they are needed where damage is skipped
        self._dataset.files.tell_of(self._numbers[begin : begin + size])

    def _error(self, kind: int, fault: int, file: int, offset: int, message: str) -> Exception:
        if kind == 2:
            return OutOfMemoryError("there is no memory for a batch; use a smaller batch_size")
        path = self._dataset.files.paths[file] if file >= 0 else ""
        return damaged(path, FAULTS[fault] if fault else message, offset)

    # What a Mover calls: next_flat() for a flat element, build() for the element.

    def next_flat(self) -> list[Any]:
        """The next batch."""
        return [next(self)]

    def build(self, flat: list[Any]) -> Any:
        """The batch from `next_flat`."""
        return flat[0]

    def state_dict(self, undelivered: list[Any]) -> dict[str, Any]:
        """The position before the batches that were taken but not delivered."""
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
            skipped_records=self._skipped,
            skipped_bytes=self._skipped_bytes,
        )

    def close(self) -> None:
        """Ends the threads and the pass."""
        self._queue = None
        self._end()


def _address(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr() or 1  # torch gives 0 for an empty one


def _end(queue: Any, *_memory: Any) -> None:
    """Waits for the threads. The arguments keep the memory that the threads use."""
    _C.example_queue_close(queue)


@cache
def batches_class() -> type[RecordBatchesBase]:
    """RecordBatchesBase as an IterableDataset, which other libraries require."""
    from torch.utils.data import IterableDataset

    class RecordBatches(RecordBatchesBase, IterableDataset):  # type: ignore[misc]
        __doc__ = RecordBatchesBase.__doc__

    return RecordBatches
