"""TFRecord files and tf.train.Example in PyTorch, without TensorFlow.

>>> from tensor_bridge import records
>>> spec = {"label": records.FixedLenFeature((), "int64", default_value=0)}
>>> records.parse_example([b""], spec)
{'label': tensor([0])}

Importing this module loads neither framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensor_bridge import _lazy
from tensor_bridge.errors import RecordError, RecordNotFoundError

if TYPE_CHECKING:
    from typing import Any

    from torch.utils.data import Dataset, IterableDataset

    from tensor_bridge.records._batch import RecordBatch
    from tensor_bridge.records._collate import collate
    from tensor_bridge.records._decoders import Raw, TensorProto
    from tensor_bridge.records._features import (
        Decoder,
        FixedLenFeature,
        FixedLenSequenceFeature,
        RaggedFeature,
        SequenceFeatures,
        SparseFeature,
        VarLenFeature,
    )
    from tensor_bridge.records._images import Image, PaddedImages, decode_image
    from tensor_bridge.records._infer import infer
    from tensor_bridge.records._iterable import IterableRecordDatasetBase
    from tensor_bridge.records._loader import loader
    from tensor_bridge.records._parse import (
        parse_example,
        parse_sequence_example,
        parse_single_example,
    )
    from tensor_bridge.records._record_dataset import RecordDatasetBase
    from tensor_bridge.records._record_file import RecordFile, RecordStats
    from tensor_bridge.records._rlds import RldsDatasetBase, rlds
    from tensor_bridge.records._tfds import TfdsDataset, tfds
    from tensor_bridge.records._tfds_info import TfdsInfo
    from tensor_bridge.records._tfds_values import Steps
    from tensor_bridge.records._writer import Writer

    class RecordDataset(RecordDatasetBase, Dataset[Any]):  # type: ignore[misc]
        """The class that `record_dataset_class` returns."""

    class IterableRecordDataset(IterableRecordDatasetBase, IterableDataset[Any]):  # type: ignore[misc]
        """The class that `iterable_record_dataset_class` returns."""

    class RldsDataset(RldsDatasetBase, IterableDataset[Any]):  # type: ignore[misc]
        """The class that `rlds_dataset_class` returns."""


__all__ = [
    # Examples
    "FixedLenFeature",
    "FixedLenSequenceFeature",
    "VarLenFeature",
    "RaggedFeature",
    "SparseFeature",
    "SequenceFeatures",
    "parse_example",
    "parse_single_example",
    "parse_sequence_example",
    "infer",
    # decoders of features of bytes
    "Decoder",
    "Raw",
    "TensorProto",
    "Image",
    "PaddedImages",
    "decode_image",
    # data sets of TFDS
    "TfdsDataset",
    "TfdsInfo",
    "Steps",
    "tfds",
    "RldsDataset",
    "rlds",
    # datasets
    "RecordDataset",
    "IterableRecordDataset",
    "collate",
    "loader",
    # records
    "Writer",
    "RecordFile",
    "RecordBatch",
    "RecordStats",
    # exceptions
    "RecordError",
    "RecordNotFoundError",
]

_LAZY = {
    "RecordBatch": "_batch",
    # Derived from classes of torch, so they are made on first use.
    "RecordDataset": "_record_dataset:record_dataset_class",
    "IterableRecordDataset": "_iterable:iterable_record_dataset_class",
    "collate": "_collate",
    "Writer": "_writer",
    "RecordFile": "_record_file",
    "RecordStats": "_record_file",
    "FixedLenFeature": "_features",
    "FixedLenSequenceFeature": "_features",
    "VarLenFeature": "_features",
    "RaggedFeature": "_features",
    "SparseFeature": "_features",
    "SequenceFeatures": "_features",
    "Image": "_images",
    "PaddedImages": "_images",
    "decode_image": "_images",
    "TfdsDataset": "_tfds",
    "TfdsInfo": "_tfds_info",
    "Steps": "_tfds_values",
    "tfds": "_tfds",
    "rlds": "_rlds",
    # Derived from a class of torch, so it is made on first use.
    "RldsDataset": "_rlds:rlds_dataset_class",
    "parse_example": "_parse",
    "parse_single_example": "_parse",
    "parse_sequence_example": "_parse",
    "infer": "_infer",
    "loader": "_loader",
    "Decoder": "_features",
    "Raw": "_decoders",
    "TensorProto": "_decoders",
}


# Hidden from type checkers, so that they report a misspelt name.
if not TYPE_CHECKING:
    __getattr__, __dir__ = _lazy.attributes(globals(), _LAZY)
