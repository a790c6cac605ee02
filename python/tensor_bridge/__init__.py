"""tensor_bridge: TensorFlow values become PyTorch values and back, with no copy and no NumPy.

>>> import tensorflow as tf, tensor_bridge
>>> x = tensor_bridge.to_torch(tf.constant([1.0, 2.0]))
>>> x
tensor([1., 2.])
>>> tensor_bridge.to_tf(x).shape
TensorShape([2])

Importing this package loads neither framework.
"""

from __future__ import annotations

from tensor_bridge import _lazy, _load_order, _torch_tables
from tensor_bridge._C import __version__, convert_pytorch_to_tf, convert_tf_to_pytorch
from tensor_bridge.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    CopyRequiredError,
    DataServiceError,
    FrameworkError,
    GradientError,
    InternalError,
    InvalidHandleError,
    InvalidOptionError,
    MismatchError,
    OutOfMemoryError,
    PipelineError,
    RecordError,
    RecordNotFoundError,
    ResumeError,
    SymbolicTensorError,
    TensorBridgeError,
    TensorFlowError,
    TorchError,
    UnsupportedDeviceError,
    UnsupportedDtypeError,
    UnsupportedFileError,
    UnsupportedTypeError,
    ValueRangeError,
    WorkerProcessError,
    WorldChangedError,
)

# Not from typing, whose import takes as long as the rest of this package's; type checkers know the
# constant by its name.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from tensor_bridge import autograd, checkpoint, data, dlpack, records, testing
    from tensor_bridge._convert import explain
    from tensor_bridge._dtypes import DtypeRow, dtypes
    from tensor_bridge._explanation import Explanation, StructureExplanation
    from tensor_bridge._previous import release_previous
    from tensor_bridge._triton import prepare
    from tensor_bridge.capi import TensorBridge
    from tensor_bridge.composite import (
        Extension,
        LiveView,
        Ragged,
        StringTensor,
        assign,
        register_composite,
        unregister_composite,
    )

to_torch = convert_tf_to_pytorch
to_tf = convert_pytorch_to_tf

__all__ = [
    # conversion
    "convert_tf_to_pytorch",
    "to_torch",
    "convert_pytorch_to_tf",
    "to_tf",
    "TensorBridge",
    "assign",
    "release_previous",
    # what some values become
    "Extension",
    "LiveView",
    "Ragged",
    "StringTensor",
    "register_composite",
    "unregister_composite",
    # explanation
    "explain",
    "Explanation",
    "StructureExplanation",
    "dtypes",
    "DtypeRow",
    # exceptions
    "CheckpointError",
    "CheckpointNotFoundError",
    "CopyRequiredError",
    "DataServiceError",
    "FrameworkError",
    "GradientError",
    "InternalError",
    "InvalidHandleError",
    "InvalidOptionError",
    "MismatchError",
    "OutOfMemoryError",
    "PipelineError",
    "RecordError",
    "RecordNotFoundError",
    "ResumeError",
    "SymbolicTensorError",
    "TensorBridgeError",
    "TensorFlowError",
    "TorchError",
    "UnsupportedDeviceError",
    "UnsupportedDtypeError",
    "UnsupportedFileError",
    "UnsupportedTypeError",
    "ValueRangeError",
    "WorkerProcessError",
    "WorldChangedError",
    # the rest
    "autograd",
    "checkpoint",
    "data",
    "dlpack",
    "prepare",
    "records",
    "testing",
    "__version__",
]

# Loaded at first use, so that importing the package stays quick.
_LAZY = {
    "TensorBridge": "capi",
    "assign": "composite",
    "Extension": "composite",
    "LiveView": "composite",
    "Ragged": "composite",
    "StringTensor": "composite",
    "register_composite": "composite",
    "unregister_composite": "composite",
    "explain": "_convert",
    "Explanation": "_explanation",
    "StructureExplanation": "_explanation",
    "release_previous": "_previous",
    "dtypes": "_dtypes",
    "DtypeRow": "_dtypes",
    "prepare": "_triton",
    "autograd": None,
    "checkpoint": None,
    "records": None,
    "data": None,
    "dlpack": None,
    "testing": None,
}


# It only has an effect before TensorFlow is imported.
_load_order.load_before_tensorflow()
_torch_tables.tell_torch()

# Hidden from type checkers, so that they report a misspelt name.
if not TYPE_CHECKING:
    __getattr__, __dir__ = _lazy.attributes(globals(), _LAZY)
