"""IterableRecordDataset: records in file order or shuffled, divided among workers and ranks."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from tensor_bridge._options import checks_keywords
from tensor_bridge.data import _accelerate, _sharding
from tensor_bridge.errors import InvalidOptionError, ResumeError
from tensor_bridge.records._paths import expand
from tensor_bridge.records._record_file import RecordStats, check_on_error
from tensor_bridge.records._sequence import RecordSequence
from tensor_bridge.records._shared import in_worker
from tensor_bridge.records._singles import singles
from tensor_bridge.records._spec_parser import SpecParser

if TYPE_CHECKING:
    import torch

__all__ = ["IterableRecordDatasetBase", "generator_of", "iterable_record_dataset_class"]

_VERSION = 1
# Number of records that are read at once without shuffle and batch_size.
_AT_ONCE = 64


def generator_of(*numbers: int) -> torch.Generator:
    """A random number generator seeded with these numbers, the same in every process."""
    import torch

    generator = torch.Generator(device="cpu")
    generator.manual_seed(zlib.crc32(repr(numbers).encode()) | (numbers[0] & 0x3FFFFFFF) << 32)
    return generator


@dataclass
class _Pass:
    """A pass over this process's part, and its position."""

    epoch: int
    part: tuple[int, int]
    sequence: RecordSequence
    block: int = 0  # number of the current block of records
    start: Any = None  # position of the sequence where that block begins
    delivered: int = 0  # number of records of that block that were delivered
    ended: bool = False


