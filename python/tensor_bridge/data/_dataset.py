"""TorchDataset: a tf.data pipeline as a torch.utils.data.IterableDataset."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from tensor_bridge import _C, _options
from tensor_bridge._frameworks import ensure, ensure_tensorflow
from tensor_bridge._options import checks_keywords
from tensor_bridge._refusals import a_class
from tensor_bridge.data import _accelerate, _pipeline, _resume, _sharding
from tensor_bridge.data._elements import Elements, Settings
from tensor_bridge.data._in_step import InStep
from tensor_bridge.data._process import OfOneProcess
from tensor_bridge.data._spec import plan_element
from tensor_bridge.data._stats import Stats
from tensor_bridge.errors import InvalidOptionError, UnsupportedTypeError

if TYPE_CHECKING:
    from tensor_bridge.data._service import Service

_NO_COPY = (
    "a TorchDataset and its passes use a TensorFlow iterator, which cannot be copied; make "
    "another TorchDataset over the same tf.data.Dataset"
)


_COPIES = (
    "each of {} ranks gets every element of this TorchDataset, since nothing shares it out. "
    "shard='auto' gives each element to one rank, as tensor_bridge.data.loader(ds) does; "
    "shard='all' says that every rank is to get all"
)

_OR_A_LOADER = (
    ", or give accelerate a tensor_bridge.data.loader(ds), which shares out by itself and is taken "
    "as it is"
)


_SKIPPED = (
    "skip_first_batches() does not say in which epoch it skips: this pass has the order of epoch "
    "0. In a later epoch call set_epoch() before it, or load_state_dict() instead; for the Trainer "
    "of transformers give train_dataset=TorchDataset(ds), whose epochs it knows"
)


def is_dataset(value: Any) -> bool:
    """Whether it is a tf.data.Dataset."""
    return hasattr(value, "element_spec") and hasattr(value, "_variant_tensor")


class TorchDatasetBase(OfOneProcess):
    """A `torch.utils.data.IterableDataset` over a tf.data.Dataset.

    Elements keep their structure. Each tensor has the shape and dtype that `convert_tf_to_pytorch`
    gives it, and shares TensorFlow's memory with the same protection: the first write moves the
    torch tensor to its own memory if TensorFlow still holds the buffer. Strings, ragged and sparse
    values are converted as there. An optional without a value is None. A dataset inside an element
    (the steps of an RLDS episode) is a TorchDataset.

    A separate thread fetches elements through TensorFlow's C API, without eager tensors and without
    the GIL, and keeps at most ``prefetch`` of them ready. Batch in tf.data, and use
    ``DataLoader(TorchDataset(ds), batch_size=None)``, or `loader`, which does more.

    Args:
      ds: A tf.data.Dataset, or a function ``(epoch) -> Dataset`` that makes the dataset of an
        epoch.
      strings: "tensor" returns a StringTensor, "list" nested lists of bytes.
      copy: As in `convert_tf_to_pytorch`.
      on_write: As in `convert_tf_to_pytorch`.
      raw: As in `convert_tf_to_pytorch`.
      prefetch: Number of elements made ahead; 0 makes each element when it is requested.
      resume: What `state_dict` saves. "exact": everything; a dataset with operations whose state
        TensorFlow does not save is refused at once. "position": such operations start again.
        "replay": a count; that many elements are made and skipped. "auto": the first of these three
        that TensorFlow can do; it warns once if that is not "exact".
      on_error: "raise" raises `PipelineError` for an element that could not be made, and the next
        call continues after it; "skip" skips such elements.
      shard: How ranks share the dataset: "file" (each file to one rank), "data" (each element to
        one rank), "auto" ("file" if there are enough files, else "data"), "all" (every rank gets
        everything). None is "auto" if ``rank`` is given, else "all"; it warns once if there are
        several ranks and nothing else is known to shard.
      rank: The number of this process; by default that of torch.distributed when a pass begins.
      world_size: The number of processes; by default that of torch.distributed too.
      equal_steps: All ranks end after as many elements as the rank with the fewest has. If the
        number is not known in advance, this needs one all_reduce per element.

    Raises:
      UnsupportedTypeError: ds is not a dataset, or torch cannot represent its elements.
      UnsupportedDtypeError: torch cannot represent the dtype of an element.
      InvalidOptionError: An invalid keyword, or sharding that would lose elements.
      ResumeError: TensorFlow cannot save what ``resume`` asks for.
      FrameworkError: A framework is missing or of an unsupported version.

    Example:
      >>> import tensorflow as tf, tensor_bridge
      >>> ds = tf.data.Dataset.range(5).batch(2)
      >>> list(tensor_bridge.data.TorchDataset(ds))
      [tensor([0, 1]), tensor([2, 3]), tensor([4])]
    """

    @checks_keywords
    def __init__(
        self,
        ds: Any,
        *,
        strings: Literal["tensor", "list"] = "tensor",
        copy: bool | None = None,
        on_write: Literal["copy", "raise", "alias"] = "copy",
        raw: bool = False,
        prefetch: int = 2,
        resume: Literal["auto", "exact", "position", "replay"] = "auto",
        on_error: Literal["raise", "skip"] = "raise",
        shard: Literal["auto", "file", "data", "all"] | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        equal_steps: bool = False,
        _service: Service | None = None,
    ) -> None:
        super().__init__()
        ensure()
        ensure_tensorflow()
        _options.check_extra("strings", strings)
        if on_error not in ("raise", "skip"):
            raise InvalidOptionError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
        if type(prefetch) is not int or prefetch < 0:
            raise InvalidOptionError(f"prefetch must be an int of at least 0, got {prefetch!r}")
        self._resume: Any = _resume.check_mode(resume)
        self._strings: Any = strings
        self._dense: dict[str, Any] = {"copy": copy, "on_write": on_write, "raw": raw}
        self._prefetch = prefetch
        self._skip = on_error == "skip"
        self._given_place = _sharding.check_place(rank, world_size)
        self._shard = _sharding.check_policy(shard)
        if self._shard is None and self._given_place is not None:
            self._shard = "auto"  # a caller that gives the rank wants its part
        self._equal_steps = bool(equal_steps)
        self._service = _service
        self._source: Callable[[int], Any] | None = None
        self._dataset: Any = None
        self._steps: int | None = None
        self._reshuffles = False
        self._told: dict[str, str] = {}
        if is_dataset(ds):
            self._use(ds)
            self._reshuffles = _pipeline.reshuffles(ds)
        elif callable(ds):
            self._source = ds
            self._use(self._of_epoch(0))
        else:
            raise UnsupportedTypeError(
                "expected a tf.data.Dataset, or a function that makes the one of an epoch, got "
                f"{a_class(ds)}"
            )
        if self._service is None:
            _resume.check_dataset(self._like, self._resume)
        self._built_for = 0
        self._epoch = 0  # of the next pass
        self._started = 0  # passes begun over self._dataset, by which tf.data seeds its shuffles
        self._resumed = False  # a pass went on from a state
        self._current: Elements | None = None
        self._state: dict[str, Any] | None = None
        self._epoch_chosen = False
        self._warned = self._told_of_batches = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._source or self._like!r})"

    # ---- the dataset -----------------------------------------------------------------------------

    def _of_epoch(self, epoch: int) -> Any:
        assert self._source is not None
        dataset = self._source(epoch)
        if not is_dataset(dataset):
            raise UnsupportedTypeError(
                f"expected the function to return a tf.data.Dataset, got {a_class(dataset)}"
            )
        return dataset

    def _use(self, dataset: Any) -> None:
        self._like = self._whole = dataset
        self._share_out()

    def _share_out(self) -> None:
        """Takes this rank's part of the whole dataset in the current world."""
        self._rank, self._world_size = self._given_place or _sharding.place()
        self._steps = None
        self._policy: str | None = None
        dataset = self._whole
        if self._service is not None:
            dataset = self._service.distribute(dataset)
        elif self._shard not in (None, "all") and self._world_size > 1:
            dataset, self._policy = _sharding.shard(
                dataset, self._like, self._shard, self._rank, self._world_size
            )
            if self._equal_steps:
                self._steps = _sharding.equal_length(self._whole, self._policy, self._world_size)
                if self._steps is not None:
                    dataset = dataset.take(self._steps)
        self._dataset = _pipeline.prepare(dataset, self._like)
        self._settings = self._make_settings()

    def _follow_world(self) -> None:
        """Takes this rank's part again if the world has changed."""
        place = self._given_place or _sharding.place()
        if place == (self._rank, self._world_size):
            return
        # The resource of the whole dataset counts the passes.
        self._share_out()

    def _make_settings(self) -> Settings:
        plan = plan_element(
            self._dataset.element_spec,
            string_lists=self._strings == "list",
            # Not a method of this object, so that it can be freed without the garbage collector.
            nested=partial(
                torch_dataset_class(),
                strings=self._strings,
                **self._dense,
                prefetch=self._prefetch,
                resume=self._resume,
                on_error="skip" if self._skip else "raise",
                shard="all",
            ),
            options={**self._dense, "strings": self._strings},
        )
        defaults = self._dense == {"copy": None, "on_write": "copy", "raw": False}
        timeout = None if self._service is None else self._service.timeout
        prefetch = self._prefetch
        if timeout is not None:
            prefetch = max(prefetch, 1)  # only a thread can be waited for with a limit
        elif plan.has_opaque:
            prefetch = 0  # a state cannot hold these values, so none is made ahead
        return Settings(
            plan=plan,
            prefetch=prefetch,
            resume=self._resume,
            skip_failures=self._skip,
            timeout=timeout,
            options={} if defaults else self._dense,
            addresses=None if self._service is None else self._service.addresses,
            identity={
                "spec": repr(self._dataset.element_spec),
                "resume": self._resume,
                "strings": self._strings,
                "rank": self._rank if self._policy else 0,
                "world_size": self._world_size if self._policy else 1,
                "shard": self._policy,
            },
            told=self._told,
        )

    @property
    def element_spec(self) -> Any:
        """TensorFlow's description of an element."""
        return self._dataset.element_spec

    def __len__(self) -> int:
        """The number of elements of a pass, if TensorFlow knows it.

        Raises:
          TypeError: It does not, or the dataset is infinite.
        """
        self._check_process()
        self._follow_world()
        count = int(_C.tensor_to_torch(self._dataset.cardinality()).item())
        if count >= 0:
            return count
        if count == -1:
            raise TypeError("the dataset is infinite and has no len(); take() a part of it")
        raise TypeError(
            "the number of elements is not known before they are read; where you know it, say so: "
            "ds.apply(tf.data.experimental.assert_cardinality(n))"
        )

    # ---- passes ----------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Number of the next pass."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Sets the number of the next pass; without a call it counts up from 0.

        A seeded ``shuffle()`` has one order for each number, in every process, independent of
        earlier passes. Without a seed the order cannot be selected. If a function was given instead
        of a dataset, the number is its argument.

        Raises:
          InvalidOptionError: The number is negative, or TensorFlow cannot return to it in this
            dataset.
        """
        self._check_process()
        most = _resume.most_epochs(self._reshuffles)
        if type(epoch) is not int or not 0 <= epoch <= most:
            raise InvalidOptionError(f"epoch must be an int from 0 to {most}, got {epoch!r}")
        left = self._current is not None and not self._current.finished
        # An unfinished pass has drawn the seeds of only some of its shuffles.
        if self._reshuffles and (
            epoch < self._started or (left and not _pipeline.draws_once(self._like))
        ):
            self._begin_anew()
        self._epoch = epoch
        self._epoch_chosen = True

    def _no_order(self, cause: Exception) -> str:
        return (
            f"{self._started} passes over this dataset have begun, and TensorFlow cannot give the "
            f"order of another epoch than the next: {cause}; give a function that makes the "
            "dataset of an epoch: TorchDataset(lambda epoch: ...)"
        )

    def _begin_anew(self) -> None:
        """Replaces the dataset by a new one, over which no pass has begun."""
        import tensorflow as tf

        try:
            self._whole = _pipeline.anew(self._like)
        except tf.errors.OpError as e:
            raise InvalidOptionError(self._no_order(e)) from None
        self._started = 0
        self._share_out()

    def _prepare_epoch(self, epoch: int) -> None:
        if self._source is not None:
            if epoch != self._built_for:
                self._use(self._of_epoch(epoch))
                self._built_for = epoch
            return
        if self._reshuffles:
            # TensorFlow's states of iterators change the seeds of later ones.
            if epoch < self._started or self._resumed:
                self._begin_anew()
            self._skip_passes(epoch - self._started)
            self._started = epoch
        self._started += 1

    def _skip_passes(self, count: int) -> None:
        if count == 0:
            return
        # An iterator takes 0.5 ms; to draw the seeds takes 50 ms once, and 0.05 ms a pass.
        if _pipeline.draws_once(self._like) and count <= 100:
            for _ in range(count):
                iter(self._dataset)
            return
        import tensorflow as tf

        try:
            _pipeline.draw_seeds(self._whole, count)
        except tf.errors.OpError as e:
            raise InvalidOptionError(self._no_order(e)) from None

    def __iter__(self) -> Iterator[Any]:
        """Begins a pass.

        Raises:
          WorkerProcessError: In another process than the one that made this object, as from every
            other method.
        """
        self._check_process()
        if not self._told_of_batches and _adds_an_axis(sys._getframe(1)):
            self._told_of_batches = True
            warnings.warn(
                "DataLoader(TorchDataset(ds)) puts an axis of size 1 before each element: its "
                "batch_size is 1 by default. Batch in tf.data, and give batch_size=None: "
                "DataLoader(TorchDataset(ds.batch(n)), batch_size=None), or take "
                "tensor_bridge.data.loader(ds.batch(n))",
                stacklevel=2,
            )
        return self.elements()

    def elements(self) -> Elements | InStep:
        """Begins a pass; returns `iter`'s iterator with its full type."""
        self._check_process()
        self._follow_world()
        self._check_sharing()
        self._check_skipping()
        state, self._state = self._state, None
        epoch = self._epoch if state is None else state["epoch"]
        self._prepare_epoch(epoch)
        self._resumed = state is not None
        self._epoch = epoch + 1
        follows = self._given_place is None and self._shard not in (None, "all")
        elements = Elements(self._dataset, self._settings, epoch, state, follows_world=follows)
        self._current = elements
        if self._equal_steps and self._world_size > 1 and self._steps is None:
            return InStep(elements)
        return elements

    def _check_sharing(self) -> None:
        """Checks that the elements are divided among the ranks only once.

        Raises:
          InvalidOptionError: accelerate and this dataset would both divide them.
        """
        if self._shard is None and self._world_size > 1:
            if not self._warned and not _accelerate.shares_out():
                self._warned = True
                warnings.warn(_COPIES.format(self._world_size), stacklevel=4)
        elif self._policy is not None:
            _accelerate.refuse_shared_twice(_OR_A_LOADER)

    def _check_skipping(self) -> None:
        """Warns if accelerate's `skip_first_batches` may begin another epoch than intended."""
        ordered = self._reshuffles or self._source is not None
        if self._epoch_chosen or self._state is not None or not ordered or self._epoch:
            return
        if _accelerate.iterates("SkipDataLoader"):
            self._epoch_chosen = True
            warnings.warn(_SKIPPED, stacklevel=4)

    def __copy__(self) -> Any:
        raise UnsupportedTypeError(_NO_COPY)

    def __deepcopy__(self, memo: Any) -> Any:
        raise UnsupportedTypeError(_NO_COPY)

    # ---- state -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Returns the position of the latest pass, in torchdata's protocol.

        It includes elements that were made ahead. Between two passes it is the start of the next
        one. It contains plain Python values and tensors with their own memory, so `torch.save` can
        write it.

        Raises:
          ResumeError: The dataset cannot be saved; the message names the operation that prevents
            it.
        """
        self._check_process()
        if self._state is not None:
            return _resume.kept(self._state)
        if self._current is None or self._current.finished:
            if self._service is not None:
                raise _resume.none_of_service()
            self._follow_world()
            return _resume.sealed(self._settings.state(self._epoch))
        return self._current.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lets the next pass continue where `state_dict` was called.

        Raises:
          ResumeError: The state is damaged, or of another dataset, another ``resume=`` or another
            rank. With ``resume="auto"`` a state of another rank only warns: as many elements as
            that rank had are made and skipped.
        """
        self._check_process()
        if self._service is not None:
            raise _resume.none_of_service()
        self._follow_world()
        self._state = _resume.checked(
            state_dict,
            self._settings.identity,
            self._settings.plan,
            _resume.most_epochs(self._reshuffles),
        )
        self._epoch = self._state["epoch"]

    @property
    def position(self) -> int:
        """Number of delivered elements of the latest pass, including those before a resumption."""
        return 0 if self._current is None else self._current.position

    # ---- the rest --------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Counts and times of the latest pass."""
        self._check_process()
        return Stats() if self._current is None else self._current.stats()

    def close(self) -> None:
        """Ends the latest pass, if it is running."""
        self._check_process()
        if self._current is not None:
            self._current.close()


def _adds_an_axis(frame: FrameType) -> bool:
    """Whether the caller is a DataLoader with the default batch_size and collate_fn.

    Its iterator makes the fetcher, which begins the pass. The frames between are those of torch 2.6
    to 2.15 (torch/utils/data/_utils/fetch.py).
    """
    from torch.utils.data import default_collate

    maker = frame.f_back and frame.f_back.f_back
    loader = maker and maker.f_locals.get("loader")
    collate = getattr(loader, "collate_fn", None)
    return getattr(loader, "batch_size", None) == 1 and collate is default_collate


@cache
def torch_dataset_class() -> type[TorchDatasetBase]:
    """TorchDataset; torch is imported for its base class."""
    ensure()
    from torch.utils.data import IterableDataset

    class TorchDataset(TorchDatasetBase, IterableDataset):  # type: ignore[misc]
        __doc__ = TorchDatasetBase.__doc__
        __module__ = "tensor_bridge.data"
        __qualname__ = "TorchDataset"

    return TorchDataset
