"""Episodes of RLDS, and windows over their steps."""

from __future__ import annotations

import os
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from tensor_bridge._options import checks_keywords
from tensor_bridge.data import _accelerate, _sharding
from tensor_bridge.errors import InvalidOptionError, ResumeError
from tensor_bridge.records._collate import collate
from tensor_bridge.records._tfds import TfdsDataset
from tensor_bridge.records._tfds_values import Steps, stack

if TYPE_CHECKING:
    from tensor_bridge.records import RldsDataset

__all__ = ["RldsDatasetBase", "rlds", "rlds_dataset_class"]

_VERSION = 1


@dataclass
class _Pass:
    """A pass over this process's episodes, and its position."""

    epoch: int
    part: tuple[int, int]
    episode: int = 0  # among those of this process
    windows: int = 0  # of that episode that have been delivered


class RldsDatasetBase:
    """Episodes, or windows over their steps, for `torch.utils.data.DataLoader`; made by `rlds`.

    A `torch.utils.data.IterableDataset`. The workers of a DataLoader read different episodes, and
    workers that persist see the epoch that `set_epoch` sets.

    `state_dict` is exact to the window, also in the workers of torchdata's StatefulDataLoader.
    After `load_state_dict` only the episode of the next window is parsed again, and the windows
    before it are not decoded. Without ``window``, ``len()`` is the number of this rank's episodes.

    Attributes:
      episodes: The data set of episodes, a `TfdsDataset`, for random access and for `info`.
    """

    def __init__(
        self,
        episodes: TfdsDataset,
        window: int | None,
        stride: int,
        short: str,
        shuffle: bool,
        seed: int,
        shard: tuple[int, int],
        batch_size: int | None,
        drop_last: bool,
    ) -> None:
        """Takes the arguments of `rlds`."""
        import torch

        self.episodes = episodes
        self._window = window
        self._stride = stride
        self._short = short
        self._shuffle = shuffle
        self._seed = seed
        self._shard = shard
        self._batch_size, self._drop_last = batch_size, drop_last
        # Shared, so that persistent workers see the epoch that set_epoch() sets.
        self._epoch = torch.zeros(1, dtype=torch.int64, device="cpu").share_memory_()
        self._pass: _Pass | None = None
        self._resumed: _Pass | None = None

    def __getstate__(self) -> dict[str, Any]:
        self._check_sharing()
        return {**self.__dict__, "_pass": None}

    def _check_sharing(self) -> None:
        if self._shard[1] > 1:
            _accelerate.refuse_shared_twice("")

    def __len__(self) -> int:
        """The number of this rank's episodes.

        Raises:
          TypeError: Elements are windows, whose number is known only when the episodes are parsed.
        """
        if self._window is not None:
            raise TypeError("the number of windows is known only when all episodes are parsed")
        index, count = self._shard
        return len(range(index, len(self.episodes), count))

    def set_epoch(self, epoch: int) -> None:
        """Sets the order of a shuffled dataset for the following iterations.

        Args:
          epoch: At least 0.
        """
        if epoch < 0:
            raise InvalidOptionError(f"expected an epoch of at least 0, got {epoch!r}")
        self._epoch[0] = epoch

    def state_dict(self) -> dict[str, Any]:
        """Returns the position of the next element of the current pass, as numbers and lists."""
        now = self._resumed or self._pass or _Pass(int(self._epoch), _sharding.worker())
        return self._state(now)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next pass begin at a position from `state_dict`, in the epoch of that pass.

        A pass that had ended has no elements left. The data set, the keywords, and the number of
        workers have to be the same.

        Raises:
          ResumeError: It is not such a state, or it is of another dataset.
        """
        mine = self._state(_Pass(0, (0, 1)))
        if set(state) != set(mine):
            raise ResumeError("expected a state from state_dict() of this dataset")
        if state["version"] != _VERSION or state["dataset"] != mine["dataset"]:
            raise ResumeError(
                "this state is of another data set or other keywords; make the dataset as it was "
                "when the state was saved"
            )
        number, parts = state["part"]
        self._resumed = _Pass(state["epoch"], (number, parts), state["episode"], state["windows"])

    def _state(self, now: _Pass) -> dict[str, Any]:
        order = (self._window, self._stride, self._short, self._shuffle, self._seed, self._shard)
        data = (self.episodes.info.name, self.episodes.split, len(self.episodes))
        return {
            "version": _VERSION,
            "dataset": zlib.crc32(repr((data, order)).encode()),
            "epoch": now.epoch,
            "part": list(now.part),
            "episode": now.episode,
            "windows": now.windows,
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.episodes!r}, window={self._window})"

    def __iter__(self) -> Iterator[Any]:
        """Begins a pass over this process's episodes.

        Raises:
          RecordError: A file or an episode is damaged.
          ResumeError: A loaded state is of another number of workers.
          InvalidOptionError: ``shard=`` gave each rank a part, of which accelerate would give it a
            part again.
        """
        self._check_sharing()
        part = _sharding.worker()
        now, self._resumed = self._resumed or _Pass(int(self._epoch), part), None
        if now.part != part:
            raise ResumeError(
                f"this state is of worker {now.part[0]} of {now.part[1]}, and this process is "
                f"{part[0]} of {part[1]}; use as many workers as when it was saved"
            )
        self._pass = now
        elements = self._elements(now)
        return elements if self._batch_size is None else self._batches(elements, self._batch_size)

    def _batches(self, elements: Iterator[Any], size: int) -> Iterator[Any]:
        while batch := list(islice(elements, size)):
            if len(batch) == size or not self._drop_last:
                yield collate(batch)

    def _elements(self, now: _Pass) -> Iterator[Any]:
        for number in self._numbers(now)[now.episode :]:
            episode = self.episodes[number]
            if self._window is None:
                now.episode += 1
                yield episode
                continue
            # Positions move before the yield: whoever asks for the state has this element.
            for window in self._windows(episode, self._window, now.windows):
                now.windows += 1
                yield window
            now.episode, now.windows = now.episode + 1, 0

    def _numbers(self, now: _Pass) -> list[int]:
        """The numbers of this process's episodes, in the order of reading."""
        import torch

        numbers = list(range(len(self.episodes)))
        if self._shuffle:
            generator = torch.Generator().manual_seed(self._seed + now.epoch)
            numbers = torch.randperm(len(numbers), generator=generator).tolist()
        index, count = self._shard
        number, workers = now.part
        return numbers[index::count][number::workers]

    def _windows(
        self, episode: dict[str, Any], window: int, first: int
    ) -> Iterator[dict[str, Any]]:
        """The windows of an episode from number `first` on."""
        steps: Steps = episode["steps"]
        length = len(steps)
        if length < window and self._short == "keep":
            window = length
        # A step that is in several windows is decoded once.
        decoded: dict[int, Any] = {}
        begins = range(0, length - window + 1 if window else 0, self._stride)
        for begin in begins[first:]:
            decoded = {
                i: decoded[i] if i in decoded else steps[i] for i in range(begin, begin + window)
            }
            yield {**episode, "steps": stack(list(decoded.values()))}


