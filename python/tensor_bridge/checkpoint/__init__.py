"""Checkpoints, SavedModels and Keras weights as PyTorch state, without TensorFlow.

>>> import tensorflow as tf, tensor_bridge
>>> prefix = tf.train.Checkpoint(w=tf.Variable([1.0, 2.0])).write("w")
>>> tensor_bridge.checkpoint.load(prefix)["w"]
tensor([1., 2.])

Importing this module loads neither framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensor_bridge import _lazy
from tensor_bridge.errors import CheckpointError, CheckpointNotFoundError, UnsupportedFileError

if TYPE_CHECKING:
    from tensor_bridge.checkpoint import rules
    from tensor_bridge.checkpoint.into_module._load_into import load_into
    from tensor_bridge.checkpoint.into_module._report import Loaded, Report
    from tensor_bridge.checkpoint.into_module._rules import Rule
    from tensor_bridge.checkpoint.read._checkpoint import Checkpoint, load
    from tensor_bridge.checkpoint.read._entry import Entry
    from tensor_bridge.checkpoint.read._layer import Layer
    from tensor_bridge.checkpoint.read._quantization import Quantization
    from tensor_bridge.checkpoint.read._verification import Verification
    from tensor_bridge.checkpoint.write._convert import convert
    from tensor_bridge.checkpoint.write._save import save

__all__ = [
    "load",
    "Checkpoint",
    "Entry",
    "Layer",
    "Quantization",
    "Verification",
    "load_into",
    "Rule",
    "rules",
    "Report",
    "Loaded",
    "convert",
    "save",
    # exceptions
    "CheckpointError",
    "CheckpointNotFoundError",
    "UnsupportedFileError",
]

_LAZY = {
    "load": "read._checkpoint",
    "Checkpoint": "read._checkpoint",
    "Entry": "read._entry",
    "Layer": "read._layer",
    "Quantization": "read._quantization",
    "Verification": "read._verification",
    "load_into": "into_module._load_into",
    "Rule": "into_module._rules",
    "rules": None,
    "Report": "into_module._report",
    "Loaded": "into_module._report",
    "convert": "write._convert",
    "save": "write._save",
}


# Hidden from type checkers, so that they report a misspelt name.
if not TYPE_CHECKING:
    __getattr__, __dir__ = _lazy.attributes(globals(), _LAZY)
