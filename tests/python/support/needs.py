"""Features of the frameworks that a test needs and that not every supported release has.

With the releases of `make test` nothing is left out: `tests/python/releases` asserts it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import platform
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch

import tensor_bridge
from tensor_bridge import DtypeRow
from tensor_bridge._loaded import version_pair

torch_release = version_pair(torch.__version__)
tensorflow_release = version_pair(tf.__version__)
# An older torch's tensors are copied to TensorFlow.
SHARES_TO_TF = torch_release >= (2, 13)
# The result of `explain` for a tensor that goes to TensorFlow without a change.
SHARED_TO_TF = "shared" if SHARES_TO_TF else "copied"
# The releases that `make test` runs with, and newer ones.
ALL_IS_THERE = torch_release >= (2, 13) and tensorflow_release >= (2, 21)

# There torch gives products to oneDNN (addmm_impl_cpu_ in ATen/native/LinearAlgebra.cpp, where
# AT_MKLDNN_ACL_ENABLED), which asks for a mutable pointer to what it reads (itensor_view_from_dense
# in ATen/native/mkldnn/MKLDNNCommon.cpp, with from_const_data_ptr=false).
ONEDNN_COPIES = platform.machine() == "aarch64"


def reading_in_place() -> AbstractContextManager[None]:
    """Without oneDNN, where its products copy what they read."""
    return torch.backends.mkldnn.flags(enabled=False) if ONEDNN_COPIES else nullcontext()


def tf_has(row: DtypeRow) -> bool:
    """Whether this TensorFlow has the dtype, or no release has it."""
    try:
        return not row.tf_enum or tf.as_dtype(row.tf_enum) is not None
    except TypeError:
        return False


def torch_has(row: DtypeRow) -> bool:
    """Whether this torch has the dtypes that the row names."""
    names = (row.torch_name, row.nearest)
    return all(not name or hasattr(torch, name.removeprefix("torch.")) for name in names)


def has(name: str) -> bool:
    """Whether these releases have the dtype of a row."""
    return any(row.name == name for row in rows())


def rows() -> list[DtypeRow]:
    """The rows of the dtype table that can be tried with these releases."""
    return [row for row in tensor_bridge.dtypes() if tf_has(row) and torch_has(row)]


def torch_since(minor: int, reason: str) -> Any:
    """Skips a test with an older torch."""
    return pytest.mark.skipif(
        torch_release < (2, minor), reason=f"torch before 2.{minor}: {reason}"
    )


takes_over = torch_since(13, "a first write always copies")


def tensorflow_since(minor: int, reason: str) -> Any:
    """Skips a test with an older TensorFlow."""
    text = f"TensorFlow before 2.{minor}: {reason}"
    return pytest.mark.skipif(tensorflow_release < (2, minor), reason=text)


def dtype(name: str) -> Any:
    """Skips a test if TensorFlow or torch lacks the dtype."""
    return pytest.mark.skipif(not has(name), reason=f"no {name} in these releases")


def dtypes(names: Iterable[str]) -> list[Any]:
    """Parameters of a test, skipped if TensorFlow or torch lacks the dtype."""
    return [pytest.param(name, marks=dtype(name)) for name in names]


def parameters(names: Iterable[str], marks: Mapping[str, Any]) -> list[Any]:
    """Parameters of a test, of which some have a mark."""
    return [pytest.param(name, marks=marks.get(name, ())) for name in names]


def torch_dtype(name: str) -> Any:
    """Skips a test if torch lacks the dtype."""
    return pytest.mark.skipif(not hasattr(torch, name), reason=f"this torch has no {name}")


def module(name: str) -> Any:
    """Skips a test if a package is missing that does not work with every release."""
    missing = importlib.util.find_spec(name) is None
    return pytest.mark.skipif(missing, reason=f"{name} is not installed")


def without(name: str) -> Any:
    """Skips a test if a package is installed that comes with some builds of torch."""
    there = importlib.util.find_spec(name) is not None
    return pytest.mark.skipif(there, reason=f"{name} is installed")


def forbidden_write(text: str = "on_write") -> Any:
    """Expects the error of a write after on_write="raise"; before 2.13 it is torch's own error."""
    if torch_release >= (2, 13):
        return pytest.raises(BufferError, match=text)
    return pytest.raises(RuntimeError)


numpy_writes = pytest.mark.skipif(
    version_pair(np.__version__) < (2, 2),
    reason="NumPy before 2.2: what comes by DLPack is read-only to it, a copy too",
)
numpy_exports_bool = pytest.mark.skipif(
    version_pair(np.__version__) < (1, 25), reason="NumPy before 1.25: DLPack without bool"
)
TORCH_TAKES_VERSIONED = "max_version" in inspect.signature(torch.Tensor.__dlpack__).parameters
torch_takes_versioned = pytest.mark.skipif(
    not TORCH_TAKES_VERSIONED,
    reason="this torch neither asks for DLPack's present capsules nor takes them",
)
torch_dlpack_copies = pytest.mark.skipif(
    "copy" not in inspect.signature(torch.from_dlpack).parameters,
    reason="torch.from_dlpack of this torch has no copy=",
)
KERAS_3 = version_pair(importlib.metadata.version("keras")) >= (3, 0)
keras_3 = pytest.mark.skipif(
    not KERAS_3, reason="Keras 2: its variables are TensorFlow's, and its files and names others"
)
numpy_exports_read_only = pytest.mark.skipif(
    version_pair(np.__version__) < (2, 1),
    reason="NumPy before 2.1: it exports no read-only arrays, and says of none whether they are",
)
shares_to_tf = torch_since(13, "its tensors are copied to TensorFlow")