@cache
def rlds_dataset_class() -> type[RldsDatasetBase]:
    """Makes RldsDataset. Imports torch for the base class."""
    from torch.utils.data import IterableDataset

    class RldsDataset(RldsDatasetBase, IterableDataset):  # type: ignore[misc]
        __doc__ = RldsDatasetBase.__doc__
        __module__ = "tensor_bridge.records"
        __qualname__ = "RldsDataset"

    return RldsDataset


def _check_count(name: str, count: Any, what: str) -> None:
    if not isinstance(count, int) or count < 1:
        raise InvalidOptionError(f"expected {name}= of at least 1 {what}, got {count!r}")


@checks_keywords
def rlds(
    folder: str | os.PathLike[str],
    split: str = "train",
    *,
    window: int | None = None,
    stride: int = 1,
    short: str = "drop",
    features: Collection[str] | None = None,
    decode: bool = True,
    decoder: str | None = None,
    shuffle: bool = False,
    seed: int = 0,
    shard: tuple[int, int] = (0, 1),
    batch_size: int | None = None,
    drop_last: bool = False,
    on_error: str = "raise",
) -> RldsDataset:
    """Opens a data set of episodes (RLDS, Open X-Embodiment) that TFDS has prepared.

    Each episode is parsed once. Images are decoded only for the steps of windows, and once for all
    windows that share a step.

    Args:
      folder: As for `tfds`.
      split: As for `tfds`; it counts episodes.
      window: The number of steps in an element. None gives whole episodes, whose "steps" are a
        `Steps` that decodes each step when it is accessed.
      stride: The number of steps from the beginning of a window to the beginning of the next one.
      short: "drop" or "keep" episodes with fewer steps than a window; a kept episode becomes one
        window of its length.
      features: As for `tfds`, for example ``["steps/observation/image", "steps/action"]``.
      decode: As for `tfds`.
      decoder: As for `tfds`.
      shuffle: Whether to draw the order of the episodes, a new one after `set_epoch`. The windows
        of an episode stay together.
      seed: Seed of that order.
      shard: ``(rank, world_size)``: reads only the episodes of this rank. The workers of a
        DataLoader always divide the episodes.
      batch_size: The number of windows, or of episodes, in a batch, which `collate` makes; None
        gives them one by one. Use ``DataLoader(dataset, batch_size=None)``.
      drop_last: Whether each process leaves out a last batch that is not full.
      on_error: As for `tfds`.

    Returns:
      An `RldsDataset`. Its elements are dicts with the features of an episode. The "steps" of a
      window have the structure of a step, with CPU values that have a leading dimension of
      `window`.

    Raises:
      InvalidOptionError: A keyword is invalid, or the data set has no Dataset "steps".
      RecordError, RecordNotFoundError, FrameworkError: As for `tfds`.
    """
    _check_count("window", 1 if window is None else window, "step")
    _check_count("stride", stride, "step")
    _check_count("batch_size", 1 if batch_size is None else batch_size, "element")
    if short not in ("drop", "keep"):
        raise InvalidOptionError(f'expected short="drop" or "keep", got {short!r}')
    index, count = shard
    if not 0 <= index < count:
        raise InvalidOptionError(f"expected shard=(rank, world_size), got {shard!r}")
    episodes = TfdsDataset(
        folder, split, features=features, decode=decode, decoder=decoder, on_error=on_error
    )
    if not episodes.has_dataset("steps"):
        raise InvalidOptionError(
            f'{episodes.info.name}: expected a Dataset "steps" among the features, as in RLDS; '
            "records.tfds() reads other data sets"
        )
    cls: Any = rlds_dataset_class()
    made: RldsDataset = cls(
        *(episodes, window, stride, short, shuffle, seed, tuple(shard), batch_size, drop_last)
    )
    return made
