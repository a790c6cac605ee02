"""The functions that parse serialized Examples under TensorFlow's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensor_bridge.records._batch import RecordBatch
from tensor_bridge.records._features import SequenceFeatures
from tensor_bridge.records._spec_parser import SpecParser

__all__ = ["parse_example", "parse_sequence_example", "parse_single_example"]


def parse_example(serialized: Any, features: Mapping[str, Any]) -> dict[str, Any]:
    """Parses a batch of tf.train.Example, as ``to_torch(tf.io.parse_example(...))`` would.

    Args:
      serialized: A list of bytes, a StringTensor or a `RecordBatch`.
      features: For each key what is asked for: `FixedLenFeature`, `FixedLenSequenceFeature`,
        `VarLenFeature`, `RaggedFeature` or `SparseFeature`, or TensorFlow's own.

    Returns:
      For each key a torch value with a leading dimension of the number of records, in memory of its
      own; each of the classes says which.

    Raises:
      RecordError: A record is damaged, lacks a feature, or has one of another dtype or size.
      InvalidOptionError: Features that mean nothing.
      UnsupportedDtypeError: A dtype that the format lacks.

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
    """Parses one tf.train.Example: as `parse_example`, without the leading dimension.

    TensorFlow has a parser of single Examples and one of batches. They differ in an empty Feature
    behind another one of its key: this function follows that of batches, where the key is empty.

    Args:
      serialized: bytes, or one record in another form that `parse_example` takes.
      features: As `parse_example`.

    Returns:
      For each key a torch value in memory of its own.

    Raises:
      MismatchError: There is not exactly one record.
      RecordError, InvalidOptionError, UnsupportedDtypeError: As `parse_example`.
    """
    parsed: dict[str, Any] = SpecParser(features).parse_one(RecordBatch.of(serialized))
    return parsed


def parse_sequence_example(
    serialized: Any,
    context_features: Mapping[str, Any] | None = None,
    sequence_features: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Parses a batch of tf.train.SequenceExample, as ``to_torch(tf.io.parse_sequence_example())``.

    Args:
      serialized: A list of bytes, a StringTensor or a `RecordBatch`.
      context_features: By key: `FixedLenFeature`, `VarLenFeature` or `RaggedFeature`.
      sequence_features: By key: `FixedLenSequenceFeature`, `VarLenFeature` or `RaggedFeature`.

    Returns:
      The context and the feature lists, each by key, and for each FixedLenSequenceFeature the rows
      of each record, int64 of shape ``(batch,)``.

    Raises:
      RecordError, InvalidOptionError, UnsupportedDtypeError: As `parse_example`.
    """
    spec = SequenceFeatures(context_features or {}, sequence_features or {})
    parsed = SpecParser(spec).parse(RecordBatch.of(serialized))
    return parsed["context"], parsed["sequence"], parsed["lengths"]
