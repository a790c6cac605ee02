"""Compares a checkpoint's content with TensorFlow's own reader."""

from __future__ import annotations

import tensorflow as tf
import torch

import tensor_bridge
from tensor_bridge import checkpoint


def assert_like_tensorflow(loaded: checkpoint.Checkpoint, prefix: str) -> None:
    """Entries, dtypes, shapes and bytes are those of tf.train.load_checkpoint."""
    reader = tf.train.load_checkpoint(prefix)
    entries = {entry.key: entry for entry in loaded.all_entries}
    assert set(entries) == set(reader.get_variable_to_shape_map())
    for key, entry in entries.items():
        assert list(entry.shape) == reader.get_variable_to_shape_map()[key]
        assert entry.dtype == reader.get_variable_to_dtype_map()[key].name
        expected = tf.constant(reader.get_tensor(key), reader.get_variable_to_dtype_map()[key])
        expected = tensor_bridge.to_torch(expected)
        found = entry.read(False)
        if isinstance(expected, tensor_bridge.StringTensor):
            assert found.tolist() == expected.tolist()
            continue
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        as_bytes = [x.contiguous().reshape(-1).view(torch.uint8) for x in (found, expected)]
        assert torch.equal(*as_bytes)
