"""The functions that parse serialized Examples under TensorFlow's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensor_bridge._options import checks_keywords
from tensor_bridge.records._batch import RecordBatch
from tensor_bridge.records._features import SequenceFeatures
from tensor_bridge.records._spec_parser import SpecParser

__all__ = ["parse_example", "parse_sequence_example", "parse_single_example"]


def parse_example(serialized: Any, features: Mapping[str, Any]) -> dict[str, Any]:
    """Parses a batch of tf.train.Example, like ``to_torch(tf.io.parse_example(...))``.

    Args:
      serialized: A list of bytes, a StringTensor or a `RecordBatch`.
      features: The features by key: `FixedLenFeature`, `FixedLenSequenceFeature`, `VarLenFeature`,
        `RaggedFeature` or `SparseFeature`, or TensorFlow's classes of these names.

    Returns:
      A torch value for each key, on the CPU. It owns its memory, and its leading dimension is the
      number of records. The class of the feature says which value it is.

    Raises:
      RecordError: A record is damaged, lacks a feature, or has a feature of another dtype or size.
      InvalidOptionError: A feature is invalid.
      UnsupportedDtypeError: The format does not have a dtype.
      UnsupportedTypeError: `serialized` is something else.

    Example:
      >>> from tensor_bridge import records
      >>> spec = {"x": records.FixedLenFeature((2,), "float32", default_value=[1.0, 2.0])}
      >>> records.parse_example([b"", b""], spec)["x"]
      tensor([[1., 2.],
              [1., 2.]])
    """
    parsed: dict[str, Any] = SpecParser(features).parse(RecordBatch.of(serialized))
    return parsed


def parse_single_example(serialized: Any, features: Mapping[str, Any]) -> dict[str, Any]:
    """Parses one tf.train.Example like `parse_example`, but without the leading dimension.

    TensorFlow has a parser of single Examples and a parser of batches. They differ if an empty
    Feature follows another Feature with the same key. This function behaves like the parser of
    batches, for which the key is empty.

    Args:
      serialized: bytes, or one record in another form that `parse_example` accepts.
      features: As for `parse_example`.

    Returns:
      A torch value for each key, on the CPU, which owns its memory.

    Raises:
      MismatchError: There is not exactly one record.
      RecordError, InvalidOptionError, UnsupportedDtypeError, UnsupportedTypeError: As
        `parse_example`.
    """
    parsed: dict[str, Any] = SpecParser(features).parse_one(RecordBatch.of(serialized))
    return parsed


@checks_keywords
def parse_sequence_example(
    serialized: Any,
    context_features: Mapping[str, Any] | None = None,
    sequence_features: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Parses a batch of SequenceExamples, like ``to_torch(tf.io.parse_sequence_example(...))``.

    Args:
      serialized: A list of bytes, a StringTensor or a `RecordBatch`.
      context_features: The features of records by key: `FixedLenFeature`, `VarLenFeature` or
        `RaggedFeature`.
      sequence_features: The feature lists by key: `FixedLenSequenceFeature`, `VarLenFeature` or
        `RaggedFeature`.

    Returns:
      Three dicts by key of values that own their memory: the context; the feature lists; and for
      each FixedLenSequenceFeature the number of rows in each record, int64 of shape ``(batch,)``.

    Raises:
      RecordError, InvalidOptionError, UnsupportedDtypeError, UnsupportedTypeError: As
        `parse_example`.
    """
    spec = SequenceFeatures(context_features or {}, sequence_features or {})
    parsed = SpecParser(spec).parse(RecordBatch.of(serialized))
    return parsed["context"], parsed["sequence"], parsed["lengths"]
