"""A prepared TFDS data set as a map-style dataset."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from tensor_bridge._options import checks_keywords
from tensor_bridge.errors import InvalidOptionError, RecordError
from tensor_bridge.records._record_file import RecordStats
from tensor_bridge.records._tfds_examples import ExampleParser
from tensor_bridge.records._tfds_features import Features, Repeated
from tensor_bridge.records._tfds_info import TfdsInfo, read_info
from tensor_bridge.records._tfds_shards import Shards
from tensor_bridge.records._tfds_splits import Split, select
from tensor_bridge.records._tfds_values import Plan

__all__ = ["TfdsDataset", "tfds"]

# Number of records that iteration reads at a time.
_READ = 64


class TfdsDataset:
    """Examples of a prepared TFDS data set, for `torch.utils.data.DataLoader`; made by `tfds`.

    ``dataset[i]`` is an example. Examples are in the order of the shards and of the records in
    them, the order of ``tfds.load`` with ``ReadConfig(interleave_cycle_length=1)`` and
    ``shuffle_files=False``. Files are opened when they are first read. A dataset works in worker
    processes that are started by fork or by spawn.

    Attributes:
      info: The data set's `TfdsInfo`: names of classes, splits, features.
      split: The selected split.
    """

    @checks_keywords
    def __init__(
        self,
        folder: str | os.PathLike[str],
        split: str = "train",
        *,
        as_supervised: bool = False,
        features: Collection[str] | None = None,
        decode: bool = True,
        decoder: str | None = None,
        on_error: str = "raise",
        shards: Shards | None = None,
    ) -> None:
        """Takes the arguments of `tfds`, and files of the folder that are open already."""
        self._arguments = (
            str(Path(folder).expanduser()),
            split,
            {
                "as_supervised": as_supervised,
                "features": features,
                "decode": decode,
                "decoder": decoder,
                "on_error": on_error,
            },
        )
        self.info: TfdsInfo = read_info(self._arguments[0])
        self.split = split
        self._shards = shards or Shards(self._arguments[0], self.info.file_format, on_error)
        splits = self.info.splits
        self._ranges = select(split, _Left(self._shards, splits) if self._shards.skips else splits)
        self._ends = list(accumulate(found.end - found.begin for found in self._ranges))
        self._supervised: Any = None
        if as_supervised:
            if features is not None:
                raise InvalidOptionError("as_supervised=True selects features=; leave one out")
            self._supervised = self.info.supervised_keys
            if self._supervised is None:
                raise InvalidOptionError(
                    f"as_supervised=True: {self.info.name} has no supervised keys; name features="
                )
            features = sorted(_names(self._supervised))
        self._plan = Plan(self.info.features, features, decode=decode, decoder=decoder)
        self._parser = ExampleParser(self._plan.spec)

    def __reduce__(self) -> Any:
        folder, split, options = self._arguments
        return _make, (type(self), folder, split, {**options, "shards": self._shards})

    def stats(self) -> RecordStats:
        """Returns what was counted in the files that this process has opened.

        With ``on_error="skip"`` these are all files of the selected splits.
        """
        return self._shards.stats()

    def has_dataset(self, name: str) -> bool:
        """Whether examples have a nested Dataset of that name."""
        tree = self.info.features
        if not isinstance(tree, Features) or self._supervised is not None:
            return False
        feature = tree.features.get(name)
        if not isinstance(feature, Repeated) or feature.kind != "Dataset":
            return False
        return any(leaf.partition("/")[0] == name for leaf in self._plan.paths)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Any:
        """The example with a number; negative numbers count from the end.

        Raises:
          RecordError: A file or the example is damaged, or does not match features.json.
          IndexError: There is no such example.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Several examples, in the order of `indices`. Raises the errors of `__getitem__`."""
        found: list[Any] = [None] * len(indices)
        by_range: dict[int, list[tuple[int, int]]] = {}
        total = len(self)
        for place, given in enumerate(indices):
            index = int(given)
            if not -total <= index < total:
                raise IndexError(f"expected an index below {total}, got {index}")
            index += total * (index < 0)
            number = bisect_right(self._ends, index)
            begin = self._ends[number - 1] if number else 0
            at = self._ranges[number].begin + index - begin
            by_range.setdefault(number, []).append((place, at))
        for number, places in by_range.items():
            asked = self._ranges[number]
            batch = self._shards.read(asked.file, asked.length, [at for _, at in places])
            parsed = self._parser.parse(batch)
            for place, at in places:
                try:
                    found[place] = self._example(next(parsed))
                except RecordError as e:
                    error = RecordError(f"{asked.file}, example {at}: {e}")
                    error.path, error.offset = str(Path(self._arguments[0], asked.file)), e.offset
                    raise error from e
        return found

    def __iter__(self) -> Iterator[Any]:
        for begin in range(0, len(self), _READ):
            yield from self.__getitems__(range(begin, min(begin + _READ, len(self))))

    def _example(self, parsed: dict[str, Any]) -> Any:
        example = self._plan.example(parsed)
        return example if self._supervised is None else _supervised(self._supervised, example)

    def __repr__(self) -> str:
        return f"<TfdsDataset {self.info.name} {self.split!r}, {len(self)} examples>"


class _Left(Mapping[str, Split]):
    """Splits with the records that can be read. Files are read when their split is asked for."""

    def __init__(self, shards: Shards, splits: Mapping[str, Split]) -> None:
        self._shards, self._splits = shards, splits

    def __getitem__(self, name: str) -> Split:
        return self._shards.left(self._splits[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._splits)

    def __len__(self) -> int:
        return len(self._splits)


def _make(cls: Any, folder: str, split: str, options: dict[str, Any]) -> Any:
    return cls(folder, split, **options)


def _names(keys: Any) -> set[str]:
    if isinstance(keys, str):
        return {keys}
    inner = keys.values() if isinstance(keys, dict) else keys
    return {name for item in inner for name in _names(item)}


def _supervised(keys: Any, example: Any) -> Any:
    if isinstance(keys, str):
        for name in keys.split("/"):
            example = example[name]
        return example
    if isinstance(keys, dict):
        return {name: _supervised(item, example) for name, item in keys.items()}
    return tuple(_supervised(item, example) for item in keys)


@checks_keywords
def tfds(
    folder: str | os.PathLike[str],
    split: str = "train",
    *,
    as_supervised: bool = False,
    features: Collection[str] | None = None,
    decode: bool = True,
    decoder: str | None = None,
    on_error: str = "raise",
) -> TfdsDataset:
    """Opens a data set prepared by TensorFlow Datasets, without that package and TensorFlow.

    The values are on the CPU. Numbers and boxes become tensors of the feature's dtype and shape. A
    Text is bytes. An image is a tensor of shape ``(channels, height, width)``, and a Video is one
    of shape ``(frames, channels, height, width)``. A Sequence adds a leading dimension; a Sequence
    of strings is a StringTensor. Sequences in sequences have the form that `to_torch` returns for a
    tf.RaggedTensor. Images of several sizes in a sequence are a list. A Dataset is a `Steps`, a
    sequence whose elements are decoded when they are accessed.

    Args:
      folder: The folder of one version, with dataset_info.json and features.json, for example
        ``~/tensorflow_datasets/mnist/3.0.1``.
      split: A split in TFDS' syntax: "train", "train[:10%]", "train[100:]", "train+test", "all".
      as_supervised: Whether examples are tuples, usually of an input and a label.
      features: Paths of the features that examples have, such as "image" or
        "steps/observation/image"; other features are not decoded. All features if left out.
      decode: Whether to decode images and encoded tensors; otherwise they are bytes.
      decoder: The library that decodes images, as for `decode_image`.
      on_error: "raise", or "skip" to leave out damaged records, which reads all bytes of the split
        at once. `split` then counts the records that are left. An intact record that does not match
        features.json, or an image that cannot be decoded, is an error in either case.

    Returns:
      A `TfdsDataset`, whose `info` has the names of classes, the splits and their counts.

    Raises:
      RecordNotFoundError: The folder, or features.json in it, does not exist.
      RecordError: The data set is damaged, or has an unsupported format (Riegeli, Parquet) or
        feature.
      InvalidOptionError: There is no such split or feature.
      FrameworkError: The files are ArrayRecord, and the package array_record is not installed.
    """
    return TfdsDataset(
        folder,
        split,
        as_supervised=as_supervised,
        features=features,
        decode=decode,
        decoder=decoder,
        on_error=on_error,
    )
