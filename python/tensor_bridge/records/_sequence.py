"""RecordSequence: the records of several files in a fixed order, from any position.

Not for: shuffling, parsing (`_iterable`).
"""

from __future__ import annotations

from typing import Any

from tensor_bridge.errors import RecordError
from tensor_bridge.records._batch import RecordBatch
from tensor_bridge.records._record_file import RecordFile, RecordStats

__all__ = ["RecordSequence", "joined"]


def joined(parts: list[RecordBatch]) -> RecordBatch:
    """Joins batches to one batch that shares their memory."""
    import torch

    if len(parts) == 1:
        return parts[0]
    base = min(part.address for part in parts)
    begins = torch.cat([part.begins + (part.address - base) for part in parts])
    sizes = torch.cat([part.sizes for part in parts])
    return RecordBatch([part.owner for part in parts], base, begins, sizes)


class RecordSequence:
    """Reads files one after the other, or several files in turn.

    It takes `run` records from each of `cycle` files in turn. When a file ends, the next file takes
    its place. It delivers one of every `parts` records, beginning with record number `part`.
    """

    def __init__(
        self,
        paths: list[str],
        *,
        cycle: int = 1,
        run: int = 16,
        part: int = 0,
        parts: int = 1,
        verify: bool = True,
        on_error: str = "raise",
    ) -> None:
        """Opens no file yet. `verify` and `on_error` are those of a RecordFile."""
        self._paths = paths
        self._run = run if cycle > 1 else None
        self._part, self._parts = part, parts
        self._options: dict[str, Any] = {"verify": verify, "on_error": on_error}
        self._stats = RecordStats()
        self._slots: list[tuple[int, RecordFile] | None] = [None] * min(cycle, max(len(paths), 1))
        self._next_file = 0
        self._turn = 0
        self._left = self._run
        self._seen = 0

    def stats(self) -> RecordStats:
        """Counts of what was read, including the records of other parts."""
        total = RecordStats(**vars(self._stats))
        for slot in self._slots:
            if slot is not None:
                total.add(slot[1].stats())
        return total

    def position(self) -> list[Any]:
        """The position, in numbers and lists."""
        slots = [None if slot is None else [slot[0], *slot[1].tell()] for slot in self._slots]
        return [slots, self._next_file, self._turn, self._left, self._seen]

    def seek(self, position: list[Any]) -> None:
        """Goes to a position from `position`. Raises the errors of RecordFile."""
        slots, self._next_file, self._turn, self._left, self._seen = position
        self._slots = []
        for slot in slots:
            if slot is None:
                self._slots.append(None)
                continue
            number, *place = slot
            file = RecordFile(self._paths[number], **self._options)
            file.seek(tuple(place))
            self._slots.append((number, file))

    def read(self, count: int) -> RecordBatch | None:
        """The next `count` records; fewer at the end, and then None.

        Raises the errors of RecordFile.read.
        """
        parts: list[RecordBatch] = []
        missing = count
        while missing:
            # One of `parts` records is delivered, so `missing` records may need that many.
            try:
                batch = self._read(missing * self._parts if self._parts > 1 else missing)
            except RecordError:
                if not parts:
                    raise
                break  # the next call raises it again, after the records before
            if batch is None:
                break
            if self._parts > 1:
                first = (self._part - self._seen) % self._parts
                self._seen += len(batch)
                batch = batch[first :: self._parts]
            if len(batch):
                parts.append(batch)
                missing -= len(batch)
        return joined(parts) if parts else None

    def _read(self, most: int) -> RecordBatch | None:
        """Reads records from the file whose turn it is."""
        while True:
            slot = self._slots[self._turn]
            if slot is None:
                if self._next_file == len(self._paths):
                    if all(each is None for each in self._slots):
                        return None
                    self._pass_turn()
                    continue
                file = RecordFile(self._paths[self._next_file], **self._options)
                self._slots[self._turn] = self._next_file, file
                self._next_file += 1
                continue
            batch = slot[1].read(most if self._left is None else min(most, self._left))
            if batch is None:
                self._stats.add(slot[1].stats())
                slot[1].close()
                self._slots[self._turn] = None
                if self._next_file == len(self._paths):
                    self._pass_turn()
                continue
            if self._left is not None:
                self._left -= len(batch)
                if not self._left:
                    self._pass_turn()
            return batch

    def _pass_turn(self) -> None:
        self._turn = (self._turn + 1) % len(self._slots)
        self._left = self._run
