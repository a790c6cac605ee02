"""loader: a tf.data pipeline, ready for a training loop in torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from tensor_bridge._frameworks import ensure
from tensor_bridge._options import checks_keywords_or
from tensor_bridge.data import _accelerate, _lightning
from tensor_bridge.data._dataset import TorchDatasetBase, torch_dataset_class
from tensor_bridge.data._device import Mover, pins
from tensor_bridge.data._service import Service
from tensor_bridge.data._stats import Stats
from tensor_bridge.errors import InvalidOptionError, UnsupportedTypeError

if TYPE_CHECKING:
    from tensor_bridge.data import Loader


def _as_it_is(element: Any) -> Any:
    return element


class LoaderBase:
    """Returned by `loader`: an iterable over epochs, with a position that can be saved.

    It derives from `torch.utils.data.DataLoader`, without batching and worker processes, so
    libraries that check for one accept it. It iterates over its own dataset, with its own device
    and position.
    """

    batch_size = None
    sampler = None
    batch_sampler = None
    drop_last = False
    num_workers = 0
    collate_fn = staticmethod(_as_it_is)
    generator = None
    timeout = 0.0
    worker_init_fn = None
    multiprocessing_context = None
    prefetch_factor = None
    persistent_workers = False
    pin_memory_device = ""
    in_order = True

    def __init__(
        self,
        dataset: TorchDatasetBase,
        *,
        device: Any = None,
        pin_memory: bool = False,
        sampler: None = None,
        batch_sampler: None = None,
    ) -> None:
        # Lightning's predict() makes a new loader from the public attributes, with sampler=None and
        # batch_sampler=None.
        self.dataset = dataset
        self.device = device
        self.pin_memory = pins(pin_memory)
        self._prepared = False
        self._told_of_files = self._told_of_length = False
        self._skips_empty = False  # skips a finished pass and begins the next one
        self._mover: Mover | None = None
        self._pass: Any = None
        if device is not None:
            Mover(iter(()), device, self.pin_memory)  # refuses a missing device at once

    def __repr__(self) -> str:
        return f"Loader({self.dataset!r}, device={self.device!r}, pin_memory={self.pin_memory!r})"

    def __len__(self) -> int:
        """The number of elements of an epoch; TypeError if it is not known."""
        return len(self.dataset)

    def _has_length(self) -> bool:
        try:
            len(self.dataset)
        except TypeError:
            return False
        return True

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: Any) -> NoReturn:
        raise UnsupportedTypeError(
            "a Loader yields batches and has no single examples, so it is no dataset for another "
            "DataLoader; iterate it, or give DataLoader(TorchDataset(ds), batch_size=None)"
        )

    def __iter__(self) -> Iterator[Any]:
        """Begins an epoch."""
        _refuse_keras(sys._getframe(1))
        elements = self._begin()
        if self._skips_empty:
            self._skips_empty = False
            if self._mover is None:
                elements = self._mover = Mover(self._pass, None, False)
            if not self._mover.begin():
                elements = self._begin()
        return elements

    def _begin(self) -> Iterator[Any]:
        self._pass = self.dataset.elements()
        self._mover = None
        device = self.device
        if device is None and self._prepared:
            device = _accelerate.device()
        if device is None and not self.pin_memory and not self._prepared:
            return self._pass  # type: ignore[no-any-return]
        self._mover = Mover(self._pass, device, self.pin_memory)
        return _accelerate.announced(self._mover) if self._prepared else self._mover

    # ---- accelerate ------------------------------------------------------------------------------

    @property
    def _is_accelerate_prepared(self) -> bool:
        """True, so that `Accelerator.prepare` keeps this object and makes no new loader."""
        return True

    @_is_accelerate_prepared.setter
    def _is_accelerate_prepared(self, value: bool) -> None:
        self._prepared = bool(value)  # accelerate sets it on the arguments of `prepare`

    @property
    def use_stateful_dataloader(self) -> bool:
        """Whether accelerate's `save_state` and `load_state` include the position.

        False on several ranks, which would all write to the same file.
        """
        if not self._prepared:
            return False
        if _accelerate.is_alone():
            return True
        if not self._told_of_files:
            self._told_of_files = True
            _accelerate.tell_of_files()
        return False

    # ---- the position ----------------------------------------------------------------------------

    def set_epoch(self, epoch: int) -> None:
        """As `TorchDataset.set_epoch`."""
        self.dataset.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """As `TorchDataset.state_dict`; it includes elements in transfer to the device."""
        if not self._told_of_length and _lightning.is_caller(sys._getframe(1)):
            self._told_of_length = True
            if self._pass is not None and not self._has_length():
                _lightning.tell_of_length()
        if self._mover is not None and not self._mover.finished:
            state: dict[str, Any] = self._pass.state_dict(self._mover.undelivered())
            return state
        return self.dataset.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As `TorchDataset.load_state_dict`."""
        self.dataset.load_state_dict(state_dict)
        self._mover = None
        # Lightning saves after the last batch of an epoch, and would stop at an empty epoch.
        self._skips_empty = _lightning.is_caller(sys._getframe(1))

    def stats(self) -> Stats:
        """Returns counts and times of the latest epoch."""
        return self.dataset.stats()

    def close(self) -> None:
        """Ends the latest epoch and its thread, and frees prefetched elements."""
        self.dataset.close()
        self._mover = None


