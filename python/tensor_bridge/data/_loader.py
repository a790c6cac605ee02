"""loader: a tf.data pipeline, ready for a training loop in torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from tensor_bridge.data._dataset import TorchDatasetBase, torch_dataset_class
from tensor_bridge.data._device import Mover
from tensor_bridge.data._progress import with_progress
from tensor_bridge.data._service import Service
from tensor_bridge.data._stats import Stats
from tensor_bridge.errors import InvalidOptionError

__all__ = ["Loader", "loader"]


class Loader:
    """What `loader` makes: an iterable over epochs, with a position that can be saved."""

    def __init__(
        self, dataset: TorchDatasetBase, *, device: Any, pin_memory: bool, progress: bool
    ) -> None:
        self.dataset = dataset
        self._device = device
        self._pin = bool(pin_memory)
        self._progress = bool(progress)
        self._mover: Mover | None = None
        self._pass: Any = None
        if device is not None or pin_memory:
            Mover(iter(()), device, self._pin)  # refuses a device that is not here at once

    def __len__(self) -> int:
        """The number of elements of an epoch; TypeError where it is not known."""
        return len(self.dataset)

    def __iter__(self) -> Iterator[Any]:
        """Begins an epoch."""
        self._pass = self.dataset.elements()
        elements: Iterator[Any] = self._pass
        self._mover = None
        if self._device is not None or self._pin:
            self._mover = Mover(self._pass, self._device, self._pin)
            elements = self._mover
        if not self._progress:
            return elements
        try:
            total = len(self.dataset)
        except TypeError:
            total = None
        return with_progress(
            elements,
            total=total,
            first=self.dataset.position,
            epoch=self.dataset.epoch - 1,
            describe=lambda: f"waits {100 * self.stats().wait_share:.0f}%",
        )

    def set_epoch(self, epoch: int) -> None:
        """As `TorchDataset.set_epoch`."""
        self.dataset.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """As `TorchDataset.state_dict`; elements on their way to the device are part of it."""
        if self._mover is not None and not self._mover.finished:
            state: dict[str, Any] = self._pass.state_dict(self._mover.undelivered())
            return state
        return self.dataset.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As `TorchDataset.load_state_dict`."""
        self._mover = None
        self.dataset.load_state_dict(state_dict)

    def stats(self) -> Stats:
        """Counts and times of the latest epoch: who waits for whom."""
        return self.dataset.stats()

    def close(self) -> None:
        """Ends the latest epoch, its thread, and what it made ahead."""
        self._mover = None
        self.dataset.close()


def loader(
    ds: Any,
    *,
    device: Any = None,
    pin_memory: bool = False,
    prefetch: int = 2,
    strings: Literal["tensor", "list"] = "tensor",
    copy: bool | None = None,
    on_write: Literal["copy", "raise", "alias"] = "copy",
    raw: bool = False,
    resume: Literal["auto", "exact", "position", "replay"] = "auto",
    on_error: Literal["raise", "skip"] = "raise",
    shard: Literal["auto", "file", "data", "all"] | None = "auto",
    rank: int | None = None,
    world_size: int | None = None,
    equal_steps: bool = False,
    service: str | None = None,
    sharding: str = "dynamic",
    job_name: str | None = None,
    timeout: float | None = 60.0,
    progress: bool = False,
) -> Loader:
    """Makes a loader over a tf.data.Dataset: what it yields are torch values.

    Args:
      ds: As in `TorchDataset`, as are all keywords that are not named here.
      device: Where the tensors go. With "cuda" each element is copied into pinned memory and
        transferred on a stream of its own while the one before is computed on.
      pin_memory: Without a device: the tensors are in pinned memory.
      prefetch: As in `TorchDataset`.
      strings: As in `TorchDataset`.
      copy: As in `TorchDataset`.
      on_write: As in `TorchDataset`.
      raw: As in `TorchDataset`.
      resume: As in `TorchDataset`.
      on_error: As in `TorchDataset`.
      shard: As in `TorchDataset`; None is "all". By default each element goes to one rank.
      rank: As in `TorchDataset`.
      world_size: As in `TorchDataset`.
      equal_steps: As in `TorchDataset`.
      service: Address of a tf.data service dispatcher, "grpc://host:port"; its workers run the
        pipeline. ``shard`` does not apply then.
      sharding: How its workers share the dataset: "dynamic" (each element once), "off" (each worker
        gives everything), "file", "data", "file_or_data", "hint".
      job_name: Ranks with the same name take their elements from one job. By default all ranks of
        torch.distributed do, and without it nobody else.
      timeout: Seconds without an element after which `DataServiceError` is raised; None waits for
        good, as TensorFlow does for a dead worker. Applies with ``service`` only.
      progress: Shows a bar (tqdm or rich).

    Raises:
      UnsupportedDeviceError: torch has no such device here.
      InvalidOptionError: A keyword that means nothing.

    Example:
      >>> import tensorflow as tf, tensor_bridge
      >>> ds = tf.data.Dataset.range(6).shuffle(6, seed=1).batch(3)
      >>> loader = tensor_bridge.data.loader(ds)
      >>> for epoch in range(2):
      ...     print([sorted(batch.shape) for batch in loader])
      [[3], [3]]
      [[3], [3]]
    """
    if service is None and (sharding != "dynamic" or job_name is not None):
        raise InvalidOptionError("sharding= and job_name= need service=")
    distributed = None if service is None else Service(service, sharding, job_name, timeout)
    dataset = torch_dataset_class()(
        ds,
        strings=strings,
        copy=copy,
        on_write=on_write,
        raw=raw,
        prefetch=prefetch,
        resume=resume,
        on_error=on_error,
        shard="all" if shard is None else shard,
        rank=rank,
        world_size=world_size,
        equal_steps=equal_steps,
        _service=distributed,
    )
    return Loader(dataset, device=device, pin_memory=pin_memory, progress=progress)
