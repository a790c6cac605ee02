"""tf.data pipelines as PyTorch datasets and loaders, and torch datasets in tf.data.

>>> import tensorflow as tf, tensor_bridge
>>> ds = tf.data.Dataset.from_tensor_slices({"x": [1.0, 2.0, 3.0], "y": [0, 1, 0]}).batch(2)
>>> for batch in tensor_bridge.data.loader(ds):
...     print(batch["x"], batch["y"])
tensor([1., 2.]) tensor([0, 1], dtype=torch.int32)
tensor([3.]) tensor([0], dtype=torch.int32)

Importing this module loads neither framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensor_bridge import _lazy
from tensor_bridge.errors import (
    DataServiceError,
    PipelineError,
    ResumeError,
    WorkerProcessError,
    WorldChangedError,
)

if TYPE_CHECKING:
    from torch.utils.data import DataLoader, IterableDataset

    from tensor_bridge.data._dataset import TorchDatasetBase
    from tensor_bridge.data._from_torch import from_torch
    from tensor_bridge.data._loader import LoaderBase, loader
    from tensor_bridge.data._stats import Stats

    class TorchDataset(TorchDatasetBase, IterableDataset[Any]):  # type: ignore[misc]
        """As `torch_dataset_class` makes it."""

    class Loader(LoaderBase, DataLoader[Any]):  # type: ignore[misc]
        """As `loader_class` makes it."""


__all__ = [
    "TorchDataset",
    "loader",
    "Loader",
    "Stats",
    "from_torch",
    # exceptions
    "DataServiceError",
    "PipelineError",
    "ResumeError",
    "WorkerProcessError",
    "WorldChangedError",
]

_LAZY = {
    "loader": "_loader",
    "Stats": "_stats",
    "from_torch": "_from_torch",
    # Classes that are made when torch is there to derive them from.
    "Loader": "_loader:loader_class",
    "TorchDataset": "_dataset:torch_dataset_class",
}


# Hidden from type checkers, so that they report a misspelt name.
if not TYPE_CHECKING:
    __getattr__, __dir__ = _lazy.attributes(globals(), _LAZY)