# For each keyword of a DataLoader, what to do in the tf.data pipeline instead.
_IN_TF_DATA = {
    "batch_size": "batch in the pipeline: loader(ds.batch(n))",
    "shuffle": "shuffle in the pipeline: loader(ds.shuffle(n, seed=...).batch(n))",
    "sampler": "choose elements in the pipeline (ds.shuffle, ds.filter, "
    "tf.data.Dataset.sample_from_datasets); ranks share them out with shard=",
    "batch_sampler": "batch in the pipeline: ds.batch(n), ds.bucket_by_sequence_length(...)",
    "num_workers": "tf.data works in threads of its own: "
    "ds.map(f, num_parallel_calls=tf.data.AUTOTUNE); elements are made ahead by prefetch=",
    "collate_fn": "make batches in the pipeline: ds.batch, ds.padded_batch, ds.ragged_batch, and "
    "ds.map after it",
    "drop_last": "say so in the pipeline: ds.batch(n, drop_remainder=True)",
    "generator": "give the seed in the pipeline: ds.shuffle(n, seed=...)",
    "prefetch_factor": "say how many elements are made ahead: loader(ds, prefetch=n)",
    "worker_init_fn": "there are no worker processes; tf.data works in threads of its own",
    "persistent_workers": "there are no worker processes; tf.data works in threads of its own",
    "multiprocessing_context": "there are no worker processes; tf.data works in threads of its own",
    "pin_memory_device": "say where the tensors go: loader(ds, device=...)",
    "in_order": "say so in the pipeline: options.deterministic = False",
}


@checks_keywords_or(_IN_TF_DATA)
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
) -> Loader:
    """Makes a loader over a tf.data.Dataset that yields torch values.

    Shapes, dtypes and sharing are those of `TorchDataset`.

    Args:
      ds: As in `TorchDataset`, as are all keywords that are not named here.
      device: The device of the tensors. With "cuda" each element is copied into pinned memory and
        transferred on a separate stream, while the program computes on the previous one.
      pin_memory: Without a device, copies the tensors into pinned memory. Warns if there is no GPU.
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
        delivers everything), "file", "data", "file_or_data", "hint".
      job_name: Processes with the same name share one job. By default all ranks of
        torch.distributed share one.
      timeout: Seconds without an element after which `DataServiceError` is raised; None waits
        forever, as TensorFlow does for a dead worker. Only with ``service``.

    Raises:
      UnsupportedDeviceError: torch has no such device here.
      InvalidOptionError: An invalid keyword, or sharding that would lose elements.
      UnsupportedTypeError, UnsupportedDtypeError, ResumeError: As `TorchDataset`.

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
    return loader_class()(dataset, device=device, pin_memory=pin_memory)


def _refuse_keras(frame: FrameType) -> None:
    """Refuses Keras on TensorFlow, which would convert each batch to tf.data through NumPy."""
    if frame.f_code.co_name == "get_tf_dataset" and frame.f_globals["__name__"].startswith(
        "keras."
    ):
        raise UnsupportedTypeError(
            "Keras runs on TensorFlow here, and takes the tf.data.Dataset itself: model.fit(ds), "
            "not model.fit(loader(ds)). A loader is for Keras on torch (KERAS_BACKEND=torch)"
        )


@cache
def loader_class() -> type[Loader]:
    """Loader; torch is imported for its base class."""
    ensure()
    from torch.utils.data import DataLoader

    class Loader(LoaderBase, DataLoader):  # type: ignore[misc]
        __doc__ = LoaderBase.__doc__
        __module__ = "tensor_bridge.data"
        __qualname__ = "Loader"

    return Loader
