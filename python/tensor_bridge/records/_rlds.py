"""Episodes of RLDS, and windows over their steps."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from tensor_bridge.errors import InvalidOptionError
from tensor_bridge.records._tfds import TfdsDataset
from tensor_bridge.records._tfds_values import Steps, stack

if TYPE_CHECKING:
    from tensor_bridge.records import RldsDataset

__all__ = ["RldsDatasetBase", "rlds", "rlds_dataset_class"]


class RldsDatasetBase:
    """Episodes, or windows over their steps, for `torch.utils.data.DataLoader`; made by `rlds`.

    A `torch.utils.data.IterableDataset`. The workers of a DataLoader read different episodes.

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
    ) -> None:
        """Takes the arguments of `rlds`."""
        self.episodes = episodes
        self._window = window
        self._stride = stride
        self._short = short
        self._shuffle = shuffle
        self._seed = seed
        self._shard = shard
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the order of a shuffled dataset for the following iterations."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        for number in self._numbers():
            episode = self.episodes[number]
            if self._window is None:
                yield episode
            else:
                yield from self._windows(episode, self._window)

    def _numbers(self) -> list[int]:
        """The numbers of this process's episodes, in the order of reading."""
        import torch
        from torch.utils.data import get_worker_info

        numbers = list(range(len(self.episodes)))
        if self._shuffle:
            generator = torch.Generator().manual_seed(self._seed + self._epoch)
            numbers = torch.randperm(len(numbers), generator=generator).tolist()
        index, count = self._shard
        numbers = numbers[index::count]
        worker = get_worker_info()
        return numbers if worker is None else numbers[worker.id :: worker.num_workers]

    def _windows(self, episode: dict[str, Any], window: int) -> Iterator[dict[str, Any]]:
        steps: Steps = episode["steps"]
        length = len(steps)
        if length < window and self._short == "keep":
            window = length
        # A step that is in several windows is decoded once.
        decoded: dict[int, Any] = {}
        for begin in range(0, length - window + 1 if window else 0, self._stride):
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


def _check_steps(name: str, count: Any) -> None:
    if not isinstance(count, int) or count < 1:
        raise InvalidOptionError(f"expected {name}= of at least 1 step, got {count!r}")


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

    Returns:
      An `RldsDataset`. Its elements are dicts with the features of an episode. The "steps" of a
      window have the structure of a step, with CPU values that have a leading dimension of
      `window`.

    Raises:
      InvalidOptionError: A keyword is invalid, or the data set has no Dataset "steps".
      RecordError, RecordNotFoundError, FrameworkError: As for `tfds`.
    """
    _check_steps("window", 1 if window is None else window)
    _check_steps("stride", stride)
    if short not in ("drop", "keep"):
        raise InvalidOptionError(f'expected short="drop" or "keep", got {short!r}')
    index, count = shard
    if not 0 <= index < count:
        raise InvalidOptionError(f"expected shard=(rank, world_size), got {shard!r}")
    episodes = TfdsDataset(folder, split, features=features, decode=decode, decoder=decoder)
    if not episodes.has_dataset("steps"):
        raise InvalidOptionError(
            f'{episodes.info.name}: expected a Dataset "steps" among the features, as in RLDS; '
            "records.tfds() reads other data sets"
        )
    cls: Any = rlds_dataset_class()
    made: RldsDataset = cls(episodes, window, stride, short, shuffle, seed, tuple(shard))
    return made
