"""Other libraries that convert a tensor from one framework to the other, if they are installed.

Each entry is the call of the library's users. Whether the result shares memory is checked before
anything is timed.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Iterator

from _timing import Contender

LEGEND = {
    "tvm-ffi": "through tvm_ffi.from_dlpack, and the other framework's from_dlpack",
    "arraybridge": "arraybridge.convert_memory",
    "eagerpy": "eagerpy.astensor(...).numpy(), and the other framework's import",
    "Keras ops": "keras.ops.convert_to_tensor, with the other framework's backend",
}


def to_torch(t: object) -> Iterator[Contender]:
    """Ways to torch."""
    import torch

    names = {"t": t, "from_dlpack": torch.from_dlpack, "from_numpy": torch.from_numpy}

    def tvm() -> Contender:
        import tvm_ffi

        more = {"tvm_from_dlpack": tvm_ffi.from_dlpack}
        return Contender("tvm-ffi", "from_dlpack(tvm_from_dlpack(t))", names | more, shared=True)

    def arraybridge() -> Contender:
        statement = "convert_memory(t, 'tensorflow', 'torch', host)"
        return Contender("arraybridge", statement, names | _arraybridge(), shared=False)

    def eagerpy() -> Contender:
        import eagerpy

        more = {"astensor": eagerpy.astensor}
        return Contender("eagerpy", "from_numpy(astensor(t).numpy())", names | more, shared=False)

    def keras() -> Contender:
        return Contender("Keras ops", "convert(t)", names | _keras("torch"), shared=False)

    yield from _installed(tvm, arraybridge, eagerpy, keras)


def to_tf(x: object) -> Iterator[Contender]:
    """Ways to TensorFlow."""
    import tensorflow as tf

    names = {
        "x": x,
        "from_dlpack": tf.experimental.dlpack.from_dlpack,
        "convert_to_tensor": tf.convert_to_tensor,
    }

    def tvm() -> Contender:
        import tvm_ffi

        statement = "from_dlpack(tvm_from_dlpack(x).__dlpack__())"
        more = {"tvm_from_dlpack": tvm_ffi.from_dlpack}
        return Contender("tvm-ffi", statement, names | more, shared=True)

    def arraybridge() -> Contender:
        statement = "convert_memory(x, 'torch', 'tensorflow', host)"
        return Contender("arraybridge", statement, names | _arraybridge(), shared=True)

    def eagerpy() -> Contender:
        import eagerpy

        statement = "convert_to_tensor(astensor(x).numpy())"
        return Contender("eagerpy", statement, names | {"astensor": eagerpy.astensor}, shared=False)

    def keras() -> Contender:
        return Contender("Keras ops", "convert(x)", names | _keras("tensorflow"), shared=True)

    yield from _installed(tvm, arraybridge, eagerpy, keras)


def _arraybridge() -> dict[str, object]:
    convert = importlib.import_module("arraybridge").convert_memory
    host = importlib.import_module("arraybridge.devices").HostDevice()
    return {"convert_memory": convert, "host": host}


def _keras(backend: str) -> dict[str, object]:
    keras = importlib.import_module("keras")
    # It is read when Keras is imported, and TensorFlow imports it.
    if keras.backend.backend() != backend:
        raise ImportError(f"Keras needs KERAS_BACKEND={backend} in the environment")
    return {"convert": keras.ops.convert_to_tensor}


def _installed(*peers: Callable[[], Contender]) -> Iterator[Contender]:
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    for peer in peers:
        try:
            yield peer()
        except ImportError as error:
            print(f"{peer.__name__} is left out: {error}", file=sys.stderr)
