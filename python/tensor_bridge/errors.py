"""Exceptions. Each derives from `TensorBridgeError` and from the builtin that fits.

A message says what was expected, what came, and what to do. Its text, ``str(error)``, is safe to
print: invisible characters in names from files are escaped. The ``entry`` and ``file`` of a
`CheckpointError` and ``error.args`` have the names unescaped. A write to a tensor converted with
``on_write="raise"`` raises a plain `BufferError` (`RuntimeError` in compiled code), because torch
raises it.
"""

from __future__ import annotations

from tensor_bridge._printable import printable

TYPE_CHECKING = False  # not from typing, whose import takes longer than this package's

__all__ = [
    "BY_STATUS",
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
]


class TensorBridgeError(Exception):
    """Base of everything that tensor_bridge raises."""

    # AutoGraph lets an exception with this attribute leave a tf.function unchanged
    # (tensorflow/python/autograph/impl/api.py); it replaces others by new ones with fewer
    # attributes.
    ag_pass_through = True
    # Other messages may quote several lines, of a framework or of a report.
    _one_line = False

    def __str__(self) -> str:
        return printable(super().__str__(), keep="" if self._one_line else "\n\t")


class InvalidOptionError(TensorBridgeError, ValueError):
    """A keyword has a value that it does not take, or keywords do not go together."""

    _one_line = True


class MismatchError(TensorBridgeError, ValueError):
    """A shape, a dtype or names differ from those of the target of an assignment."""


class UnsupportedDtypeError(TensorBridgeError, TypeError):
    """The other framework has no equivalent of the dtype."""

    _one_line = True


class UnsupportedTypeError(TensorBridgeError, TypeError):
    """The value cannot be converted."""

    _one_line = True


class SymbolicTensorError(UnsupportedTypeError):
    """A graph tensor (in a tf.function, or Keras symbolic): it has no value to convert."""


class CopyRequiredError(TensorBridgeError, BufferError):
    """``copy=False`` was asked for, and sharing is not possible."""


class UnsupportedDeviceError(TensorBridgeError, ValueError):
    """A remote, packed or custom device, or one that torch cannot use here."""


class InvalidHandleError(TensorBridgeError, ValueError):
    """A null, deleted or inconsistent tensor handle."""


class TensorFlowError(TensorBridgeError, RuntimeError):
    """TensorFlow reported an error, for example that of an asynchronous operation."""


class PipelineError(TensorFlowError):
    """An element of a dataset could not be made; iteration may go on with the next one.

    Attributes:
      ordinal: Number of the element, counted from 0, failures included.
      code: TensorFlow's name of the failure, such as "DATA_LOSS".
    """

    ordinal: int = -1
    code: str = "UNKNOWN"


class DataServiceError(TensorBridgeError, ConnectionError):
    """tf.data service sent nothing for longer than the timeout.

    Attributes:
      addresses: Those of the dispatcher and of the workers that are known.
      delivered: Number of elements that came before.
    """

    addresses: tuple[str, ...] = ()
    delivered: int = 0


class ResumeError(TensorBridgeError, RuntimeError):
    """The position in a dataset cannot be saved, or a saved one does not fit the dataset."""


class WorkerProcessError(TensorBridgeError, RuntimeError):
    """A dataset of TensorFlow was taken into another process (``num_workers > 0``)."""


class WorldChangedError(TensorBridgeError, RuntimeError):
    """torch.distributed was initialised or destroyed in the middle of a pass over a dataset."""


class TorchError(TensorBridgeError, RuntimeError):
    """torch reported an error."""


class GradientError(TensorBridgeError, RuntimeError):
    """A gradient cannot cross, or a variable's value was changed in both frameworks."""


class FrameworkError(TensorBridgeError, ImportError):
    """A framework is missing, of an unsupported version, or in conflict with this package."""

    if not TYPE_CHECKING:
        __init__ = ImportError.__init__  # takes name=


class OutOfMemoryError(TensorBridgeError, MemoryError):
    """There is no memory for a copy."""


class ValueRangeError(TensorBridgeError, ValueError):
    """The requested dtype cannot hold an element exactly, or an index is outside its tensor."""


class CheckpointError(TensorBridgeError, ValueError):
    """A file of a checkpoint is damaged, truncated or of another format.

    Attributes:
      file: The file, as a string.
      entry: The tensor concerned; "" if there is none.
      offset: Where in the file, in bytes; -1 if not known.
    """

    _one_line = True
    file: str = ""
    entry: str = ""
    offset: int = -1


class UnsupportedFileError(CheckpointError):
    """A file is not a checkpoint, or one in a format or a version that is not read."""


class CheckpointNotFoundError(TensorBridgeError, FileNotFoundError):
    """There is no checkpoint at a path, or one of its files is missing."""

    _one_line = True
    if not TYPE_CHECKING:
        __init__ = FileNotFoundError.__init__


class RecordError(TensorBridgeError, ValueError):
    """A record that is damaged, or that does not hold what its spec says.

    Attributes:
      path: The file, as a string; "" for records in memory.
      offset: Where in the file; -1 where no place is known.
    """

    _one_line = True
    path: str = ""
    offset: int = -1


class RecordNotFoundError(RecordError, FileNotFoundError):
    """There is no file of records at a path."""

    if not TYPE_CHECKING:
        __init__ = FileNotFoundError.__init__


class InternalError(TensorBridgeError, RuntimeError):
    """A defect of tensor_bridge; please report it."""


BY_STATUS: dict[int, type[TensorBridgeError]] = {
    1: InvalidOptionError,
    2: UnsupportedDtypeError,
    3: UnsupportedTypeError,
    4: SymbolicTensorError,
    5: CopyRequiredError,
    6: UnsupportedDeviceError,
    7: InvalidHandleError,
    8: TensorFlowError,
    9: TorchError,
    10: FrameworkError,
    11: OutOfMemoryError,
    12: InternalError,
    13: ValueRangeError,
    14: CheckpointError,
    15: UnsupportedFileError,
}
"""The class for each ``tb_status`` of ``tensor_bridge/c_api.h``."""