class IterableRecordDatasetBase:
    """Records of files as an iterable-style dataset of torch, read from front to back.

    The workers of a DataLoader divide the files among them, and so do ranks with ``shard=``. Files
    may be compressed, or URLs of fsspec. The order of a pass depends on the epoch: call `set_epoch`
    before each pass, as for a DistributedSampler. It also reaches persistent workers.

    ``shuffle=n`` shuffles the files, and each block of n records in the order of reading; a larger
    ``interleave=`` mixes more files into a block. The order depends only on seed, epoch and
    sharding.

    `state_dict` gives the exact next record, also in the workers of torchdata's StatefulDataLoader.
    It holds only positions: `load_state_dict` reads at most `shuffle` records again, and reads a
    compressed or remote file up to its position.

    Example:
      >>> from tensor_bridge import records
      >>> with records.Writer("/tmp/letters.tfrecord", overwrite=True) as writer:
      ...     for letter in (b"a", b"b", b"c"):
      ...         writer.write(letter)
      >>> list(records.IterableRecordDataset("/tmp/letters.tfrecord"))
      [b'a', b'b', b'c']
    """

    @checks_keywords
    def __init__(
        self,
        paths: Any,
        spec: Any = None,
        *,
        batch_size: int | None = None,
        drop_last: bool = False,
        shuffle: int = 0,
        seed: int = 0,
        interleave: int = 1,
        run: int = 16,
        shard: str | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        verify: bool = True,
        on_error: str = "raise",
    ) -> None:
        """Finds the files; none is opened yet.

        Args:
          paths: TFRecord files: a path, a pattern, a URL, or a list of them.
          spec: A dict of features, a `SequenceFeatures`, or None for raw records.
          batch_size: The number of records in a batch, or None for single examples. A batch is
            parsed as a whole, several times as fast: use ``DataLoader(dataset, batch_size=None)``.
          drop_last: Whether to leave out a last batch that is not full.
          shuffle: The number of records to shuffle at once; 0 keeps the order of the files.
          seed: Seed of the order.
          interleave: The number of files to read in turn.
          run: The number of records to read from a file in each turn.
          shard: How ranks divide the records: "file" (each file goes to one rank), "data" (each
            record goes to one rank), "auto" ("file" if there are enough files for all ranks and
            workers, else "data"), "all" (every rank gets all records). None means "auto" if `rank`
            is given, else "all". Workers divide the part of their rank in the same way.
          rank: The rank of this process; by default that of torch.distributed.
          world_size: The number of ranks.
          verify: Whether to compare the checksums of the records.
          on_error: "raise", or "skip" to continue at the next intact record; `stats` counts.

        Raises:
          RecordNotFoundError: A pattern matches nothing.
          InvalidOptionError: The spec or another keyword is invalid.
        """
        import torch

        for name, number, least in (
            *(("shuffle", shuffle, 0), ("interleave", interleave, 1), ("run", run, 1)),
            *([] if batch_size is None else [("batch_size", batch_size, 1)]),
        ):
            if number < least:
                raise InvalidOptionError(f"expected {name} of at least {least}, got {number!r}")
        if shard not in (None, "auto", "file", "data", "all"):
            raise InvalidOptionError(
                f"shard must be None, 'auto', 'file', 'data' or 'all', got {shard!r}"
            )
        self._place = _sharding.check_place(rank, world_size)
        self.paths = expand(paths)
        self._parser = SpecParser(spec)
        self._batch_size, self._drop_last = batch_size, drop_last
        self._shuffle, self._seed = shuffle, seed
        self._interleave, self._run = interleave, run
        self._shard = shard or ("auto" if rank is not None else "all")
        self._verify, self._on_error = verify, check_on_error(on_error)
        # In shared memory, so that persistent workers see set_epoch().
        self._epoch = torch.zeros(1, dtype=torch.int64, device="cpu").share_memory_()
        self._pass: _Pass | None = None
        self._resumed: dict[str, Any] | None = None
        self._stats = RecordStats()

    def __getstate__(self) -> dict[str, Any]:
        self._check_sharing()
        # torch.distributed is not initialised in a worker that is started by spawn.
        place = None if self._shard == "all" else self._place or _sharding.known_place()
        return {**self.__dict__, "_pass": None, "_place": place}

    def _check_sharing(self) -> None:
        if self._shard != "all" and self._part()[1] > _sharding.worker()[1]:
            _accelerate.refuse_shared_twice(
                ", or give accelerate a records.loader(paths, spec), which is taken as it is"
            )

    def set_epoch(self, epoch: int) -> None:
        """Sets the order of the passes that begin after this call.

        Args:
          epoch: At least 0.

        Raises:
          InvalidOptionError: `epoch` is negative.
        """
        if epoch < 0:
            raise InvalidOptionError(f"expected an epoch of at least 0, got {epoch!r}")
        self._epoch[0] = epoch

    def stats(self) -> RecordStats:
        """What this process has read in all passes, including records of other parts."""
        total = RecordStats(**vars(self._stats))
        if self._pass is not None:
            total.add(self._pass.sequence.stats())
        return total

    # ---- positions -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The position of the next record of the current pass, in numbers, strings and lists."""
        if self._resumed is not None:
            return self._resumed
        now = self._pass
        if now is None:
            return self._state(int(self._epoch), self._part())
        return self._state(now.epoch, now.part, now.block, now.start, now.delivered, now.ended)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next pass begin at a position from `state_dict`, in the epoch of that position.

        After the position of an ended pass, the next pass is empty. The dataset must have the same
        files and keywords, and the same number of workers and ranks when the pass begins.

        Raises:
          ResumeError: `state` is invalid, or comes from another dataset.
        """
        mine = self._state(0, (0, 1))
        if set(state) != set(mine):
            raise ResumeError("expected a state from state_dict() of this dataset")
        if state["version"] != _VERSION or state["dataset"] != mine["dataset"]:
            raise ResumeError(
                "this state comes from a dataset with other files or keywords; make the dataset as "
                "it was when the state was saved"
            )
        self._resumed = dict(state)

    def _state(
        self,
        epoch: int,
        part: tuple[int, int],
        block: int = 0,
        start: Any = None,
        delivered: int = 0,
        ended: bool = False,
    ) -> dict[str, Any]:
        order = (self._shuffle, self._seed, self._interleave, self._run, self._batch_size)
        return {
            "version": _VERSION,
            "dataset": zlib.crc32(repr((self.paths, order, self._shard)).encode()),
            "epoch": epoch,
            "part": list(part),
            "block": block,
            "start": start,
            "delivered": delivered,
            "ended": ended,
        }

    # ---- parts -----------------------------------------------------------------------------------

    def _part(self) -> tuple[int, int]:
        """The number of this process's part, and the number of parts."""
        number, workers = _sharding.worker()
        rank, world = 0, 1
        if self._shard != "all":
            rank, world = self._place or _sharding.place()
        return rank * workers + number, world * workers

    def _begin(self) -> _Pass:
        import torch

        state, self._resumed = self._resumed, None
        part, parts = self._part()
        if state is not None and state["part"] != [part, parts]:
            raise ResumeError(
                f"this state is of part {state['part'][0]} of {state['part'][1]}, and this process "
                f"delivers part {part} of {parts}; use as many workers and ranks as when it was "
                "saved"
            )
        epoch = int(self._epoch) if state is None else state["epoch"]
        paths = self.paths
        if self._shuffle:
            order = torch.randperm(len(paths), generator=generator_of(self._seed, epoch, -1))
            paths = [paths[i] for i in order.tolist()]
        by_file = len(paths) >= parts if self._shard in ("auto", "all") else self._shard == "file"
        if by_file:
            paths, part, parts = paths[part::parts], 0, 1
        sequence = RecordSequence(
            paths,
            cycle=self._interleave,
            run=self._run,
            part=part,
            parts=parts,
            verify=self._verify,
            on_error=self._on_error,
        )
        now = _Pass(epoch, self._part(), sequence)
        if state is not None:
            now.block, now.delivered, now.ended = state["block"], state["delivered"], state["ended"]
            if state["start"] is not None:
                sequence.seek(state["start"])
        now.start = sequence.position()
        return now

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.paths)} files, batch_size={self._batch_size})"

    def __iter__(self) -> Iterator[Any]:
        """A pass over this process's part.

        Raises:
          RecordError: A record is damaged or does not match the spec, or a file cannot be read.
          RecordNotFoundError: A file is missing.
          ResumeError: The loaded state comes from another number of workers or ranks.
          InvalidOptionError: Each rank has a part, of which accelerate would give it a part again.
        """
        self._check_sharing()
        now = self._begin()
        if self._pass is not None:
            self._stats.add(self._pass.sequence.stats())
        self._pass = now
        return self._records(now)

    def _records(self, now: _Pass) -> Iterator[Any]:
        import torch

        size = self._batch_size or 1
        at_once = self._shuffle or self._batch_size or _AT_ONCE
        at_once = -(-at_once // size) * size  # whole batches in each block
        part = now.part[0]
        parse = self._parser.parse_to_share if in_worker() else self._parser.parse
        while not now.ended:
            block = now.sequence.read(at_once)
            if block is None:
                now.ended = True
                break
            count = len(block)
            # The order follows from these numbers, so a state need not contain it.
            order = (
                torch.randperm(
                    count, generator=generator_of(self._seed, now.epoch, part, now.block)
                )
                if self._shuffle
                else None
            )
            if order is not None:
                block = block[order]
            for begin in range(now.delivered, count, self._batch_size or _AT_ONCE):
                # Count before the yield: a caller that asks for the state already has this record.
                if self._batch_size is None:
                    for value in singles(self._parser, block[begin : begin + _AT_ONCE]):
                        now.delivered += 1
                        yield value
                    continue
                now.delivered = begin + size
                if begin + size <= count or not self._drop_last:
                    yield parse(block[begin : begin + size])
            now.block += 1
            now.delivered = 0
            now.start = now.sequence.position()


@cache
def iterable_record_dataset_class() -> type[IterableRecordDatasetBase]:
    """Makes IterableRecordDataset. Imports torch for the base class."""
    from torch.utils.data import IterableDataset

    class IterableRecordDataset(IterableRecordDatasetBase, IterableDataset):  # type: ignore[misc]
        __doc__ = IterableRecordDatasetBase.__doc__
        __module__ = "tensor_bridge.records"
        __qualname__ = "IterableRecordDataset"

    return IterableRecordDataset
